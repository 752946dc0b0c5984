import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { setDefaults } from '../../config/schema.js'
import type { IndexDefinition } from '../engine/native.js'
import { SecondaryIndexes, isWholeSetName, type KnownIndex } from './secondary-indexes.js'
import { SystemMetadata } from './system-metadata.js'
import { MemoryIndexes } from './testing/memory-indexes.js'

const AGE: IndexDefinition = { name: 'age', set: 'users', bin: 'age', 'index-type': 'default', 'key-type': 'numeric' }
const TAGS: IndexDefinition = { name: 'tags', bin: 'tags', 'index-type': 'list', 'key-type': 'string' }

async function rig (t: TestContext, engine = new MemoryIndexes()) {
  const directory = mkdtempSync(join(tmpdir(), 'perigee-sindex-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  const open = async (over = new MemoryIndexes()) => new SecondaryIndexes(await SystemMetadata.open(directory), over)
  return { engine, indexes: await open(engine), open, file: join(directory, 'system-metadata.json') }
}

function names (known: readonly KnownIndex[]): string[] {
  return known.map(({ namespace, definition }) => `${namespace}/${definition.name}`)
}

function unexpected (_: KnownIndex, error: Error): void {
  throw error
}

test('a definition is kept before it is in force, and made again at the next start', async (t) => {
  const { engine, indexes, open, file } = await rig(t)
  const kept: string[] = []
  const createIndex = engine.createIndex.bind(engine)
  engine.createIndex = (namespace, definition) => {
    kept.push(readFileSync(file, 'utf8'))
    createIndex(namespace, definition)
  }
  await indexes.create('test', AGE)
  await indexes.create('other', TAGS)
  assert.ok(kept[0]!.includes('age'))
  const next = new MemoryIndexes()
  const restarted = await open(next)
  restarted.restore(new Set(['test', 'other']), unexpected)
  assert.deepEqual(next.made.get('test')?.get('age'), AGE)
  assert.deepEqual(next.made.get('other')?.get('tags'), TAGS)
  assert.deepEqual(names(restarted.list('test')), ['test/age'])
  assert.deepEqual(names(restarted.list()), ['test/age', 'other/tags'])
})

test('the same definition again has no effect, another one under its name is refused and leaves the first', async (t) => {
  const { indexes, open } = await rig(t)
  await indexes.create('test', AGE)
  await indexes.create('test', AGE)
  await assert.rejects(indexes.create('test', { ...AGE, 'key-type': 'string' }), { code: 'PERIGEE_EXISTS' })
  for (const seen of [indexes, await open()]) assert.deepEqual(seen.list().map(({ definition }) => definition), [AGE])
})

test('what the engine refuses is not kept', async (t) => {
  const { indexes, open } = await rig(t, new MemoryIndexes({ max: 2, refuses: ({ expression }) => expression === 'AA==' }))
  await indexes.create('test', AGE)
  await assert.rejects(indexes.create('test', { name: 'odd', expression: 'AA==', 'index-type': 'default', 'key-type': 'numeric' }), { code: 'PERIGEE_ARGUMENT' })
  await indexes.create('test', TAGS)
  await assert.rejects(indexes.create('test', { ...AGE, name: 'third' }), { code: 'PERIGEE_LIMIT' })
  await indexes.create('other', { ...AGE, name: 'third' })
  for (const seen of [indexes, await open()]) assert.deepEqual(names(seen.list()), ['test/age', 'test/tags', 'other/third'])
})

test('a dropped index stays dropped, and its name is free for another', async (t) => {
  const { engine, indexes, open } = await rig(t)
  await indexes.create('test', AGE)
  assert.equal(await indexes.drop('test', 'age'), true)
  assert.equal(await indexes.drop('test', 'age'), false)
  assert.equal(engine.made.get('test')!.size, 0)
  assert.deepEqual((await open()).list(), [])
  await indexes.create('test', { ...TAGS, name: 'age' })
  assert.deepEqual((await open()).list().map(({ definition }) => definition['index-type']), ['list'])
})

test('changes at the same time are carried out one after another', async (t) => {
  const { engine, indexes } = await rig(t)
  await Promise.all([indexes.create('test', AGE), indexes.drop('test', 'age'), indexes.create('test', { ...TAGS, name: 'age' }), indexes.create('test', TAGS)])
  assert.deepEqual([...engine.made.get('test')!.values()].map(({ name, bin }) => [name, bin]), [['age', 'tags'], ['tags', 'tags']])
  assert.deepEqual(names(indexes.list()), ['test/age', 'test/tags'])
})

test('a kept definition that is refused at a start is named, stands in the list, and gives way to another or to a drop', async (t) => {
  const { indexes, open } = await rig(t)
  for (const name of ['age', 'years']) await indexes.create('test', { ...AGE, name })
  await indexes.create('test', TAGS)
  await indexes.create('gone', AGE)
  const restarted = await open(new MemoryIndexes({ refuses: ({ bin }) => bin === 'age' }))
  const refused: string[] = []
  restarted.restore(new Set(['test']), (index, error) => { refused.push(`${names([index])[0]}: ${error.message}`) })
  assert.deepEqual(refused, ['test/age: the expression has no type', 'test/years: the expression has no type'])
  assert.deepEqual(restarted.describe('test').map(({ definition, refused: why, status }) => [definition.name, why, status?.state]),
    [['age', 'the expression has no type', undefined], ['years', 'the expression has no type', undefined], ['tags', undefined, 'building']])
  await assert.rejects(restarted.create('test', AGE), { code: 'PERIGEE_ARGUMENT' })
  assert.equal(restarted.describe('test').find(({ definition }) => definition.name === 'age')!.refused, 'the expression has no type')
  await restarted.create('test', { ...TAGS, name: 'age' })
  assert.equal(await restarted.drop('test', 'years'), true)
  assert.deepEqual(restarted.describe('test').map(({ definition, refused: why }) => [definition.name, definition.bin, why]), [['tags', 'tags', undefined], ['age', 'tags', undefined]])
  // Its namespace may be configured again.
  assert.deepEqual(names(restarted.list('gone')), ['gone/age'])
})

test('indexes of whole sets are those that the configuration asks for, and are neither kept nor listed', async (t) => {
  const { engine, indexes, open } = await rig(t)
  const config = (...names: string[]) => ({ name: 'test', sets: ['users', 's'.repeat(63), 'plain'].map((name) => ({ ...setDefaults(name), 'enable-index': names.includes(name) })) })
  const made = (): string[] => [...engine.made.get('test')?.values() ?? []].map(({ name, set, 'index-type': type }) => {
    assert.ok(Buffer.byteLength(name) <= 63 && isWholeSetName(name), name)
    return `${type} ${set}`
  })
  assert.equal(indexes.hasSetsOf('test'), false)
  indexes.indexSets(config('users', 's'.repeat(63)))
  assert.equal(indexes.hasSetsOf('test'), true)
  assert.deepEqual(made(), ['set users', `set ${'s'.repeat(63)}`])
  assert.equal(indexes.describeSet('test', 'users')?.state, 'building')
  assert.equal(indexes.describeSet('test', 'plain'), undefined)
  assert.deepEqual([indexes.list(), indexes.describe('test'), (await open()).list()], [[], [], []])
  indexes.indexSets(config('users'))
  assert.deepEqual(made(), ['set users'])
  indexes.indexSets(config())
  assert.deepEqual(made(), [])
})

test('an index of a set that is refused leaves the others', async (t) => {
  const { engine, indexes } = await rig(t, new MemoryIndexes({ refuses: ({ set }) => set === 'a' }))
  const sets = ['a', 'b'].map((name) => ({ ...setDefaults(name), 'enable-index': true }))
  assert.throws(() => indexes.indexSets({ name: 'test', sets }), { code: 'PERIGEE_ARGUMENT' })
  assert.deepEqual([...engine.made.get('test')!.values()].map(({ set }) => set), ['b'])
})

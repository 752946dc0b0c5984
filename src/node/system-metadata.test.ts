import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import type { NativeNode } from '../engine/native.js'
import { SystemMetadata } from './system-metadata.js'
import { Truncations, truncationsOf } from './truncations.js'

function directory (t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'perigee-metadata-'))
  t.after(() => rmSync(path, { recursive: true, force: true }))
  return path
}

test('what is set is there after another opening, and what is removed is not', async (t) => {
  const path = directory(t)
  const metadata = await SystemMetadata.open(path)
  await Promise.all([metadata.set('a', 'one', '1'), metadata.set('a', 'two', '2'), metadata.set('b', 'one', '3'), metadata.set('a', 'two', null)])
  for (const seen of [metadata, await SystemMetadata.open(path)]) {
    assert.deepEqual(seen.values('a'), new Map([['one', '1']]))
    assert.equal(seen.get('a', 'two'), undefined)
    assert.equal(seen.get('b', 'one'), '3')
  }
})

test('a removed value keeps its generation, so that it is newer than what it was', async (t) => {
  const path = directory(t)
  const metadata = await SystemMetadata.open(path)
  await metadata.set('a', 'one', '1')
  await metadata.set('a', 'one', null)
  await metadata.set('a', 'one', '2')
  const { items } = JSON.parse(readFileSync(join(path, 'system-metadata.json'), 'utf8')) as { items: Array<{ generation: number, value: string }> }
  assert.deepEqual(items.map(({ generation, value }) => [generation, value]), [[3, '2']])
})

test('names that come and go leave a bounded trace, and what is there stays', async (t) => {
  const path = directory(t)
  const metadata = await SystemMetadata.open(path, 3)
  await metadata.set('a', 'stays', '1')
  for (let n = 0; n < 10; n++) {
    await metadata.set('a', `n${n}`, 'x')
    await metadata.set('a', `n${n}`, null)
  }
  const { items } = JSON.parse(readFileSync(join(path, 'system-metadata.json'), 'utf8')) as { items: Array<{ key: string }> }
  assert.deepEqual(items.map(({ key }) => key), ['stays', 'n7', 'n8', 'n9'])
  assert.deepEqual((await SystemMetadata.open(path)).values('a'), new Map([['stays', '1']]))
})

test('a damaged file is refused rather than taken for empty', async (t) => {
  const path = directory(t)
  const file = join(path, 'system-metadata.json')
  await (await SystemMetadata.open(path)).set('truncate', 'k', '123')
  const text = readFileSync(file, 'utf8')
  for (const damaged of ['', text.slice(0, -5), text.replace('123', '124'), text.replace('"version":1', '"version":2')]) {
    writeFileSync(file, damaged)
    await assert.rejects(SystemMetadata.open(path), /system-metadata\.json is damaged/)
  }
})

/** An engine that remembers what it was told, and that what was kept then. */
function recorder (path: string) {
  const calls: Array<[string, string | undefined, number]> = []
  const kept: string[] = []
  const native = {
    truncationTime: () => 1000,
    setTruncation: (namespace: string, set: string | undefined, lut: number) => {
      calls.push([namespace, set, lut])
      kept.push(readFileSync(join(path, 'system-metadata.json'), 'utf8'))
    }
  } as unknown as NativeNode
  return { native, calls, kept }
}

test('a mark is kept before it is in force, and only a later one takes its place', async (t) => {
  const path = directory(t)
  const { native, calls, kept } = recorder(path)
  const metadata = await SystemMetadata.open(path)
  const truncations = new Truncations(metadata, native)
  await truncations.truncate('test', 'users')
  await truncations.truncate('test', 'users', 500)
  await truncations.truncate('test', undefined, 700)
  await truncations.truncate('other', 'users', 600)
  assert.deepEqual(calls, [['test', 'users', 1000], ['test', undefined, 700], ['other', 'users', 600]])
  assert.ok(kept[0]!.includes('"1000"'))
  const reopened = await SystemMetadata.open(path)
  assert.deepEqual(truncationsOf(reopened, 'test'), [{ set: 'users', lut: 1000 }, { set: undefined, lut: 700 }])
  await truncations.undo('test', 'users')
  assert.deepEqual(calls.at(-1), ['test', 'users', 0])
  assert.deepEqual(truncationsOf(await SystemMetadata.open(path), 'test'), [{ set: undefined, lut: 700 }])
})

test('a namespace has no more truncated sets than it may have sets', async (t) => {
  const path = directory(t)
  const { native, calls } = recorder(path)
  const metadata = await SystemMetadata.open(path)
  const truncations = new Truncations(metadata, native, 2)
  await truncations.truncate('test', 'a')
  await truncations.truncate('test', 'b')
  await assert.rejects(truncations.truncate('test', 'c'), /2 sets of test are truncated/)
  await truncations.truncate('test', undefined)
  await truncations.truncate('other', 'c')
  await truncations.undo('test', 'a')
  await truncations.truncate('test', 'c')
  assert.deepEqual(calls.at(-1), ['test', 'c', 1000])
})

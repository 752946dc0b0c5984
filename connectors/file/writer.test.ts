import assert from 'node:assert/strict'
import { appendFile, open, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { tempDirectory } from '../../test/support/temp.js'
import { KeptLog } from '../../src/xdr/testing/rig.js'
import type { Change } from '../change.js'
import { FileConnector, ForeignFileError, type OpenFile } from './writer.js'

function scratch (): string {
  return join(tempDirectory('file'), 'sub', 'changes.jsonl')
}

function change (generation: number): Change {
  return { kind: 'delete', namespace: 'test', set: '', digest: Buffer.alloc(20, generation), key: undefined, generation, lastUpdateMs: 1, expirySeconds: 0, durable: false, bins: [] }
}

async function generations (path: string): Promise<number[]> {
  return (await readFile(path, 'utf8')).split('\n').filter((line) => line !== '').map((line) => (JSON.parse(line) as { gen: number }).gen)
}

function connector (path: string, openFile?: OpenFile): FileConnector {
  return new FileConnector({ path, format: 'json' }, new KeptLog().log, openFile)
}

test('changes are lines, in order, across restarts', async () => {
  const path = scratch()
  for (const first of [1, 3]) {
    const file = connector(path)
    await file.open()
    assert.equal(file.nodes, 1)
    const both = await Promise.all([file.ship([change(first)]), file.ship([change(first + 1)])])
    assert.deepEqual(both, [['shipped'], ['shipped']])
    await file.close()
    await file.close()
  }
  assert.deepEqual(await generations(path), [1, 2, 3, 4])
})

test('a torn last line is cut on open, also when it is the first', async () => {
  const path = scratch()
  for (const torn of ['{"msg":"wri', 'x'.repeat(200_000)]) {
    const file = connector(path)
    await file.open()
    await file.ship([change(1)])
    await file.close()
    await appendFile(path, torn)
    const again = connector(path)
    await again.open()
    await again.ship([change(2)])
    await again.close()
    assert.deepEqual(await generations(path), [1, 2])
    await rm(path)
  }
  await writeFile(path, '{"msg":')
  const file = connector(path)
  await file.open()
  await file.close()
  assert.equal(await readFile(path, 'utf8'), '')
})

test('a file that holds something else is refused and left alone', async () => {
  const path = scratch()
  const file = connector(path)
  await file.open()
  await file.close()
  await writeFile(path, 'precious')
  await assert.rejects(connector(path).open(), ForeignFileError)
  assert.equal(await readFile(path, 'utf8'), 'precious')
})

test('a write or sync that fails is repeated through a new handle and leaves no half line behind', async () => {
  // Fault model: the nth write puts down half of its bytes and fails; the nth sync fails after the bytes are there.
  const path = scratch()
  let calls = 0
  const failing: OpenFile = async (name) => {
    const handle = await open(name, 'a+')
    return new Proxy(handle, {
      get (target, property) {
        if (property === 'write') {
          return async (bytes: Buffer, offset: number, length: number, position: null) => {
            if (++calls % 3 !== 0) return await target.write(bytes, offset, length, position)
            await target.write(bytes, offset, length >> 1, position)
            throw new Error('ENOSPC')
          }
        }
        if (property === 'datasync' && ++calls % 4 === 0) return async () => { throw new Error('EIO') }
        const member: unknown = Reflect.get(target, property)
        return typeof member === 'function' ? member.bind(target) : member
      }
    })
  }
  const file = connector(path, failing)
  await file.open()
  const expected: number[] = []
  for (let generation = 1; generation <= 12; generation++) {
    assert.deepEqual(await file.ship([change(generation)]), ['shipped'])
    expected.push(generation)
    assert.deepEqual(await generations(path), expected)
  }
  await file.close()
})

test('a file that was moved away is begun anew', async () => {
  const path = scratch()
  const file = connector(path)
  await file.open()
  await file.ship([change(1)])
  await rename(path, `${path}.1`)
  await file.ship([change(2)])
  await file.close()
  assert.deepEqual(await generations(`${path}.1`), [1])
  assert.deepEqual(await generations(path), [2])
})

test('a file that was cut in place is begun anew, without a hole at its start', async (t) => {
  const path = scratch()
  const file = connector(path)
  t.after(() => file.close())
  await file.open()
  await file.ship([change(1), change(2)])
  for (let round = 3; round < 6; round++) {
    await truncate(path)
    await file.ship([change(round)])
    await file.ship([change(round + 10)])
    assert.equal((await readFile(path)).indexOf(0), -1)
    assert.deepEqual(await generations(path), [round, round + 10])
  }
})

test('a batch that the file was cut under is written again', async (t) => {
  // Fault model: a rotation by copy and truncate falls between the look at the file and the write, or between the write and its sync.
  for (const moment of ['write', 'datasync'] as const) {
    const path = scratch()
    let cut = false
    const cutting: OpenFile = async (name) => {
      const handle = await open(name, 'a+')
      return new Proxy(handle, {
        get (target, property) {
          const member: unknown = Reflect.get(target, property)
          if (typeof member !== 'function') return member
          return async (...values: unknown[]) => {
            if (property === moment && cut) {
              cut = false
              await truncate(path)
            }
            return await (member.apply(target, values) as Promise<unknown>)
          }
        }
      })
    }
    const file = connector(path, cutting)
    t.after(() => file.close())
    await file.open()
    await file.ship([change(1), change(2)])
    cut = true
    assert.deepEqual(await file.ship([change(3)]), ['shipped'])
    await file.ship([change(4)])
    assert.equal((await readFile(path)).indexOf(0), -1)
    assert.deepEqual([...new Set(await generations(path))], [3, 4], moment)
  }
})

test('close while nothing can be written returns the changes', async () => {
  const path = scratch()
  const file = connector(path, async () => { throw new Error('no such device') })
  const opened = assert.rejects(file.open())
  const shipped = file.ship([change(1)])
  await file.close()
  assert.deepEqual(await shipped, ['retry'])
  await opened
})

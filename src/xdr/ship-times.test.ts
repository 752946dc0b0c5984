import assert from 'node:assert/strict'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { tempDirectory } from '../../test/support/temp.js'
import { ShipTimes, TIMES_BYTES } from './ship-times.js'
import { KeptLog } from './testing/rig.js'

function times (value: bigint): Buffer {
  const bytes = Buffer.alloc(TIMES_BYTES)
  bytes.writeBigUInt64LE(value, 8 * 77)
  return bytes
}

test('what was saved is loaded, and the directory holds nothing else', async () => {
  const work = tempDirectory('lst')
  const { log } = new KeptLog()
  await new ShipTimes(work, 'tokyo', 'test', log).save(times(123456789012345n))
  assert.deepEqual(await new ShipTimes(work, 'tokyo', 'test', log).load(), times(123456789012345n))
  assert.deepEqual(await readdir(join(work, 'xdr')), ['tokyo.test.lst'])
})

test('names with dots do not share a file', async () => {
  const work = tempDirectory('lst')
  const { log } = new KeptLog()
  await new ShipTimes(work, 'a.b', 'c', log).save(times(1n))
  await new ShipTimes(work, 'a', 'b.c', log).save(times(2n))
  assert.deepEqual(await new ShipTimes(work, 'a.b', 'c', log).load(), times(1n))
})

test('no file means zeros, without a warning', async () => {
  const kept = new KeptLog()
  assert.deepEqual(await new ShipTimes(tempDirectory('lst'), 'dc', 'test', kept.log).load(), Buffer.alloc(TIMES_BYTES))
  assert.equal(kept.lines.filter(({ level }) => level === 'warn').length, 0)
})

test('a file with any damage means zeros and a warning', async () => {
  const work = tempDirectory('lst')
  const kept = new KeptLog()
  await new ShipTimes(work, 'dc', 'test', kept.log).save(times(99n))
  const path = join(work, 'xdr', 'dc.test.lst')
  const good = await readFile(path)
  const flipped = (at: number): Buffer => {
    const bytes = Buffer.from(good)
    bytes[at]! ^= 1
    return bytes
  }
  const damaged = [Buffer.alloc(0), good.subarray(0, good.length - 1), Buffer.concat([good, Buffer.alloc(1)]), flipped(0), flipped(8), flipped(20), flipped(48 + 8 * 77)]
  for (const [index, bytes] of damaged.entries()) {
    await writeFile(path, bytes)
    assert.deepEqual(await new ShipTimes(work, 'dc', 'test', kept.log).load(), Buffer.alloc(TIMES_BYTES), `damage ${index}`)
  }
  assert.equal(kept.lines.filter(({ level }) => level === 'warn').length, damaged.length)
})

test('unchanged times are not written again', async () => {
  const work = tempDirectory('lst')
  const shipTimes = new ShipTimes(work, 'dc', 'test', new KeptLog().log)
  await shipTimes.save(times(5n))
  await rm(join(work, 'xdr', 'dc.test.lst'))
  await shipTimes.save(times(5n))
  assert.deepEqual(await readdir(join(work, 'xdr')), [])
  await shipTimes.save(times(6n))
  assert.deepEqual(await readdir(join(work, 'xdr')), ['dc.test.lst'])
})

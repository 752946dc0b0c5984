// What surrounds the records of a backup: partitions as they are typed, manifests, state files, progress.

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { partitionOf } from '../client/digest.js'
import { BackupState, StateError } from './backup-state.js'
import { FileInProgress } from './file-in-progress.js'
import { ManifestError, readManifest, verifyFiles, writeManifest, type Manifest } from './manifest.js'
import { PartitionListError, allPartitions, parsePartitions, partitionsAfter } from './partitions.js'
import { Progress, sizeText, timeText } from './progress.js'
import { RestoreState } from './restore-state.js'

function temporary (t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'perigee-backup-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

const digest = createHash('ripemd160').update('x').digest()
const partition = partitionOf(digest)

test('partitions are typed one by one, as ranges, or as a digest to go on behind', () => {
  assert.deepEqual([...parsePartitions('7,10-3').keys()], [7, 10, 11, 12])
  assert.deepEqual([...parsePartitions(digest.toString('base64'))], [[partition, digest]])
  const after = partitionsAfter(digest.toString('base64'))
  assert.deepEqual([...after.keys()], [...allPartitions().keys()].slice(partition))
  assert.deepEqual([after.get(partition), after.get(partition + 1)], [digest, undefined])
  for (const wrong of ['', '4096', '4000-97', '5-0', '-1', 'abc', `${digest.toString('base64')}=`, '1,,2']) {
    assert.throws(() => parsePartitions(wrong), PartitionListError, wrong)
  }
})

test('a manifest notices a file that is missing, longer, altered, or none of its own', async (t) => {
  const directory = temporary(t)
  assert.equal(await readManifest(directory), undefined)
  const file = await FileInProgress.create(join(directory, 'a.asb'))
  await file.append(Buffer.from('some '))
  await file.append(Buffer.from('bytes'))
  assert.deepEqual(readdirSync(directory), ['a.asb.part'])
  const sha256 = await file.finish()
  assert.equal(sha256, createHash('sha256').update('some bytes').digest('hex'))
  const manifest: Manifest = {
    format: 1, namespace: 'test', sets: [], started: 'then', ended: 'now', files: [{ name: 'a.asb', bytes: 10, records: 1, sha256 }], records: 1, bytes: 10, modules: 0, indexes: 0, missing: 0, keysLeftOut: 0
  }
  await writeManifest(directory, manifest)
  assert.deepEqual(await readManifest(directory), manifest)
  await verifyFiles(directory, manifest)
  const wrong = (reason: RegExp) => assert.rejects(verifyFiles(directory, manifest), (error: Error) => error instanceof ManifestError && reason.test(error.message))
  writeFileSync(join(directory, 'a.asb'), 'some Bytes')
  await wrong(/a\.asb is not what was written/)
  writeFileSync(join(directory, 'a.asb'), 'some bytes more')
  await wrong(/a\.asb has 15 bytes, not 10/)
  writeFileSync(join(directory, 'b.asb'), '')
  rmSync(join(directory, 'a.asb'))
  await wrong(/a\.asb is missing; b\.asb is no part of the backup/)
  writeFileSync(join(directory, 'perigee-backup.json'), '{"format":1}')
  await assert.rejects(readManifest(directory), ManifestError)
})

test('state files come back as they were, and others are refused', async (t) => {
  const path = join(temporary(t), 'state')
  const choice = {
    namespace: 'test', sets: ['a', 'b'], bins: [], noBins: false, noTtlOnly: false, compact: true, prefix: 'test', records: true, udfs: true, indexes: true, recordsLeft: 5
  }
  const state = new BackupState('then', choice, new Map([[1, undefined], [partition, digest]]))
  state.open[0]!.partitions.delete(1)
  state.nextFile = 3
  await state.save(path)
  assert.deepEqual(await BackupState.load(path), state)
  await assert.rejects(RestoreState.load(path, '/backup'), StateError)
  const restore = new RestoreState('/backup')
  restore.files['a.asb'] = { offset: 7, line: 2, done: false }
  restore.counts.read = 9
  await restore.save(path)
  assert.deepEqual(await RestoreState.load(path, '/backup'), restore)
  await assert.rejects(RestoreState.load(path, '/other'), /belongs to a restore of \/backup/)
  await assert.rejects(BackupState.load(path), StateError)
})

test('progress is redrawn on a terminal, and said now and then elsewhere', () => {
  const written: string[] = []
  const terminal = new Progress({ isTerminal: true, write: (text) => written.push(text) }, 1000, 'records', 0)
  terminal.update(10, 100, 100)
  terminal.update(250, 2048, 1000)
  terminal.line('a warning')
  terminal.end()
  assert.deepEqual(written, ['\r\u001b[K 25%  250 records  2.0 KiB  250 records/s  3 s left', '\r\u001b[Ka warning\n', '\r\u001b[K'])
  written.length = 0
  const lines = new Progress({ isTerminal: false, write: (text) => written.push(text) }, 0, 'bytes', 0)
  lines.update(10, 100, 4000)
  lines.update(10_000, 5 << 20, 5000)
  lines.end()
  assert.deepEqual(written, ['10,000 records  5.0 MiB  2,000 records/s\n', ''])
  assert.deepEqual([sizeText(5), sizeText(3 * 2 ** 40), timeText(59.4), timeText(61), timeText(7300)], ['5 bytes', '3.0 TiB', '59 s', '1 min 1 s', '2 h 1 min'])
})

// A backup against a scratch node: what is left out is counted, and what cannot be written costs nothing that is finished.

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { copyFileSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { Client } from '../client/client.js'
import { partitionOf } from '../client/digest.js'
import { encodeRequest, textField, writeProto, type Message, type WireOp } from '../client/message.js'
import { ScratchNode } from '../client/scratch-node.js'
import { FieldId, Info3, PROTO_HEADER_BYTES, ParticleType, ProtoType } from '../engine/constants.js'
import { BackupState, type BackupChoice } from './backup-state.js'
import { Backup, type BackupOptions, type BackupTarget } from './backup.js'
import { readManifest } from './manifest.js'
import { allPartitions } from './partitions.js'

const VALUE = Buffer.alloc(1000, 'x')
const TYPE_UNKNOWN = 99

const choice: BackupChoice = {
  namespace: 'test', sets: [], bins: [], noBins: false, noTtlOnly: false, compact: false, prefix: 'test', records: true, udfs: false, indexes: false, recordsLeft: null
}

function part (info3: number, generation: number, digest?: Buffer, op?: WireOp, key?: Buffer): Buffer {
  const fields = digest === undefined ? [] : [textField(FieldId.NAMESPACE, 'test'), { id: FieldId.DIGEST, data: digest }, ...key === undefined ? [] : [{ id: FieldId.KEY, data: key }]]
  return encodeRequest({ info3, generation, fields, ops: op === undefined ? [] : [op] }).subarray(PROTO_HEADER_BYTES)
}

/** Answers a query with the records of the partitions that it asks for, a frame a record. */
function answer (records: ReadonlyMap<number, Buffer>, type: (partition: number) => number, key: (partition: number) => Buffer | undefined = () => undefined) {
  return (request: Message, socket: Socket): void => {
    const ids = request.fields.get(FieldId.PARTITIONS)!
    const send = (...parts: Buffer[]): void => {
      const frame = Buffer.concat([Buffer.alloc(PROTO_HEADER_BYTES), ...parts])
      writeProto(frame, ProtoType.MESSAGE)
      socket.write(frame)
    }
    for (let at = 0; at < ids.length; at += 2) {
      const partition = ids.readUInt16LE(at)
      const digest = records.get(partition)
      if (digest !== undefined) send(part(0, 1, digest, { op: 1, name: 'b', type: type(partition), value: VALUE }, key(partition)))
      send(part(Info3.PARTITION_DONE, partition))
    }
    send(part(Info3.LAST, 0))
  }
}

/** One record in each of some partitions. */
function someRecords (count: number): Map<number, Buffer> {
  const records = new Map<number, Buffer>()
  for (let n = 0; records.size < count; n++) {
    const digest = createHash('ripemd160').update(String(n)).digest()
    records.set(partitionOf(digest), digest)
  }
  return records
}

async function connected (t: TestContext, query: ScratchNode['query']): Promise<{ node: ScratchNode, client: Client, directory: string }> {
  const node = await new ScratchNode({ name: 'A1' }).start()
  t.after(() => node.stop())
  node.query = query
  node.info.set('namespace/test', 'objects=1;query_unreadable_records=4')
  const client = await Client.connect({ hosts: [`127.0.0.1:${node.port}`], tendIntervalMs: 30, timeoutMs: 1000 })
  t.after(() => client.close())
  const directory = mkdtempSync(join(tmpdir(), 'perigee-backup-job-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  return { node, client, directory }
}

function job (client: Client, state: BackupState, target: BackupTarget, options: Partial<BackupOptions> = {}): Backup {
  return new Backup(client, state, target, {
    parallel: 2, fileBytesMax: 20_000, recordsPerSecond: 0, socketTimeoutMs: 1000, patienceMs: 500, signal: new AbortController().signal, onProgress: () => {}, onWarning: () => {}, ...options
  })
}

test('records that a node could not read, or that have no letter in the format, are counted as missing', async (t) => {
  const records = someRecords(50)
  const [odd] = records.keys()
  const { node, client, directory } = await connected(t, (request, socket) => {
    node.info.set('namespace/test', 'objects=1;query_unreadable_records=7')
    answer(records, (partition) => partition === odd ? TYPE_UNKNOWN : ParticleType.BLOB)(request, socket)
  })
  const warnings: string[] = []
  const state = new BackupState('then', choice, allPartitions())
  const outcome = await job(client, state, { directory, statePath: join(directory, 'state') }, { onWarning: (text) => warnings.push(text) }).run()
  assert.deepEqual([outcome.records, outcome.missing, outcome.complete], [49, 4, true])
  assert.equal((await readManifest(directory))!.missing, 4)
  assert.match(warnings.join('\n'), /is left out: bin "b" has particle type 99/)
  assert.match(warnings.join('\n'), /3 records could not be read by their node/)
})

test('indexes of the chosen sets are in the first file, and one that the format has no words for is named', async (t) => {
  const { node, client, directory } = await connected(t, answer(new Map(), () => ParticleType.BLOB))
  node.info.set('sindex-list:ns=test;b64=true', [
    'ns=test:indexname=age:set=users:bin=age:type=numeric:indextype=default:context=null:exp=null:state=RW',
    'ns=test:indexname=every:set=null:bin=doc:type=string:indextype=list:context=kiKiA24=:exp=null:state=WO',
    'ns=test:indexname=sum:set=users:bin=null:type=numeric:indextype=default:context=null:exp=kxSTUQKhYQE=:state=RW',
    'ns=test:indexname=other:set=others:bin=age:type=numeric:indextype=default:context=null:exp=null:state=RW',
    'ns=test:indexname=all:set=users:indextype=set'
  ].join(';'))
  const warnings: string[] = []
  const state = new BackupState('then', { ...choice, sets: ['users'], indexes: true }, allPartitions())
  const outcome = await job(client, state, { directory, statePath: join(directory, 'state') }, { onWarning: (text) => warnings.push(text) }).run()
  assert.equal(outcome.indexes, 3)
  assert.equal((await readManifest(directory))!.indexes, 3)
  assert.deepEqual(warnings, ['index all is left out: the format has no words for an index of a whole set'])
  assert.equal(readFileSync(join(directory, 'test_00000.asb'), 'latin1'), [
    'Version 3.2', '# namespace test', '# first-file', '* i test users age N 1 age N', '* i test  every L 1 doc S kiKiA24=', '* e test users sum N 1  N kxSTUQKhYQE=', ''
  ].join('\n'))
})

test('a key that has no letter in the format is left out, warned about and counted, once however often the backup stops', async (t) => {
  const records = someRecords(50)
  const odd = new Set([...records.keys()].slice(0, 20))
  let frames = 0
  const { client, directory } = await connected(t, (request, socket) => {
    if (++frames > 5 && frames < 200) return void socket.destroy()
    answer(records, () => ParticleType.BLOB, (partition) => Buffer.from([odd.has(partition) ? ParticleType.JAVA_BLOB : ParticleType.BLOB, 1]))(request, socket)
  })
  const statePath = join(directory, 'state')
  const warnings: string[] = []
  const options = { onWarning: (text: string) => warnings.push(text) }
  await assert.rejects(job(client, new BackupState('then', choice, allPartitions()), { directory, statePath }, options).run(), /CLIENT_CONNECTION/)
  frames = 1000
  const outcome = await job(client, await BackupState.load(statePath), { directory, statePath }, options).run()
  assert.deepEqual([outcome.records, outcome.missing, outcome.keysLeftOut], [50, 0, 20])
  assert.equal((await readManifest(directory))!.keysLeftOut, 20)
  assert.match(warnings.join('\n'), /goes without its key, of particle type 7/)
  const text = readdirSync(directory).filter((name) => name.endsWith('.asb')).map((name) => readFileSync(join(directory, name), 'latin1')).join('')
  assert.equal(text.match(/^\+ k /gm)?.length, 30)
})

test('a backup that fails keeps its finished files, and going on adds up to everything once', async (t) => {
  const records = someRecords(200)
  let frames = 0
  const { client, directory } = await connected(t, (request, socket) => {
    // From some point on nothing more comes, as from a node that is gone for good.
    if (++frames > 9 && frames < 200) return void socket.destroy()
    answer(records, () => ParticleType.BLOB)(request, socket)
  })
  const statePath = join(directory, 'state')
  await assert.rejects(job(client, new BackupState('then', choice, allPartitions()), { directory, statePath }).run(), /CLIENT_CONNECTION/)
  assert.ok(!existsSync(join(directory, 'perigee-backup.json')))
  assert.equal(readdirSync(directory).filter((name) => name.endsWith('.part')).length, 0)
  const state = await BackupState.load(statePath)
  const before = state.files.reduce((sum, file) => sum + file.records, 0)
  assert.ok(before > 0 && before < 200, `${before} records`)
  // As if the process had been killed after a file got its name, and before the state had it.
  copyFileSync(join(directory, state.files[0]!.name), join(directory, 'test_00077.asb'))
  frames = 1000
  const outcome = await job(client, state, { directory, statePath }).run()
  assert.deepEqual([outcome.records, outcome.complete], [200, true])
  const digests = readdirSync(directory).filter((name) => name.endsWith('.asb')).flatMap((name) =>
    readFileSync(join(directory, name), 'latin1').split('\n').filter((line) => line.startsWith('+ d ')).map((line) => line.slice(4)))
  assert.deepEqual(digests.sort(), [...records.values()].map((digest) => digest.toString('base64')).sort())
})

test('a limit on records is kept by all workers together', async (t) => {
  const { client } = await connected(t, answer(someRecords(100), () => ParticleType.BLOB))
  let text = ''
  const target = { write: async (bytes: Buffer) => { text += bytes.toString('latin1') } }
  const outcome = await job(client, new BackupState('then', { ...choice, recordsLeft: 30 }, allPartitions()), target).run()
  assert.equal(outcome.records, 30)
  assert.equal(text.split('\n').filter((line) => line.startsWith('+ d ')).length, 30)
})

test('a single file that cannot be finished leaves nothing behind', async (t) => {
  const { client, directory } = await connected(t, (_, socket) => socket.destroy())
  const file = join(directory, 'one.asb')
  await assert.rejects(job(client, new BackupState('then', choice, allPartitions()), { file }).run(), /CLIENT_CONNECTION/)
  assert.deepEqual(readdirSync(directory), [])
  await assert.rejects(job(client, new BackupState('then', choice, allPartitions()), { write: async () => { throw new Error('the pipe is closed') } }).run(), /the pipe is closed/)
})

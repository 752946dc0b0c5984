// A restore against a scratch node that refuses, is overloaded, or loses answers where a test wants it.

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test, type TestContext } from 'node:test'
import { Client } from '../client/client.js'
import { decodeMessage, type Message } from '../client/message.js'
import { ScratchNode } from '../client/scratch-node.js'
import { EPOCH_UNIX_SECONDS, FieldId, Info2, Info3, ResultCode } from '../engine/constants.js'
import { RestoreState } from './restore-state.js'
import { Restore, RestoreError, type RestoreOptions } from './restore.js'

const digest = (n: number): Buffer => createHash('ripemd160').update(String(n)).digest()

function record (n: number, more: { voidTime?: number, set?: string, bins?: string } = {}): string {
  return `+ k I ${n}\n+ n test\n+ d ${digest(n).toString('base64')}\n+ s ${more.set ?? 's'}\n+ g 3\n+ t ${more.voidTime ?? 0}\n${more.bins ?? '+ b 2\n- I n 5\n- S t 1 x\n'}`
}

const HEADER = 'Version 3.1\n# namespace test\n'

async function * streamed (text: string): AsyncGenerator<Buffer> {
  yield Buffer.from(text)
}

interface Rig {
  readonly node: ScratchNode
  readonly state: RestoreState
  readonly warnings: string[]
  run (text: string, options?: Partial<RestoreOptions>): Promise<boolean>
  /** The writes that the node received. */
  writes (): Message[]
}

async function rig (t: TestContext): Promise<Rig> {
  const node = await new ScratchNode({ name: 'A1', namespaces: ['test', 'copy'] }).start()
  t.after(() => node.stop())
  const client = await Client.connect({ hosts: [`127.0.0.1:${node.port}`], tendIntervalMs: 30, timeoutMs: 1000 })
  t.after(() => client.close())
  const state = new RestoreState('-')
  const warnings: string[] = []
  return {
    node,
    state,
    warnings,
    run: (text, options = {}) => new Restore(client, state, {
      from: undefined,
      to: undefined,
      sets: new Set(),
      bins: new Set(),
      records: true,
      udfs: true,
      indexes: true,
      policy: { unique: false, replace: false, noGeneration: false },
      ignoreRecordErrors: false,
      extraTtl: 0,
      parallel: 2,
      recordsPerSecond: 0,
      timeoutMs: 200,
      patienceMs: 5000,
      signal: new AbortController().signal,
      onProgress: () => {},
      onWarning: (warning) => warnings.push(warning),
      save: async () => {},
      ...options
    }).run([{ name: 'a.asb', path: undefined, stream: streamed(HEADER + text) }]),
    writes: () => node.received.map(decodeMessage).filter(({ info2 }) => (info2 & Info2.WRITE) !== 0)
  }
}

test('a record is written by its digest, with set, key, generation, time to live and bins', async (t) => {
  const { run, state, writes } = await rig(t)
  const soon = Math.floor(Date.now() / 1000) - EPOCH_UNIX_SECONDS + 100
  assert.equal(await run(record(1, { voidTime: soon }) + record(2), { to: 'copy' }), true)
  const [first, second] = writes()
  assert.equal(first!.fields.get(FieldId.NAMESPACE)!.toString(), 'copy')
  assert.equal(first!.fields.get(FieldId.SET)!.toString(), 's')
  assert.deepEqual(first!.fields.get(FieldId.DIGEST), digest(1))
  assert.deepEqual(first!.fields.get(FieldId.KEY), Buffer.from([1, 0, 0, 0, 0, 0, 0, 0, 1]))
  assert.deepEqual([first!.info2, first!.info3, first!.generation], [Info2.WRITE | Info2.GENERATION_GT, 0, 3])
  assert.ok(first!.ttl > 90 && first!.ttl <= 100, String(first!.ttl))
  assert.equal(second!.ttl, 0xffff_ffff)
  assert.deepEqual(first!.ops.map(({ name }) => name), ['n', 't'])
  assert.deepEqual([state.counts.read, state.counts.inserted], [2, 2])
})

test('each policy is sent as what it says', async (t) => {
  const policies: Array<[RestoreOptions['policy'], number, number, number]> = [
    [{ unique: true, replace: false, noGeneration: false }, Info2.WRITE | Info2.CREATE_ONLY, 0, 0],
    [{ unique: false, replace: true, noGeneration: false }, Info2.WRITE | Info2.GENERATION_GT, Info3.CREATE_OR_REPLACE, 3],
    [{ unique: false, replace: true, noGeneration: true }, Info2.WRITE, Info3.CREATE_OR_REPLACE, 0]
  ]
  for (const [policy, info2, info3, generation] of policies) {
    const { run, writes } = await rig(t)
    await run(record(1), { policy })
    assert.deepEqual(writes().map((write) => [write.info2, write.info3, write.generation]), [[info2, info3, generation]])
  }
})

test('an overloaded node is tried again until it takes the record', async (t) => {
  const { node, run, state } = await rig(t)
  const answers = [ResultCode.DEVICE_OVERLOAD, ResultCode.KEY_BUSY, ResultCode.TIMEOUT]
  node.result = () => answers.shift()
  assert.equal(await run(record(1)), true)
  assert.deepEqual([state.counts.inserted, state.counts.retries], [1, 3])
})

test('a write whose answer is lost is repeated, and what is found then was its own', async (t) => {
  const { node, run, state } = await rig(t)
  let requests = 0
  node.fault = () => ++requests === 1 ? 'drop' : undefined
  node.result = () => requests > 1 ? ResultCode.GENERATION : undefined
  assert.equal(await run(record(1)), true)
  assert.deepEqual([state.counts.inserted, state.counts.fresher], [1, 0])
})

test('a node that never takes it ends the restore after the time given, with file, line and reason', async (t) => {
  const { node, run } = await rig(t)
  node.result = () => ResultCode.DEVICE_OVERLOAD
  await assert.rejects(run(record(1), { patienceMs: 100 }), (error: Error) => error instanceof RestoreError && /^a\.asb:3: DEVICE_OVERLOAD/.test(error.message))
})

test('what is there already, and what was expired or not asked for, is counted', async (t) => {
  const { node, run, state } = await rig(t)
  const results = new Map([[1, ResultCode.RECORD_EXISTS], [2, ResultCode.GENERATION]].map(([n, result]) => [digest(n!).toString('hex'), result!]))
  node.result = (frame) => results.get(decodeMessage(frame).fields.get(FieldId.DIGEST)!.toString('hex'))
  await run(record(1) + record(2) + record(3, { voidTime: 5 }) + record(4, { set: 'other' }) + record(5, { bins: '+ b 1\n- N gone\n' }) + record(6), { sets: new Set(['s']) })
  const { read, inserted, existed, fresher, expired, skipped } = state.counts
  assert.deepEqual({ read, inserted, existed, fresher, expired, skipped }, { read: 6, inserted: 1, existed: 1, fresher: 1, expired: 1, skipped: 2 })
})

test('a refused record ends the restore, or is counted when that was asked for', async (t) => {
  const { node, run, state, warnings } = await rig(t)
  node.result = (frame) => decodeMessage(frame).fields.get(FieldId.DIGEST)!.equals(digest(1)) ? ResultCode.FORBIDDEN : undefined
  await assert.rejects(run(record(1, { voidTime: 4_000_000_000 })), /a\.asb:3: .* is refused: FORBIDDEN; .*nsup-period/)
  assert.equal(await run(record(1) + record(2), { ignoreRecordErrors: true }), true)
  assert.deepEqual([state.counts.errors, state.counts.inserted], [1, 1])
  assert.equal(warnings.length, 1)
})

test('a record of another namespace, and a malformed one, write nothing', async (t) => {
  const { run, writes } = await rig(t)
  await assert.rejects(run(record(1), { from: 'prod' }), /a\.asb:3: a record of namespace test, not prod/)
  await assert.rejects(run(record(1, { bins: '+ b 2\n- I n 5\n- S t 2 x\n' }) + record(2)), /a\.asb:11: no line feed/)
  await assert.rejects(run(record(1, { bins: '+ b 2\n- I n 5\n' })), /the file ends here/)
  assert.deepEqual(writes(), [])
})

test('modules are put, and one whose name would be more than a name is refused', async (t) => {
  const { node, run, state } = await rig(t)
  node.info.set('udf-put:filename=a.lua;content=LS0=;content-len=4;udf-type=LUA;', 'ok')
  await run('* u L a.lua 2 --\n')
  assert.equal(state.counts.modules, 1)
  await assert.rejects(run('* u L a;b.lua 2 --\n'), /"a;b\.lua" is not the name of a module/)
  await assert.rejects(run('* u L b.lua 2 --\n'), /module b\.lua: /)
})

test('indexes are created in the namespace that is written to, and what is refused is named and counted', async (t) => {
  const { node, run, state, warnings } = await rig(t)
  node.info.set('sindex-create:ns=copy;set=s;indexname=age;indexdata=age,numeric', 'ok')
  node.info.set('sindex-create:ns=copy;indexname=half;indextype=list;exp=AQ==;type=string', 'ERROR:4:the expression has no type')
  const lines = '* i test s age N 1 age N\n* e test  half L 1  S AQ==\n* i test s od\\\nd N 1 n N\n* i test s age N 1 age X\n'
  assert.equal(await run(lines + record(1), { to: 'copy' }), true)
  assert.deepEqual([state.counts.indexes, state.counts.indexesRefused, state.counts.inserted], [1, 3, 1])
  assert.deepEqual(warnings.toSorted(), [
    'a.asb:4: the secondary index is not created, the expression has no type: * e test  half L 1  S AQ==',
    'a.asb:5: the secondary index is not created, its name cannot be one here: * i test s od\\\nd N 1 n N',
    'a.asb:7: the secondary index is not created, it is of no known form: * i test s age N 1 age X'
  ])
  await assert.rejects(run(lines, { from: 'prod' }), /an index of namespace test, not prod/)
  const unwanted = await rig(t)
  await unwanted.run(lines, { indexes: false })
  assert.deepEqual([unwanted.state.counts.indexes, unwanted.state.counts.indexesRefused, unwanted.warnings], [0, 0, []])
})

test('a rate is kept to, and a signal ends the restore between two records', async (t) => {
  const { run, state } = await rig(t)
  const abort = new AbortController()
  const text = Array.from({ length: 300 }, (_, n) => record(n)).join('')
  const running = run(text, { recordsPerSecond: 200, signal: abort.signal })
  while (state.counts.read < 10) await new Promise((resolve) => setTimeout(resolve, 5))
  abort.abort()
  assert.equal(await running, false)
  assert.ok(state.counts.read < 300)
})

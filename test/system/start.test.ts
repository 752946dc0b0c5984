// A node that is still opening its namespaces listens, says how far it is, and refuses requests for records; a signal ends it at once.
//
// Opening has to last long enough to be looked at: the device has many small write blocks, whose headers are all read. Where it was
// over before the test could look, the node is started again.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { after, test } from 'node:test'
import { NodeProcess, fileNamespace } from '../support/node-process.js'
import { eventually } from '../support/eventually.js'
import { RawConnection, decodeMessage, getAll, putInteger, type RawKey } from '../support/wire.js'

const STARTS_MAX = 5
const OK = 0
const UNAVAILABLE = 11
const NAMESPACE = 20

const node = await NodeProcess.create({
  name: 'starting',
  namespaces: (directory) => [fileNamespace(directory, {
    filesize: '4G', storage: { 'write-block-size': '64K', 'flush-size': '64K' }, more: { 'max-record-size': '32K' }
  })]
})

after(async () => { await node.dispose() })

const key = (namespace: string): RawKey => ({ namespace, set: 's', digest: createHash('sha1').update('k').digest() })

/** Starts the node without waiting until it is ready; resolves when it listens. */
async function untilListening (): Promise<{ ready: Promise<void> }> {
  const before = node.log.split('"listening"').length
  const ready = node.start()
  ready.catch(() => {})
  await eventually('the node listens', () => node.log.split('"listening"').length, (seen) => seen > before, { intervalMs: 2 })
  return { ready }
}

test('a node that opens its namespaces answers info commands, says how far it is, and refuses records with UNAVAILABLE', async () => {
  await node.start()
  const first = await RawConnection.open(node.port)
  first.send(putInteger(key('test'), 'n', 7n))
  assert.equal(decodeMessage(await first.receive()).result, OK)
  await node.stop()

  let seen = false
  for (let start = 0; start < STARTS_MAX && !seen; start++) {
    const { ready } = await untilListening()
    const connection = await RawConnection.open(node.port)
    for (const name of ['test', 'none']) connection.send(getAll(key(name)))
    const results = [decodeMessage(await connection.receive()).result, decodeMessage(await connection.receive()).result]
    const answers = await Promise.all(['status', 'partition-generation', 'namespace/test', 'udf-list'].map((command) => node.info(command)))
    if (answers[0] === 'starting') {
      seen = true
      assert.deepEqual(results, [UNAVAILABLE, NAMESPACE])
      assert.equal(answers[1], '-1')
      assert.match(answers[2]!, /^open_phase=(?:waiting|cold|warm|ready);open_pct=\d+;open_records=\d+;/)
      assert.equal(answers[3], 'ERROR:11:the node is starting')
    }
    await ready
    assert.equal(await node.info('status'), 'ok')
    assert.match(await node.info('namespace/test'), /^open_phase=ready;open_pct=100;/)
    connection.send(getAll(key('test')))
    const found = decodeMessage(await connection.receive())
    assert.equal(found.result, OK)
    assert.equal(found.bins.get('n')?.value.readBigInt64BE(), 7n)
    assert.equal((await node.stop()).code, 0)
  }
  assert.ok(seen, `the node was ready before it was looked at, ${STARTS_MAX} times`)
})

test('a signal ends a node that opens its namespaces, cleanly, and the next start finds everything', async () => {
  const { ready } = await untilListening()
  const exit = await node.stop()
  await ready.catch(() => {})
  assert.deepEqual(exit, { code: 0, signal: null })
  assert.match(node.log.split('\n').at(-1)!, /"stopped"/)
  await node.start()
  const connection = await RawConnection.open(node.port)
  connection.send(getAll(key('test')))
  assert.equal(decodeMessage(await connection.receive()).result, OK)
})

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { test, type TestContext } from 'node:test'
import { MESSAGE_HEADER_BYTES, PROTO_HEADER_BYTES, PROTO_VERSION, ProtoType } from '../engine/constants.js'
import type { ChangeEntry } from './batch.js'
import { ShipConnection } from './ship-connection.js'
import { ShipGroup } from './shipper.js'

/** Timers of this length run by the test's clock, all others by the machine's. */
const TIMEOUT_MS = 61_003

/** A clock that the test moves. */
class Clock {
  #now = 0
  readonly #timers = new Set<{ due: number, fire: () => void }>()

  constructor (t: TestContext) {
    const { setTimeout: real } = globalThis
    t.mock.method(globalThis, 'setTimeout', (fire: () => void, ms: number) => ms === TIMEOUT_MS ? this.#add(fire) : real(fire, ms))
    const { clearTimeout: clear } = globalThis
    t.mock.method(globalThis, 'clearTimeout', (timer: never) => { if (!this.#timers.delete(timer)) clear(timer) })
  }

  #add (fire: () => void): object {
    const timer = { due: this.#now + TIMEOUT_MS, fire, refresh: () => { timer.due = this.#now + TIMEOUT_MS } }
    this.#timers.add(timer)
    return timer
  }

  advance (ms: number): void {
    this.#now += ms
    for (const timer of this.#timers) {
      if (timer.due <= this.#now && this.#timers.delete(timer)) timer.fire()
    }
  }
}

function reply (): Buffer {
  const bytes = Buffer.alloc(PROTO_HEADER_BYTES + MESSAGE_HEADER_BYTES)
  bytes[0] = PROTO_VERSION
  bytes[1] = ProtoType.MESSAGE
  bytes.writeUIntBE(MESSAGE_HEADER_BYTES, 2, 6)
  bytes[8] = MESSAGE_HEADER_BYTES
  return bytes
}

/** A connection to a server of which the test says when it answers. `answered` resolves with each reply that arrives. */
async function rig (t: TestContext) {
  const server = createServer({ noDelay: true }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const ends: Array<string | undefined> = []
  const groups: ShipGroup[] = []
  let arrived = (): void => {}
  const connection = new ShipConnection({
    host: '127.0.0.1',
    port: (server.address() as AddressInfo).port,
    connectMs: 30_000,
    timeoutMs: TIMEOUT_MS,
    onReply: () => { arrived() },
    onGroup: (group) => { groups.push(group) },
    onEnd: (unanswered, reason) => { ends.push(`${unanswered.map(([group, first]) => `${group.entries.length - first} left: `).join()}${reason?.message}`) }
  })
  const [socket] = await once(server, 'connection') as [Socket]
  socket.on('error', () => {}).resume()
  t.after(() => {
    connection.destroy()
    socket.destroy()
    server.close()
  })
  const answer = async (): Promise<void> => {
    const heard = new Promise<void>((resolve) => { arrived = resolve })
    socket.write(reply())
    await heard
  }
  const send = (entries: number): void => { connection.send(new ShipGroup(Array.from({ length: entries }, () => ({} as ChangeEntry)), 0), Buffer.alloc(entries)) }
  return { answer, send, ends, groups }
}

test('a destination that is slow but keeps answering is not reset, however long the whole takes', async (t) => {
  const clock = new Clock(t)
  const { answer, send, ends, groups } = await rig(t)
  send(20)
  send(1)
  for (let replies = 0; replies < 21; replies++) {
    clock.advance(0.9 * TIMEOUT_MS)
    assert.deepEqual(ends, [], `after ${replies} replies`)
    await answer()
  }
  assert.equal(groups.length, 2)
  clock.advance(10 * TIMEOUT_MS)
  assert.deepEqual(ends, [], 'nothing is asked any more')
})

test('one that falls silent is reset, with what it has not answered', async (t) => {
  const clock = new Clock(t)
  const { answer, send, ends } = await rig(t)
  send(3)
  clock.advance(0.9 * TIMEOUT_MS)
  await answer()
  clock.advance(0.9 * TIMEOUT_MS)
  assert.deepEqual(ends, [])
  clock.advance(0.1 * TIMEOUT_MS + 1)
  assert.deepEqual(ends, [`2 left: no reply within ${TIMEOUT_MS} ms`])
})

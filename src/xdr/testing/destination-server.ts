// A node of a remote cluster over real TCP, for tests.
//
// Fault model. It applies writes and deletes with the rule of the real one (a newer last-update time wins, an older is LOST_CONFLICT, a
// delete of nothing is NOT_FOUND) and answers in request order. Set at any time: `resetRate` closes the connection at a request, half of the
// time after it was applied and before its reply; `refuse` answers a code instead of applying; `delayMs` holds each reply back; `silent` takes
// requests and answers none; `garbage` answers with bytes that are no reply. `stop` drops every connection and the port, `start` comes back on the same
// port. Replies are cut into random pieces. It never acknowledges what it did not apply.

import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { decodeChange, type Change } from '../../../connectors/change.js'
import { Random } from '../../../test/support/seed.js'
import { Limit, MESSAGE_HEADER_BYTES, PROTO_HEADER_BYTES, PROTO_VERSION, ProtoType, ResultCode } from '../../engine/constants.js'
import type { Destination, DestinationNode } from '../shipper-cluster.js'

export interface StoredRecord {
  lut: number
  value: bigint | undefined
  generation: number
}

/** What all nodes of one remote cluster hold together. */
export class DestinationStore {
  readonly records = new Map<string, StoredRecord>()
  applied = 0
  /** Changes that came after a newer one of the same record, though that one had not been a repetition. */
  lateChanges = 0

  apply (change: Change): number {
    const id = `${change.namespace}/${change.digest.toString('hex')}`
    const old = this.records.get(id)
    if (old !== undefined && change.lastUpdateMs < old.lut) {
      this.lateChanges++
      return ResultCode.LOST_CONFLICT
    }
    this.applied++
    const known = old !== undefined && old.value !== undefined
    const value = change.kind === 'delete' ? undefined : change.bins[0]!.value.readBigInt64BE()
    this.records.set(id, { lut: change.lastUpdateMs, value, generation: change.generation })
    return change.kind === 'delete' && !known ? ResultCode.NOT_FOUND : ResultCode.OK
  }
}

export class DestinationServer {
  readonly name: string
  readonly store: DestinationStore
  readonly #random: Random
  readonly #sockets = new Set<Socket>()
  #server: Server | undefined
  #port = 0
  resetRate = 0
  refuse: ((change: Change) => number | undefined) | undefined
  delayMs = 0
  silent = false
  garbage = false
  requests = 0
  connections = 0
  /** Text replies by info command. */
  readonly info = new Map<string, string>()

  constructor (name: string, store: DestinationStore, seed = 1) {
    this.name = name
    this.store = store
    this.#random = new Random(seed)
  }

  get node (): DestinationNode {
    return { name: this.name, host: '127.0.0.1', port: this.#port }
  }

  async start (): Promise<void> {
    const server = createServer({ noDelay: true }, (socket) => {
      this.connections++
      this.#sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => this.#sockets.delete(socket))
      void this.#serve(socket)
    })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(this.#port, '127.0.0.1', resolve)
    })
    this.#port = (server.address() as AddressInfo).port
    this.#server = server
  }

  async stop (): Promise<void> {
    const server = this.#server
    this.#server = undefined
    for (const socket of this.#sockets) socket.destroy()
    await new Promise<void>((resolve) => server === undefined ? resolve() : server.close(() => resolve()))
  }

  async #serve (socket: Socket): Promise<void> {
    let rest = Buffer.alloc(0)
    try {
      for await (const chunk of socket) {
        rest = Buffer.concat([rest, chunk as Buffer])
        while (rest.length >= PROTO_HEADER_BYTES) {
          const bytes = PROTO_HEADER_BYTES + rest.readUIntBE(2, 6)
          if (rest.length < bytes) break
          const frame = rest.subarray(0, bytes)
          rest = rest.subarray(bytes)
          if (frame[1] === ProtoType.INFO) socket.write(this.#answerInfo(frame))
          else if (!await this.#answer(socket, frame)) return
        }
      }
    } catch {
      // a connection that ends in the middle of something is part of the model
    }
  }

  async #answer (socket: Socket, frame: Buffer): Promise<boolean> {
    this.requests++
    const reset = this.#random.next() < this.resetRate
    if (reset && this.#random.next() < 0.5) {
      socket.destroy()
      return false
    }
    if (this.silent) return true
    const change = decodeChange(frame, 0)
    const result = this.refuse?.(change) ?? this.store.apply(change)
    if (reset) {
      socket.destroy()
      return false
    }
    if (this.delayMs > 0) await sleep(this.delayMs)
    if (this.garbage) {
      socket.write('HTTP/1.1 400 Bad Request\r\n\r\n')
      return true
    }
    const reply = Buffer.alloc(PROTO_HEADER_BYTES + MESSAGE_HEADER_BYTES)
    reply[0] = PROTO_VERSION
    reply[1] = ProtoType.MESSAGE
    reply.writeUIntBE(MESSAGE_HEADER_BYTES, 2, 6)
    reply[8] = MESSAGE_HEADER_BYTES
    reply[13] = result
    const cut = Math.floor(this.#random.next() * reply.length)
    socket.write(reply.subarray(0, cut))
    socket.write(reply.subarray(cut))
    return true
  }

  #answerInfo (frame: Buffer): Buffer {
    const names = frame.toString('latin1', PROTO_HEADER_BYTES).split('\n').filter((name) => name !== '')
    const body = names.map((name) => `${name}\t${this.info.get(name) ?? 'ERROR:4:unrecognized command'}\n`).join('')
    const reply = Buffer.alloc(PROTO_HEADER_BYTES + body.length)
    reply[0] = PROTO_VERSION
    reply[1] = ProtoType.INFO
    reply.writeUIntBE(body.length, 2, 6)
    reply.write(body, PROTO_HEADER_BYTES, 'latin1')
    return reply
  }
}

/** A fixed cluster: partition p belongs to node p mod n. `away` is a cluster that nobody has found yet. */
export class FixedDestination implements Destination {
  readonly #servers: readonly DestinationServer[]
  away = false
  suspected = 0

  constructor (servers: readonly DestinationServer[]) {
    this.#servers = servers
  }

  get nodes (): DestinationNode[] {
    return this.away ? [] : this.#servers.map((server) => server.node)
  }

  async open (): Promise<void> {}

  owner (_namespace: string, partition: number): DestinationNode | undefined {
    return this.away || partition >= Limit.PARTITIONS ? undefined : this.#servers[partition % this.#servers.length]!.node
  }

  suspect (): void {
    this.suspected++
  }

  async close (): Promise<void> {}
}

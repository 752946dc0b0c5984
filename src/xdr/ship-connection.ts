// One pipelined connection to a node of the destination. Requests are written a group at a time, in one buffer; replies come in request order,
// and all that is read of one is its length (bytes 2..8) and its result code (byte 13).

import type { Socket } from 'node:net'
import { openSocket, type TlsOptions } from '../client/transport.js'
import { MESSAGE_HEADER_BYTES, PROTO_HEADER_BYTES, PROTO_VERSION, ProtoType, type ResultCode } from '../engine/constants.js'
import type { ShipGroup } from './shipper.js'

const LENGTH_OFFSET = 2
const LENGTH_BYTES = 6
const RESULT_OFFSET = 13
const HEAD_BYTES = RESULT_OFFSET + 1
/** A reply to a write carries no data; this leaves room for error details. */
const REPLY_BODY_BYTES_MAX = 1024 * 1024

export interface ShipConnectionOptions {
  readonly host: string
  readonly port: number
  readonly tls?: TlsOptions | undefined
  readonly connectMs: number
  /** A request that has been the next to be answered for this long resets the connection. */
  readonly timeoutMs: number
  readonly onReply: (group: ShipGroup, index: number, result: ResultCode) => void
  readonly onGroup: (group: ShipGroup) => void
  /** Last call, exactly once: groups that have entries without a reply, with the index of the first of those. */
  readonly onEnd: (unanswered: ReadonlyArray<readonly [ShipGroup, number]>, reason: Error | undefined) => void
}

export class ShipConnection {
  readonly #options: ShipConnectionOptions
  readonly #socket: Socket
  readonly #groups: ShipGroup[] = []
  readonly #head = Buffer.alloc(HEAD_BYTES)
  /** Replies received of the first group. */
  #answered = 0
  #headFill = 0
  #skip = 0
  #timer: NodeJS.Timeout | undefined
  #ended = false

  constructor (options: ShipConnectionOptions) {
    this.#options = options
    const { socket, ready } = openSocket(options)
    this.#socket = socket
    this.#socket.setTimeout(options.connectMs)
    this.#socket.once('timeout', () => this.destroy(new Error(`no connection within ${options.connectMs} ms`)))
    this.#socket.once(ready, () => this.#socket.setTimeout(0))
    this.#socket.on('data', (chunk) => this.#read(chunk))
    this.#socket.on('error', (error) => this.destroy(error))
    this.#socket.on('close', () => this.destroy(new Error('closed by the other side')))
  }

  send (group: ShipGroup, frames: Buffer): void {
    if (this.#groups.push(group) === 1) this.#watch()
    this.#socket.write(frames)
  }

  destroy (reason?: Error): void {
    if (this.#ended) return
    this.#ended = true
    clearTimeout(this.#timer)
    this.#socket.destroy()
    this.#options.onEnd(this.#groups.map((group, index) => [group, index === 0 ? this.#answered : 0] as const), reason)
  }

  #watch (): void {
    this.#timer ??= setTimeout(() => this.destroy(new Error(`no reply within ${this.#options.timeoutMs} ms`)), this.#options.timeoutMs)
  }

  #read (chunk: Buffer): void {
    for (let at = 0; at < chunk.length && !this.#ended;) {
      if (this.#skip > 0) {
        const skipped = Math.min(this.#skip, chunk.length - at)
        this.#skip -= skipped
        at += skipped
        continue
      }
      const copied = chunk.copy(this.#head, this.#headFill, at)
      this.#headFill += copied
      at += copied
      if (this.#headFill < HEAD_BYTES) break
      this.#headFill = 0
      const body = this.#head.readUIntBE(LENGTH_OFFSET, LENGTH_BYTES)
      if (this.#head[0] !== PROTO_VERSION || this.#head[1] !== ProtoType.MESSAGE || body < MESSAGE_HEADER_BYTES || body > REPLY_BODY_BYTES_MAX) {
        return this.destroy(new Error(`not a reply: ${this.#head.toString('hex')}`))
      }
      this.#skip = PROTO_HEADER_BYTES + body - HEAD_BYTES
      this.#reply(this.#head[RESULT_OFFSET] as ResultCode)
    }
    if (!this.#ended) this.#timer?.refresh()
  }

  #reply (result: ResultCode): void {
    const group = this.#groups[0]
    if (group === undefined) return this.destroy(new Error('a reply that nothing was asked for'))
    this.#options.onReply(group, this.#answered, result)
    if (++this.#answered < group.entries.length) return
    this.#groups.shift()
    this.#answered = 0
    if (this.#groups.length === 0) {
      clearTimeout(this.#timer)
      this.#timer = undefined
    }
    this.#options.onGroup(group)
  }
}

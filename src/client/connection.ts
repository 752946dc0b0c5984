// One socket to one node. Requests are sent without waiting for earlier ones to be answered; answers come in the order of the requests, so the
// oldest unanswered request owns the next frame.

import type { Socket } from 'node:net'
import { ResultCode } from '../engine/constants.js'
import { ClientCode, RecordError } from './errors.js'
import { FrameReader } from './frame-reader.js'
import { isTlsRecord, isTlsRefusal, openSocket, reasonOf, type Target } from './transport.js'

export interface ConnectionOptions extends Target {
  /** Bound on the time to connect. */
  readonly connectTimeoutMs: number
  /** Requests sent and not answered. A request past it is refused with CLIENT_QUEUE_FULL. */
  readonly inFlightMax?: number
  /** Called once when the connection ends, whoever ended it. */
  readonly onEnd?: () => void
}

export const IN_FLIGHT_MAX = 128

interface Pending {
  readonly sentAt: number
  /** Undefined once the caller has been told of a timeout; the place in the queue stays, since the answer still comes. */
  settle: { resolve: (frame: Buffer) => void, reject: (error: RecordError) => void, timer: NodeJS.Timeout } | undefined
}

export class Connection {
  readonly #socket: Socket
  readonly #target: string
  readonly #inFlightMax: number
  readonly #onEnd: (() => void) | undefined
  readonly #reader = new FrameReader()
  #pending: Pending[] = []
  /** Index of the oldest unanswered request; answered ones are cut off in batches. */
  #oldest = 0
  #heardAt = 0
  #corked = false
  #ended = false

  /** Rejects with CLIENT_CONNECTION, or CLIENT_TLS where trying again changes nothing. */
  static async open (options: ConnectionOptions): Promise<Connection> {
    const { host, port, connectTimeoutMs } = options
    const { socket, ready } = openFor(options)
    await new Promise<void>((resolve, reject) => {
      const fail = (reason: string, result: number = ClientCode.CONNECTION) => {
        socket.destroy()
        reject(new RecordError(result, `${host}:${port}: ${reason}`, false))
      }
      const timer = setTimeout(() => fail(`no connection within ${connectTimeoutMs} ms`), connectTimeoutMs)
      socket.once('error', (error) => {
        clearTimeout(timer)
        fail(reasonOf(error), resultOf(error))
      })
      socket.once(ready, () => {
        clearTimeout(timer)
        resolve()
      })
    })
    return new Connection(socket, options)
  }

  private constructor (socket: Socket, options: ConnectionOptions) {
    this.#socket = socket
    this.#target = `${options.host}:${options.port}`
    this.#inFlightMax = options.inFlightMax ?? IN_FLIGHT_MAX
    this.#onEnd = options.onEnd
    socket.on('data', (chunk) => this.#receive(chunk))
    socket.on('error', (error) => this.#end(reasonOf(error), resultOf(error)))
    socket.on('close', () => this.#end('closed by the other side'))
  }

  get isOpen (): boolean {
    return !this.#ended
  }

  /** Requests that are not answered yet, those given up on included. */
  get inFlight (): number {
    return this.#pending.length - this.#oldest
  }

  get isFull (): boolean {
    return this.inFlight >= this.#inFlightMax
  }

  /**
   * Sends a request that is answered by one frame, and resolves to that frame. Rejects with TIMEOUT, CLIENT_CONNECTION or CLIENT_TLS (in doubt: the
   * request was on its way), or CLIENT_QUEUE_FULL.
   */
  request (frame: Buffer, timeoutMs: number): Promise<Buffer> {
    if (this.#ended) return Promise.reject(new RecordError(ClientCode.CONNECTION, `${this.#target}: the connection is closed`, false))
    if (this.isFull) return Promise.reject(new RecordError(ClientCode.QUEUE_FULL, `${this.#target}: ${this.inFlight} requests in flight`, false))
    return new Promise((resolve, reject) => {
      const pending: Pending = {
        sentAt: performance.now(),
        settle: { resolve, reject, timer: setTimeout(() => this.#overdue(pending, timeoutMs), timeoutMs) }
      }
      this.#pending.push(pending)
      this.#write(frame)
    })
  }

  /** Ends the connection; what is in flight is rejected. Closing twice is harmless. */
  close (): void {
    this.#end('closed here')
  }

  // Requests of one turn of the event loop leave in one write.
  #write (frame: Buffer): void {
    if (!this.#corked) {
      this.#corked = true
      this.#socket.cork()
      process.nextTick(() => {
        this.#corked = false
        this.#socket.uncork()
      })
    }
    this.#socket.write(frame)
  }

  #receive (chunk: Buffer): void {
    if (this.#heardAt === 0 && isTlsRecord(chunk)) return this.#end('TLS: the port speaks TLS, and is spoken to without', ClientCode.TLS)
    this.#heardAt = performance.now()
    try {
      for (const frame of this.#reader.push(chunk)) {
        const pending = this.#pending[this.#oldest]
        if (pending === undefined) return this.#end('an answer to nothing')
        this.#oldest++
        clearTimeout(pending.settle?.timer)
        pending.settle?.resolve(frame)
      }
    } catch (error) {
      return this.#end((error as Error).message)
    }
    if (this.#oldest === this.#pending.length || this.#oldest > this.#inFlightMax) {
      this.#pending = this.#pending.slice(this.#oldest)
      this.#oldest = 0
    }
  }

  #overdue (pending: Pending, timeoutMs: number): void {
    const { settle } = pending
    if (settle === undefined) return
    pending.settle = undefined
    settle.reject(new RecordError(ResultCode.TIMEOUT, `${this.#target}: no answer within ${timeoutMs} ms`))
    // Slow answers keep the connection. Silence for a whole timeout means that it is dead, and others must not wait behind it.
    if (this.#heardAt < pending.sentAt) this.#end(`silent for ${timeoutMs} ms`)
  }

  #end (reason: string, result: number = ClientCode.CONNECTION): void {
    if (this.#ended) return
    this.#ended = true
    this.#socket.destroy()
    const pending = this.#pending.slice(this.#oldest)
    this.#pending = []
    this.#oldest = 0
    for (const { settle } of pending) {
      clearTimeout(settle?.timer)
      settle?.reject(new RecordError(result, `${this.#target}: ${reason}`, true))
    }
    this.#onEnd?.()
  }
}

function openFor (target: Target): ReturnType<typeof openSocket> {
  try {
    return openSocket(target)
  } catch (error) {
    throw new RecordError(resultOf(error as Error), `${target.host}:${target.port}: ${reasonOf(error as Error)}`, false)
  }
}

function resultOf (error: Error): number {
  return isTlsRefusal(error) ? ClientCode.TLS : ClientCode.CONNECTION
}

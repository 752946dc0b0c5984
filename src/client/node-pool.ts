// The connections to one node. A request takes an idle connection; with none idle it shares the least busy one, and another is opened up to the limit.
// When all are full it waits in a bounded queue.

import { ResultCode } from '../engine/constants.js'
import { Connection } from './connection.js'
import { ClientCode, RecordError } from './errors.js'
import type { Target } from './transport.js'

export interface PoolOptions extends Target {
  readonly connectTimeoutMs: number
  readonly connectionsMax: number
  readonly inFlightMax: number
  /** Requests that wait because every connection is full; one more is refused with CLIENT_QUEUE_FULL. */
  readonly waitingMax: number
}

const BACKOFF_MS_MIN = 20
const BACKOFF_MS_MAX = 2000

interface Waiting {
  readonly frame: Buffer
  readonly deadline: number
  readonly resolve: (frame: Buffer | Promise<Buffer>) => void
  readonly reject: (error: RecordError) => void
  readonly timer: NodeJS.Timeout
}

export class NodePool {
  readonly #options: PoolOptions
  readonly #connections = new Set<Connection>()
  readonly #waiting = new Set<Waiting>()
  #opening = 0
  #failures = 0
  #retryAt = 0
  #closed = false

  constructor (options: PoolOptions) {
    this.#options = options
  }

  /** Resolves to the answer. Rejects as `Connection.request` does. */
  request (frame: Buffer, timeoutMs: number): Promise<Buffer> {
    if (this.#closed) return Promise.reject(new RecordError(ClientCode.ABORTED, 'the client is closed', false))
    const connection = this.#leastBusy()
    if (connection === undefined || connection.inFlight > 0) this.#grow()
    if (connection !== undefined && !connection.isFull) return this.#send(connection, frame, timeoutMs)

    const { host, port, waitingMax } = this.#options
    if (connection === undefined && this.#opening === 0) {
      return Promise.reject(new RecordError(ClientCode.CONNECTION, `${host}:${port}: cannot be reached`, false))
    }
    if (this.#waiting.size >= waitingMax) {
      return Promise.reject(new RecordError(ClientCode.QUEUE_FULL, `${host}:${port}: ${waitingMax} requests wait`, false))
    }
    return new Promise((resolve, reject) => {
      const waiting: Waiting = {
        frame,
        deadline: performance.now() + timeoutMs,
        resolve,
        reject,
        timer: setTimeout(() => {
          this.#waiting.delete(waiting)
          // It was never sent.
          reject(new RecordError(ResultCode.TIMEOUT, `${host}:${port}: no free connection within ${timeoutMs} ms`, false))
        }, timeoutMs)
      }
      this.#waiting.add(waiting)
    })
  }

  close (): void {
    this.#closed = true
    for (const connection of [...this.#connections]) connection.close()
    this.#rejectWaiting(new RecordError(ClientCode.ABORTED, 'the client is closed', false))
  }

  #leastBusy (): Connection | undefined {
    let least: Connection | undefined
    for (const connection of this.#connections) {
      if (least === undefined || connection.inFlight < least.inFlight) least = connection
    }
    return least
  }

  #send (connection: Connection, frame: Buffer, timeoutMs: number): Promise<Buffer> {
    const answer = connection.request(frame, timeoutMs)
    // Each answer frees a place.
    const next = () => this.#admit()
    answer.then(next, next)
    return answer
  }

  #admit (): void {
    for (const waiting of this.#waiting) {
      const connection = this.#leastBusy()
      if (connection === undefined || connection.isFull) return
      this.#waiting.delete(waiting)
      clearTimeout(waiting.timer)
      waiting.resolve(this.#send(connection, waiting.frame, Math.max(1, waiting.deadline - performance.now())))
    }
  }

  #grow (): void {
    if (this.#connections.size + this.#opening >= this.#options.connectionsMax || performance.now() < this.#retryAt) return
    this.#opening++
    const { host, port, tls, connectTimeoutMs, inFlightMax } = this.#options
    let opened: Connection | undefined
    const onEnd = () => {
      if (opened !== undefined) this.#connections.delete(opened)
      if (this.#waiting.size > 0 && this.#connections.size === 0) {
        this.#grow()
        if (this.#opening === 0) this.#rejectWaiting(new RecordError(ClientCode.CONNECTION, `${host}:${port}: cannot be reached`, false))
      }
    }
    Connection.open({ host, port, tls, connectTimeoutMs, inFlightMax, onEnd }).then((connection) => {
      opened = connection
      this.#opening--
      this.#failures = 0
      this.#retryAt = 0
      if (this.#closed) return connection.close()
      this.#connections.add(connection)
      this.#admit()
    }, (error: RecordError) => {
      this.#opening--
      this.#retryAt = performance.now() + Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** this.#failures++)
      if (this.#connections.size === 0 && this.#opening === 0) this.#rejectWaiting(error)
    })
  }

  #rejectWaiting (error: RecordError): void {
    for (const { reject, timer } of this.#waiting) {
      clearTimeout(timer)
      reject(error)
    }
    this.#waiting.clear()
  }
}

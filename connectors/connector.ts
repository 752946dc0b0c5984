import type { Logger } from 'pino'
import type { Change } from './change.js'

/** What a connector needs of a logger. */
export type Log = Pick<Logger, 'debug' | 'info' | 'warn' | 'error'>

/**
 * What became of one change. `shipped`: durable at the other side by its own rules. `retry`: it may be there or not, hand it out again.
 * `abandoned`: it can never be accepted; the connector has logged why.
 */
export type ConnectorOutcome = 'shipped' | 'retry' | 'abandoned'

/** A stream that changes go to. Two changes of one record are never in its hands at the same time. */
export interface Connector {
  /** Endpoints in use now; 0 while the other side is away. */
  readonly nodes: number
  /** Resolves when changes can be shipped; retries for as long as that takes. Rejects only for a configuration that cannot work, or when closed. */
  open (): Promise<void>
  /**
   * Ships changes and answers one outcome for each, in order. Never rejects. The buffers of the changes belong to the caller again as soon
   * as the call returns its promise, so they are formatted before the first await.
   */
  ship (changes: readonly Change[]): Promise<ConnectorOutcome[]>
  /** Gives up on what is in flight (outcome `retry`) and lets go. Idempotent. */
  close (): Promise<void>
}

/** A log line for a fault that can come with every change: at most one in `periodMs`, which says how many were held back. */
export class LimitedLog {
  readonly #log: Log
  readonly #periodMs: number
  #nextMs = 0
  #held = 0

  constructor (log: Log, periodMs = 5000) {
    this.#log = log
    this.#periodMs = periodMs
  }

  warn (fields: Record<string, unknown>, message: string): void {
    const now = performance.now()
    if (now < this.#nextMs) {
      this.#held++
      return
    }
    this.#log.warn(this.#held === 0 ? fields : { ...fields, heldBack: this.#held }, message)
    this.#nextMs = now + this.#periodMs
    this.#held = 0
  }
}

/** Allows `ratePerSecond` on average and bursts of `burstMs` worth of it. The clock is the caller's, in milliseconds; time that runs backwards adds nothing and takes nothing. */
export class TokenBucket {
  readonly #perMs: number
  readonly #capacity: number
  #tokens: number
  #filledMs: number

  constructor (ratePerSecond: number, burstMs: number, nowMs: number) {
    this.#perMs = ratePerSecond / 1000
    this.#capacity = Math.max(1, this.#perMs * burstMs)
    this.#tokens = this.#capacity
    this.#filledMs = nowMs
  }

  available (nowMs: number): number {
    this.#tokens = Math.min(this.#capacity, this.#tokens + Math.max(0, nowMs - this.#filledMs) * this.#perMs)
    this.#filledMs = nowMs
    return Math.floor(this.#tokens)
  }

  spend (tokens: number): void {
    this.#tokens -= tokens
  }
}

/** Waits that double from `minMs` up to `maxMs` and start over after `reset()`. `cancel()` ends the wait under way and every later one at once. */
export class Backoff {
  readonly #minMs: number
  readonly #maxMs: number
  #nextMs: number
  #cancelled = false
  #wake: (() => void) | undefined

  constructor (minMs: number, maxMs: number) {
    this.#minMs = minMs
    this.#maxMs = maxMs
    this.#nextMs = minMs
  }

  async wait (): Promise<void> {
    if (this.#cancelled) return
    const ms = this.#nextMs
    this.#nextMs = Math.min(this.#nextMs * 2, this.#maxMs)
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms)
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    this.#wake = undefined
  }

  reset (): void {
    this.#nextMs = this.#minMs
  }

  cancel (): void {
    this.#cancelled = true
    this.#wake?.()
  }
}

// Waiting for a state that another process reaches in its own time.
import { setTimeout as sleep } from 'node:timers/promises'
import { inspect } from 'node:util'

export interface EventuallyOptions {
  /** Give up after this long. */
  timeoutMs?: number
  /** Pause between two looks. */
  intervalMs?: number
}

/**
 * Calls `look` until `accept` holds for what it returns, and returns that. When time is up it throws with the last value
 * seen, or the last error if `look` itself kept failing.
 */
export async function eventually<T> (
  claim: string,
  look: () => T | Promise<T>,
  accept: (value: T) => boolean,
  { timeoutMs = 30_000, intervalMs = 50 }: EventuallyOptions = {}
): Promise<T> {
  const deadline = Date.now() + timeoutMs
  for (;;) {
    let seen: string
    try {
      const value = await look()
      if (accept(value)) return value
      seen = `last seen ${inspect(value, { depth: 4, breakLength: 120 })}`
    } catch (error) {
      seen = `last error ${error instanceof Error ? error.message : String(error)}`
    }
    if (Date.now() >= deadline) throw new Error(`not within ${timeoutMs} ms: ${claim}; ${seen}`)
    await sleep(intervalMs)
  }
}

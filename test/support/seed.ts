// Randomness that can be replayed: every test that draws from it prints its seed, and PERIGEE_SEED=<seed> repeats it.

/** A stream of pseudo-random numbers (mulberry32), enough to vary a test, no more. */
export class Random {
  #state: number

  constructor (readonly seed: number) {
    this.#state = seed >>> 0
  }

  /** In [0, 1). */
  next (): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000
  }

  /** An integer in [low, high). */
  integer (low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low))
  }

  /** One of `items`, which must not be empty. */
  pick<T> (items: readonly T[]): T {
    return items[this.integer(0, items.length)] as T
  }

  text (length: number): string {
    let text = ''
    while (text.length < length) text += this.integer(0, 36).toString(36)
    return text
  }
}

/** The seed of this run, printed with the title that draws from it. */
export function seeded (title: string): Random {
  const wanted = process.env.PERIGEE_SEED
  const seed = wanted === undefined ? Math.floor(Math.random() * 0x1_0000_0000) : Number(wanted)
  if (!Number.isInteger(seed) || seed < 0) throw new Error(`PERIGEE_SEED must be a non-negative integer, not ${wanted}`)
  console.log(`seed of ${title}: ${seed} (PERIGEE_SEED=${seed} repeats it)`)
  return new Random(seed)
}

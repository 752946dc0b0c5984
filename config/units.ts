// Sizes and durations as people write them. A size is bytes, a duration is seconds or milliseconds, whichever its key counts in.

const SIZE_FACTORS: Record<string, number> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 }

/** In milliseconds. */
const DURATION_FACTORS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

export type DurationUnit = 'ms' | 's'

export const SIZE_FORM = 'a number with K, M, G or T'
export const DURATION_FORM: Record<DurationUnit, string> = {
  ms: 'milliseconds, or a number with ms, s, m, h or d',
  s: 'seconds, or a number with s, m, h or d'
}

/** Bytes, or undefined if the text is not a whole number of bytes. `1.5G` is; binary multiples, either case. */
export function parseSize (text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)([KMGT]?)$/i.exec(text.trim())
  return match === null ? undefined : exactly(Number(match[1]) * SIZE_FACTORS[match[2]!.toUpperCase()]!)
}

/** A duration counted in `unit`; a bare number is already in it. Undefined if it is not a whole number of them. */
export function parseDuration (text: string, unit: DurationUnit): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d|)$/i.exec(text.trim())
  if (match === null) return undefined
  const factor = DURATION_FACTORS[match[2] === '' ? unit : match[2]!.toLowerCase()]!
  return exactly(Number(match[1]) * factor / DURATION_FACTORS[unit]!)
}

/** The shortest form that {@link parseSize} reads back as the same number. */
export function formatSize (bytes: number): string {
  for (const suffix of ['T', 'G', 'M', 'K']) {
    const factor = SIZE_FACTORS[suffix]!
    if (bytes >= factor && bytes % factor === 0) return `${bytes / factor}${suffix}`
  }
  return String(bytes)
}

// A fraction of a byte, or a number past 2^53, would reach the engine as something else than was written.
function exactly (value: number): number | undefined {
  return Number.isSafeInteger(value) ? value : undefined
}

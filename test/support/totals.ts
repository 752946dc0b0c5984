// Reads the totals of the three kinds of test runner out of what they print.

export interface Totals { passed: number, failed: number, skipped: number }

export const NO_TOTALS: Totals = { passed: 0, failed: 0, skipped: 0 }

export function addTotals (left: Totals, right: Totals): Totals {
  return { passed: left.passed + right.passed, failed: left.failed + right.failed, skipped: left.skipped + right.skipped }
}

/** Sums cargo's `test result: ok. 12 passed; 0 failed; 1 ignored; ...` lines, one a test program. */
export function totalsOfCargo (output: string): Totals {
  let totals = NO_TOTALS
  for (const [, passed, failed, ignored] of output.matchAll(/^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;/gm)) {
    totals = addTotals(totals, { passed: Number(passed), failed: Number(failed), skipped: Number(ignored) })
  }
  return totals
}

/** The comment lines that node's test runner ends its TAP with. A cancelled test did not do what it claims, so it failed. */
export function totalsOfTap (output: string): Totals {
  const count = (name: string): number => Number([...output.matchAll(new RegExp(`^# ${name} (\\d+)$`, 'gm'))].at(-1)?.[1] ?? 0)
  return { passed: count('pass'), failed: count('fail') + count('cancelled'), skipped: count('skipped') + count('todo') }
}

/** The JSON line of `npm run conformance -- --json`. Pending titles and known gaps count as skipped. Null if there is no such line. */
export function totalsOfConformance (output: string): { totals: Totals, knownGaps: number } | null {
  const line = output.trim().split('\n').at(-1) ?? ''
  try {
    const { passed, failed, pending, known_gaps: knownGaps } = JSON.parse(line) as Record<string, unknown>
    if ([passed, failed, pending, knownGaps].some(value => typeof value !== 'number')) return null
    const [p, f, s, k] = [passed, failed, pending, knownGaps] as [number, number, number, number]
    return { totals: { passed: p, failed: f, skipped: s + k }, knownGaps: k }
  } catch {
    return null
  }
}

// Reads what libFuzzer prints.

/** What one run of a target came to. */
export interface RunNumbers {
  /** Inputs that were run. */
  runs: number
  /** Edges of the program that were reached. */
  coverage: number
  /** What coverage counts finer: how often edges were reached, and which comparisons were met. */
  features: number
  /** Inputs that reached something that no other did. */
  corpus: number
  perSecond: number
  seed: number
}

/** The last status line and the final statistics. What is not there is 0. */
export function numbersOf (output: string): RunNumbers {
  const last = (pattern: RegExp): number => Number([...output.matchAll(pattern)].at(-1)?.[1] ?? 0)
  return {
    runs: last(/^stat::number_of_executed_units:\s+(\d+)/gm) || last(/^#(\d+)\s/gm),
    coverage: last(/\bcov: (\d+)/g),
    features: last(/\bft: (\d+)/g),
    corpus: last(/\bcorp: (\d+)\//g),
    perSecond: last(/^stat::average_exec_per_sec:\s+(\d+)/gm) || last(/\bexec\/s: (\d+)/g),
    seed: last(/^INFO: Seed: (\d+)/gm)
  }
}

/** Why a run ended before its time; null if it did not. `artifact` is the file that libFuzzer wrote. */
export function findingOf (output: string): { reason: string, artifact?: string } | null {
  const error = /^==\d+== ?(?:ERROR: )?libFuzzer: (.+)$/m.exec(output)?.[1]
  const panic = /^thread .*panicked at (.+):\n(.*)$/m.exec(output)
  const artifact = /Test unit written to (\S+)/.exec(output)?.[1]
  if (error === undefined && panic === null && artifact === undefined) return null
  const reason = panic === null ? error ?? 'an input was written' : `${panic[2] ?? ''} (${panic[1] ?? ''})`
  return { reason, ...(artifact === undefined ? {} : { artifact }) }
}

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

/** Of what a panic says. */
const REASON_LINES_MAX = 8
const REASON_CHARACTERS_MAX = 1000
/** What follows the message of a panic. */
const AFTER_MESSAGE = /^(?:stack backtrace:|note: run with |==\d+==)/m

/** Why a run ended before its time; null if it did not. `artifact` is the file that libFuzzer wrote. */
export function findingOf (output: string): { reason: string, artifact?: string } | null {
  const error = /^==\d+== ?(?:ERROR: )?libFuzzer: (.+)$/m.exec(output)?.[1]
  const panic = /^thread .*panicked at (.+):\n/m.exec(output)
  const artifact = /Test unit written to (\S+)/.exec(output)?.[1]
  if (error === undefined && panic === null && artifact === undefined) return null
  const reason = panic === null ? error ?? 'an input was written' : `${panic[1]}: ${messageAt(output, panic.index + panic[0].length)}`
  return { reason, ...(artifact === undefined ? {} : { artifact }) }
}

/** The first lines of a message that begins there. */
function messageAt (output: string, start: number): string {
  const rest = output.slice(start)
  const message = rest.slice(0, AFTER_MESSAGE.exec(rest)?.index).trimEnd()
  const lines = message.split('\n').slice(0, REASON_LINES_MAX).join('\n').slice(0, REASON_CHARACTERS_MAX)
  return lines.length < message.length ? `${lines} ...` : lines
}

// What one run of one file of the suite comes to. Shared by the process that runs mocha and the one that counts.

export type TitleState = 'passed' | 'failed' | 'pending'

export interface TitleResult {
  /** The titles from the outermost suite down on one line; the second of two equal ones ends in ` #2`. */
  title: string
  state: TitleState
  /** First line of the error. */
  error?: string
}

/** From the child: the titles that it is going to run, each result as it comes, and that it came to the end. */
export type ChildMessage =
  | { kind: 'planned', titles: string[] }
  | { kind: 'result', result: TitleResult }
  | { kind: 'hook-failed', title: string, error: string }
  | { kind: 'load-failed', error: string }
  | { kind: 'ended' }

export interface FileOutcome {
  file: string
  results: TitleResult[]
  durationMs: number
  /** How the process ended, when it was not by coming to its end. */
  stopped: string | null
}

/**
 * Turns what a child sent into one result a title. A title without a result failed: something before it stopped the run, and
 * `stopped` says what. A failure outside of titles (a hook, loading) counts by itself only when no title shows it. That the
 * process did not end by itself after its last title is the client's affair and fails nothing.
 */
export function settle (messages: readonly ChildMessage[], stopped: string | null): TitleResult[] {
  // A test can fail after it has passed (a late uncaught exception): its last word counts.
  const settled = new Map<string, TitleResult>()
  const outside: TitleResult[] = []
  let planned: string[] | null = null
  for (const message of messages) {
    if (message.kind === 'planned') planned = message.titles
    if (message.kind === 'hook-failed') outside.push({ title: message.title, state: 'failed', error: message.error })
    if (message.kind === 'load-failed') outside.push({ title: LOADING, state: 'failed', error: message.error })
    if (message.kind === 'result') settled.set(message.result.title, message.result)
  }
  if (planned === null && outside.length === 0) outside.push({ title: LOADING, state: 'failed', error: stopped ?? 'it planned no titles' })
  const results = [...settled.values()]
  const missing = (planned ?? []).filter(title => !settled.has(title))
  // Mocha gives a file up when a test fails that had already passed: the error came out of nowhere, like an event nobody listens to.
  const reason = outside[0] === undefined ? 'mocha gave the file up after an error outside of any test' : `${outside[0].title}: ${outside[0].error}`
  for (const title of missing) results.push({ title, state: 'failed', error: `did not run: ${outside[0] === undefined && stopped !== null ? stopped : reason}` })
  if (missing.length === 0) results.push(...outside)
  return results
}

const LOADING = '(loading the file)'

/** Puts a title on one line, and gives its n-th occurrence the ending ` #n`, so that each names one test. */
export class TitleNumbers {
  #seen = new Map<string, number>()

  unique (written: string): string {
    const title = written.replace(/\s+/g, ' ').trim()
    const times = (this.#seen.get(title) ?? 0) + 1
    this.#seen.set(title, times)
    return times === 1 ? title : `${title} #${times}`
  }
}

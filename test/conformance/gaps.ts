// The list of what is known not to work, or not to be run by the suite, and the comparison of a run with it. The list is kept
// honest from both sides: a failed or pending title that it does not name fails the run, and so does a name on it that passes.
import { readFileSync, writeFileSync } from 'node:fs'
import type { FileOutcome, TitleResult } from './outcome.js'

/** Titles of one file that fail, or are left pending by the suite, for one reason. */
export interface GapGroup {
  file: string
  reason: string
  titles: string[]
  /** The suite itself leaves these out. */
  pending?: true
  /** These may pass or fail. For titles that depend on timing; not for "not done yet". */
  flaky?: true
}

/** A file that is not run at all, since it needs what a single server cannot give. */
export interface ExcludedFile { file: string, reason: string }

export interface KnownGaps { excluded: ExcludedFile[], gaps: GapGroup[] }

export interface Verdict {
  /** Failed or pending, and not on the list as that. */
  unexpected: Array<{ file: string, result: TitleResult }>
  /** Failed, on the list. */
  known: number
  /** On the list, but passed. */
  closed: Array<{ file: string, title: string }>
  /** On the list, but no such title ran. Only from complete runs of a file. */
  vanished: Array<{ file: string, title: string }>
}

export function readGaps (path: string): KnownGaps {
  const gaps = JSON.parse(readFileSync(path, 'utf8')) as KnownGaps
  const seen = new Set<string>()
  for (const { file, reason, titles } of gaps.gaps) {
    if (reason.trim() === '') throw new Error(`${path}: a group of ${file} has no reason`)
    for (const title of titles) {
      const name = `${file}\n${title}`
      if (seen.has(name)) throw new Error(`${path}: ${file}: listed twice: ${title}`)
      seen.add(name)
    }
  }
  return gaps
}

export function writeGaps (path: string, { excluded, gaps }: KnownGaps): void {
  const byFile = (left: { file: string, reason: string }, right: { file: string, reason: string }): number =>
    left.file.localeCompare(right.file) || left.reason.localeCompare(right.reason)
  writeFileSync(path, JSON.stringify({ excluded: excluded.toSorted(byFile), gaps: gaps.toSorted(byFile) }, null, 2) + '\n')
}

/** Compares a run with the list. `complete` says that the files ran whole, without a filter on titles. */
export function judge (outcomes: readonly FileOutcome[], { gaps }: KnownGaps, complete: boolean): Verdict {
  const verdict: Verdict = { unexpected: [], known: 0, closed: [], vanished: [] }
  for (const { file, results } of outcomes) {
    const states = new Map(results.map(result => [result.title, result.state]))
    const listed = new Map<string, GapGroup>()
    for (const group of gaps) {
      if (group.file === file) for (const title of group.titles) listed.set(title, group)
    }
    for (const result of results) {
      if (result.state === 'passed') continue
      const group = listed.get(result.title)
      const expected = group?.pending === true ? 'pending' : 'failed'
      if (group === undefined || expected !== result.state) verdict.unexpected.push({ file, result })
      else if (expected === 'failed') verdict.known++
    }
    for (const [title, { flaky }] of listed) {
      const state = states.get(title)
      if (state === 'passed' && flaky !== true) verdict.closed.push({ file, title })
      // A hook is a title only when it fails.
      if (state === undefined && complete && flaky !== true) verdict.vanished.push({ file, title })
    }
  }
  return verdict
}

/**
 * The list that a complete run asks for: what failed or was pending anew joins the group of its file that has `reasonOf`'s
 * reason, what passes or vanished leaves, flaky titles stay. Files that did not run keep their groups.
 */
export function updated (before: KnownGaps, outcomes: readonly FileOutcome[], reasonOf: (file: string, result: TitleResult) => string): KnownGaps {
  const verdict = judge(outcomes, before, true)
  const moving = verdict.unexpected.map(({ file, result: { title } }) => ({ file, title }))
  const leaving = new Set([...verdict.closed, ...verdict.vanished, ...moving].map(({ file, title }) => `${file}\n${title}`))
  const gaps = before.gaps.map(group => ({ ...group, titles: group.titles.filter(title => !leaving.has(`${group.file}\n${title}`)) }))
  for (const { file, result } of verdict.unexpected) {
    const reason = reasonOf(file, result)
    const pending = result.state === 'pending'
    const group = gaps.find(one => one.file === file && one.reason === reason && one.flaky !== true && (one.pending === true) === pending)
    if (group === undefined) gaps.push({ file, reason, ...pending ? { pending } : {}, titles: [result.title] })
    else group.titles.push(result.title)
  }
  return { excluded: before.excluded, gaps: gaps.filter(({ titles }) => titles.length > 0) }
}

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { judge, updated, type KnownGaps } from './gaps.js'
import { TitleNumbers, settle, type FileOutcome, type TitleState } from './outcome.js'

function outcome (file: string, states: Record<string, TitleState>): FileOutcome {
  return { file, durationMs: 1, stopped: null, results: Object.entries(states).map(([title, state]) => ({ title, state })) }
}

function gaps (...groups: KnownGaps['gaps']): KnownGaps {
  return { excluded: [], gaps: groups }
}

test('a_failure_that_is_not_listed_is_unexpected', () => {
  const verdict = judge([outcome('get', { a: 'passed', b: 'failed' })], gaps(), true)
  assert.deepEqual(verdict.unexpected.map(({ result }) => result.title), ['b'])
  assert.equal(verdict.known, 0)
})

test('a_listed_failure_is_known_only_in_its_own_file', () => {
  const known = gaps({ file: 'get', reason: 'r', titles: ['b'] })
  assert.equal(judge([outcome('get', { b: 'failed' })], known, true).known, 1)
  assert.equal(judge([outcome('put', { b: 'failed' })], known, true).unexpected.length, 1)
})

test('a_pending_title_is_listed_as_that', () => {
  const run = [outcome('get', { a: 'pending', b: 'failed' })]
  const listed = gaps({ file: 'get', reason: 'r', pending: true, titles: ['a'] }, { file: 'get', reason: 'r', titles: ['b'] })
  assert.deepEqual(judge(run, listed, true), { unexpected: [], known: 1, closed: [], vanished: [] })
  assert.equal(judge(run, gaps({ file: 'get', reason: 'r', titles: ['a', 'b'] }), true).unexpected.length, 1, 'as a failure')
  assert.equal(judge(run, gaps(), true).unexpected.length, 2)
  const passing = [outcome('get', { a: 'passed', b: 'failed' })]
  assert.deepEqual(judge(passing, listed, true).closed, [{ file: 'get', title: 'a' }])
  assert.deepEqual(updated(gaps({ file: 'get', reason: 'r', titles: ['a', 'b'] }), run, () => 'r').gaps, [
    { file: 'get', reason: 'r', titles: ['b'] },
    { file: 'get', reason: 'r', pending: true, titles: ['a'] }
  ])
})

test('a_listed_title_that_passes_must_leave_the_list_unless_it_is_flaky', () => {
  const run = [outcome('get', { a: 'passed' })]
  assert.equal(judge(run, gaps({ file: 'get', reason: 'r', titles: ['a'] }), true).closed.length, 1)
  assert.equal(judge(run, gaps({ file: 'get', reason: 'r', titles: ['a'], flaky: true }), true).closed.length, 0)
})

test('a_listed_title_that_no_longer_exists_shows_in_complete_runs_only', () => {
  const known = gaps({ file: 'get', reason: 'r', titles: ['gone'] })
  const run = [outcome('get', { a: 'passed' })]
  assert.deepEqual(judge(run, known, true).vanished, [{ file: 'get', title: 'gone' }])
  assert.deepEqual(judge(run, known, false).vanished, [])
})

test('a_flaky_title_need_not_be_there', () => {
  const known = gaps({ file: 'get', reason: 'r', titles: ['"after all" hook'], flaky: true })
  assert.deepEqual(judge([outcome('get', { a: 'passed' })], known, true), { unexpected: [], known: 0, closed: [], vanished: [] })
  assert.equal(judge([outcome('get', { '"after all" hook': 'failed' })], known, true).known, 1)
})

test('updating_keeps_written_reasons_and_files_that_did_not_run', () => {
  const before = gaps(
    { file: 'get', reason: 'written by hand', titles: ['still', 'fixed'] },
    { file: 'query', reason: 'later', titles: ['q'] }
  )
  const after = updated(before, [outcome('get', { still: 'failed', fixed: 'passed', fresh: 'failed' })], () => 'default')
  assert.deepEqual(after.gaps, [
    { file: 'get', reason: 'written by hand', titles: ['still'] },
    { file: 'query', reason: 'later', titles: ['q'] },
    { file: 'get', reason: 'default', titles: ['fresh'] }
  ])
})

test('an_updated_list_agrees_with_the_run_it_came_from', () => {
  const run = [outcome('get', { a: 'failed', b: 'passed' }), outcome('put', { c: 'failed' })]
  const after = updated(gaps({ file: 'get', reason: 'r', titles: ['b'] }), run, () => 'default')
  assert.deepEqual(judge(run, after, true), { unexpected: [], known: 2, closed: [], vanished: [] })
})

test('titles_after_a_process_died_count_as_failed', () => {
  const results = settle([
    { kind: 'planned', titles: ['a', 'b'] },
    { kind: 'result', result: { title: 'a', state: 'passed' } }
  ], 'the process ended early (SIGSEGV)')
  assert.deepEqual(results.map(({ title, state }) => [title, state]), [['a', 'passed'], ['b', 'failed']])
  assert.match(results[1]?.error ?? '', /SIGSEGV/)
})

test('a_process_that_does_not_end_after_its_last_title_fails_nothing', () => {
  const results = settle([
    { kind: 'planned', titles: ['a'] },
    { kind: 'result', result: { title: 'a', state: 'passed' } }
  ], 'nothing happened for 60 s')
  assert.deepEqual(results, [{ title: 'a', state: 'passed' }])
})

test('a_process_that_dies_before_it_plans_anything_is_a_failure', () => {
  const results = settle([], 'the process ended early (exit 1)')
  assert.deepEqual(results, [{ title: '(loading the file)', state: 'failed', error: 'the process ended early (exit 1)' }])
})

test('a_failed_hook_counts_once_through_the_titles_that_it_stopped', () => {
  const results = settle([
    { kind: 'planned', titles: ['a'] },
    { kind: 'hook-failed', title: '"before all" hook', error: 'Error: no' },
    { kind: 'ended' }
  ], null)
  assert.deepEqual(results, [{ title: 'a', state: 'failed', error: 'did not run: "before all" hook: Error: no' }])
})

test('a_hook_that_fails_after_the_last_title_is_a_failure_of_its_own', () => {
  const results = settle([
    { kind: 'planned', titles: ['a'] },
    { kind: 'result', result: { title: 'a', state: 'passed' } },
    { kind: 'hook-failed', title: '"after all" hook', error: 'Error: no' },
    { kind: 'ended' }
  ], null)
  assert.deepEqual(results.map(({ title, state }) => [title, state]), [['a', 'passed'], ['"after all" hook', 'failed']])
})

test('the_last_word_about_a_title_counts', () => {
  const results = settle([
    { kind: 'planned', titles: ['a'] },
    { kind: 'result', result: { title: 'a', state: 'passed' } },
    { kind: 'result', result: { title: 'a', state: 'failed', error: 'Error: late' } },
    { kind: 'ended' }
  ], null)
  assert.deepEqual(results, [{ title: 'a', state: 'failed', error: 'Error: late' }])
})

test('a_title_over_several_lines_becomes_one_line', () => {
  assert.equal(new TitleNumbers().unique('select  padding\n     to the list '), 'select padding to the list')
})

test('equal_titles_get_numbers', () => {
  const numbers = new TitleNumbers()
  assert.deepEqual(['a', 'b', 'a', 'a'].map(title => numbers.unique(title)), ['a', 'b', 'a #2', 'a #3'])
})

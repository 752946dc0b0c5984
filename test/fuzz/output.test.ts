import assert from 'node:assert/strict'
import { test } from 'node:test'
import { findingOf, numbersOf } from './output.js'

const ENDED = `INFO: Running with entropic power schedule (0xFF, 100).
INFO: Seed: 4032712154
#2	INITED cov: 11 ft: 12 corp: 1/1b exec/s: 0 rss: 31Mb
#65536	pulse  cov: 910 ft: 2301 corp: 301/10Kb lim: 652 exec/s: 32768 rss: 60Mb
#91234	DONE   cov: 950 ft: 2402 corp: 322/11Kb lim: 900 exec/s: 30411 rss: 64Mb
Done 91234 runs in 3 second(s)
stat::number_of_executed_units: 91234
stat::average_exec_per_sec:     30411
stat::new_units_added:          400
`

const CRASHED = `INFO: Seed: 7
#128	pulse  cov: 20 ft: 21 corp: 3/9b exec/s: 64 rss: 31Mb

thread '<unnamed>' (123) panicked at fuzz/src/values.rs:10:5:
assertion failed: is_valid
note: run with \`RUST_BACKTRACE=1\` environment variable to display a backtrace
==4242== ERROR: libFuzzer: deadly signal
SUMMARY: libFuzzer: deadly signal
artifact_prefix='/tmp/crashes/values-'; Test unit written to /tmp/crashes/values-crash-da39a3ee
`

test('numbers_are_those_of_the_end_of_a_run', () => {
  assert.deepEqual(numbersOf(ENDED), { runs: 91234, coverage: 950, features: 2402, corpus: 322, perSecond: 30411, seed: 4032712154 })
  assert.equal(findingOf(ENDED), null)
})

test('a_run_that_ended_early_says_why_and_where_its_input_is', () => {
  assert.deepEqual(findingOf(CRASHED), {
    reason: 'fuzz/src/values.rs:10:5: assertion failed: is_valid',
    artifact: '/tmp/crashes/values-crash-da39a3ee'
  })
  assert.equal(numbersOf(CRASHED).runs, 128)
  assert.deepEqual(findingOf('==7== ERROR: libFuzzer: timeout after 20 seconds\n'), { reason: 'timeout after 20 seconds' })
  assert.equal(numbersOf('').runs, 0)
})

test('a_reason_has_all_lines_of_a_message_but_not_its_backtrace_and_is_bounded', () => {
  const panicked = (message: string): string => `thread '<unnamed>' (1) panicked at fuzz/src/values.rs:7:9:\n${message}\nstack backtrace:\n   0: rust_begin_unwind\n==9== ERROR: libFuzzer: deadly signal\n`
  const compared = 'assertion `left == right` failed: 82a161\n  left: [1]\n right: [2]'
  assert.equal(findingOf(panicked(compared))?.reason, `fuzz/src/values.rs:7:9: ${compared}`)
  const many = findingOf(panicked('line\n'.repeat(100)))?.reason ?? ''
  assert.equal(many.split('\n').length, 8)
  assert.ok(many.endsWith(' ...'))
  assert.ok((findingOf(panicked('x'.repeat(100_000)))?.reason ?? '').length < 1100)
})

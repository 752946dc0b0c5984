import assert from 'node:assert/strict'
import { test } from 'node:test'
import { totalsOfCargo, totalsOfConformance, totalsOfTap } from './totals.js'

test('cargo_totals_are_summed_over_test_programs', () => {
  const output = [
    'running 3 tests',
    'test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s',
    'test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s'
  ].join('\n')
  assert.deepEqual(totalsOfCargo(output), { passed: 7, failed: 2, skipped: 1 })
})

test('cargo_output_without_a_result_line_counts_nothing', () => {
  assert.deepEqual(totalsOfCargo('error: could not compile'), { passed: 0, failed: 0, skipped: 0 })
})

test('a_cancelled_node_test_counts_as_failed', () => {
  const output = '# tests 9\n# suites 1\n# pass 4\n# fail 1\n# cancelled 1\n# skipped 2\n# todo 1\n# duration_ms 12.5\n'
  assert.deepEqual(totalsOfTap(output), { passed: 4, failed: 2, skipped: 3 })
})

test('a_test_that_prints_a_totals_line_does_not_change_the_totals', () => {
  assert.deepEqual(totalsOfTap('# pass 400\n# fail 400\n# pass 3\n# fail 0\n'), { passed: 3, failed: 0, skipped: 0 })
})

test('conformance_gaps_and_pending_titles_count_as_skipped', () => {
  const line = JSON.stringify({ passed: 100, failed: 1, pending: 7, known_gaps: 30, files: [] })
  assert.deepEqual(totalsOfConformance(`${line}\n`), { totals: { passed: 100, failed: 1, skipped: 37 }, knownGaps: 30 })
})

test('conformance_output_that_breaks_off_has_no_totals', () => {
  assert.equal(totalsOfConformance(''), null)
  assert.equal(totalsOfConformance('{"passed": 1'), null)
})

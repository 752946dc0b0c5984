// The soak in small: the same phases against the same kind of node, for seconds. Whether it stays flat needs longer runs
// and a machine of its own, so that is not asked here.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { seeded } from '../support/seed.js'
import { parseOptions } from '../soak/options.js'
import { soak } from '../soak/soak.js'

function small (seed: number, more: readonly string[]): NonNullable<ReturnType<typeof parseOptions>> {
  return parseOptions([
    '--seed', String(seed), '--minutes', '0.15', '--sample-seconds', '1', '--rate', '1500', '--file-size', '24', '--write-block', '256', '--fill-pct', '60',
    '--workers', '32',
    '--crash-rounds', '0', ...more
  ])!
}

describe('soak', { concurrency: 1 }, () => {
  test('a_filled_store_under_load_answers_with_what_was_written', async () => {
    const { seed } = seeded('a_filled_store_under_load_answers_with_what_was_written')
    const lines: string[] = []
    const report = await soak(small(seed, []), new AbortController().signal, { say: line => lines.push(line), sample: () => {} })
    assert.deepEqual(report.steady?.findings, [], lines.join('\n'))
    assert.equal(report.steady?.errors, 0)
    assert.ok(report.steady!.operations > report.steady!.keys, 'records were written once, and then more was done')
    assert.ok(report.steady!.samples.length > 0)
    assert.ok(report.steady!.samples.every(sample => sample.residentBytes > 0))
  })

  test('kills_lose_nothing_that_was_acknowledged', async () => {
    const { seed } = seeded('kills_lose_nothing_that_was_acknowledged')
    const options = small(seed, ['--minutes', '0', '--crash-rounds', '2'])
    const report = await soak(options, new AbortController().signal, { say: () => {}, sample: () => {} })
    assert.deepEqual(report.crashes?.findings, [])
    assert.equal(report.crashes?.rounds, 2)
    assert.ok(report.crashes!.acknowledged > 100)
    assert.equal(report.passed, true)
  })

  test('an_interrupt_ends_a_long_run_with_what_is_known', async () => {
    const { seed } = seeded('an_interrupt_ends_a_long_run_with_what_is_known')
    const controller = new AbortController()
    const report = await soak(small(seed, ['--minutes', '600']), controller.signal, { say: () => {}, sample: () => { controller.abort() } })
    assert.equal(report.interrupted, true)
    assert.equal(report.steady?.samples.length, 1)
    assert.equal(report.steady?.errors, 0, report.steady?.findings.join('\n'))
    assert.equal(report.steady?.flatness.flat, undefined)
  })
})

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { bucketFloor, bucketOf, FUNCTIONS_MAX, HostStatistics, OTHER_FUNCTIONS, percentile, TIME_BUCKETS, WorkerStatistics } from './statistics.js'

/** A worker whose rows the host knows. */
function worker (host: HostStatistics, index: number): WorkerStatistics {
  return new WorkerStatistics((module, name, row) => { host.add(index, module, name, row) })
}

describe('statistics of functions', () => {
  it('every_time_is_in_the_bucket_whose_bounds_are_a_quarter_apart_at_most', () => {
    for (let bucket = 0; bucket < TIME_BUCKETS; bucket++) {
      const floor = bucketFloor(bucket)
      const next = bucketFloor(bucket + 1)
      assert.equal(bucketOf(floor), bucket)
      assert.equal(bucketOf(next - 1), bucket)
      assert.ok(next - floor <= Math.max(1, floor / 4), `bucket ${bucket} from ${floor} to ${next}`)
    }
    assert.equal(bucketFloor(TIME_BUCKETS), 2 ** 31)
  })

  it('sums_are_those_of_all_workers_and_of_threads_that_are_gone', () => {
    const host = new HostStatistics()
    const first = worker(host, 0)
    first.of('m', 'f').call(1, false)
    first.of('m', 'f').call(3, true)
    const stuck = first.of('m', 'stuck')
    worker(host, 1).of('m', 'f').call(2, false)
    host.retire(0, stuck.number)
    const again = worker(host, 0)
    again.of('m', 'f').call(0.5, false)
    again.of('n', 'f').read(7)
    assert.deepEqual(host.functions().map(({ module, name, calls, errors, microseconds, microsecondsMax, recordsRead }) =>
      [module, name, calls, errors, microseconds, microsecondsMax, recordsRead]),
    [['m', 'f', 4, 1, 6500, 3000, 0], ['m', 'stuck', 1, 1, 0, 0, 0], ['n', 'f', 0, 0, 0, 0, 7]])
    assert.deepEqual(host.functions('n').map(({ module }) => module), ['n'])
    host.retire(0, 0)
    host.retire(0, 0)
    assert.equal(host.functions('m')[0]!.calls, 4)
  })

  it('percentiles_are_right_to_a_quarter_and_never_above_the_longest_call', () => {
    const host = new HostStatistics()
    const f = worker(host, 0).of('m', 'f')
    for (let call = 1; call <= 1000; call++) f.call(call / 10, false)
    const [statistics] = host.functions()
    for (const percent of [1, 50, 95, 99]) {
      const exact = percent * 1000
      const found = percentile(statistics!, percent)
      assert.ok(found >= exact && found <= exact * 1.25 + 1, `p${percent} is ${found}, exactly ${exact}`)
    }
    assert.equal(percentile(statistics!, 100), 100_000)
    f.call(1e9, false)
    assert.equal(host.functions()[0]!.buckets.at(-1), 1)
    assert.equal(percentile({ ...statistics!, buckets: [] }, 50), 0)
  })

  it('functions_beyond_the_limit_are_counted_together_also_over_many_threads', () => {
    const host = new HostStatistics()
    for (const round of [0, 1]) {
      const one = worker(host, 0)
      for (let i = 0; i < FUNCTIONS_MAX + 10; i++) one.of('m', `f${round}-${i}`).call(1, false)
      host.retire(0, 0)
    }
    const functions = host.functions()
    assert.ok(functions.length <= FUNCTIONS_MAX + 1)
    assert.equal(functions.reduce((sum, { calls }) => sum + calls, 0), 2 * (FUNCTIONS_MAX + 10))
    assert.ok(functions.find(({ module, name }) => module === '' && name === OTHER_FUNCTIONS)!.calls >= FUNCTIONS_MAX)
  })
})

// The parts of the soak that judge: a judge that lets everything pass would make every run a good one.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Bins } from '../../src/client/value.js'
import { Contents, ContentsError } from './contents.js'
import { Model } from './model.js'
import { UsageError, parseOptions } from './options.js'
import { Random } from '../support/seed.js'
import { cpuMark, foreignCpuPct, memoryOf } from './process-load.js'
import { Latencies, judgeFlatness, median, theilSen, type Sample } from './samples.js'

const SAMPLE: Sample = {
  seconds: 0,
  operationsPerSecond: 1000,
  residentBytes: 200 * 2 ** 20,
  anonymousBytes: 150 * 2 ** 20,
  sharedBytes: 40 * 2 ** 20,
  heapBytes: 20 * 2 ** 20,
  foreignCpuPct: 3,
  readP99Ms: 2,
  writeP99Ms: 3,
  writeAmplification: 3,
  availPct: 15,
  freeBlocks: 150,
  overloads: 0,
  errors: 0
}

function samples (count: number, change: (share: number) => Partial<Sample>): Sample[] {
  return Array.from({ length: count }, (_, i) => ({ ...SAMPLE, seconds: i, ...change(i / (count - 1)) }))
}

describe('flatness', () => {
  test('a_steady_run_with_outliers_is_flat', () => {
    const judged = judgeFlatness(samples(30, share => share === 1 ? { readP99Ms: 900, residentBytes: 2 ** 40 } : {}))
    assert.equal(judged.flat, true)
    assert.equal(judged.trends.length, 6)
  })

  for (const [name, change] of Object.entries<(share: number) => Partial<Sample>>({
    residentBytes: share => ({ residentBytes: SAMPLE.residentBytes * (1 + share) }),
    readP99Ms: share => ({ readP99Ms: 2 + share * 30 }),
    writeP99Ms: share => ({ writeP99Ms: 3 + share * 30 }),
    writeAmplification: share => ({ writeAmplification: 3 + share * 4 }),
    availPct: share => ({ availPct: 15 - share * 12 }),
    operationsPerSecond: share => ({ operationsPerSecond: 1000 - share * 600 })
  })) {
    test(`a_trend_is_seen: ${name}`, () => {
      const { flat, trends } = judgeFlatness(samples(12, change))
      assert.equal(flat, false)
      assert.deepEqual(trends.filter(trend => !trend.flat).map(({ measure }) => measure), [name])
    })
  }

  /** An hour of a sample a minute, with a sawtooth of garbage collections and noise that stays within 20 MiB, and growth until everything is warm. */
  function hour (seed: number, leakBytesPerMinute: number): Sample[] {
    const random = new Random(seed)
    return Array.from({ length: 60 }, (_, minute) => {
      const warming = 60 * 2 ** 20 * Math.exp(-minute / 4)
      const noise = ((minute % 7) + 13 * random.next()) * 2 ** 20
      return { ...SAMPLE, seconds: 60 * (minute + 1), residentBytes: 400 * 2 ** 20 - warming + noise + leakBytesPerMinute * minute }
    })
  }

  test('a_leak_of_a_megabyte_a_minute_is_seen_in_an_hour_and_warming_up_is_none', () => {
    for (let seed = 1; seed <= 50; seed++) {
      const leaking = judgeFlatness(hour(seed, 1e6))
      assert.equal(leaking.trends[0]!.flat, false, `seed ${seed}`)
      assert.ok(Math.abs(leaking.memory!.bytesPerMinute - 1e6) < 3e5, `seed ${seed}: ${leaking.memory!.bytesPerMinute}`)
      assert.equal(judgeFlatness(hour(seed, 0)).flat, true, `seed ${seed}`)
      assert.equal(judgeFlatness(hour(seed, -2e6)).flat, true, `seed ${seed}`)
    }
  })

  test('what_other_processes_did_to_latency_is_not_held_against_the_node', () => {
    const disturbed = samples(60, share => share > 0.7 && share < 0.9 ? { foreignCpuPct: 60, readP99Ms: 300, operationsPerSecond: 400 } : {})
    const judged = judgeFlatness(disturbed)
    assert.deepEqual([judged.flat, judged.judged, judged.disturbed], [true, 45, 12])
    const slow = judgeFlatness(disturbed.map(sample => ({ ...sample, foreignCpuPct: 3 })))
    assert.equal(slow.flat, false)
  })

  test('a_run_that_others_disturbed_throughout_is_neither_flat_nor_not', () => {
    const judged = judgeFlatness(samples(60, () => ({ foreignCpuPct: 60 })))
    assert.equal(judged.flat, undefined)
    assert.deepEqual(judged.trends.filter(({ flat }) => flat === undefined).map(({ measure }) => measure), ['readP99Ms', 'writeP99Ms', 'operationsPerSecond'])
    const leaking = judgeFlatness(hour(1, 1e6).map(sample => ({ ...sample, foreignCpuPct: 60 })))
    assert.equal(leaking.flat, false, 'a leak is one whoever has the processors')
  })

  test('a_slope_is_the_median_of_all_pairs', () => {
    const { slope, least, greatest } = theilSen([0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(x => [x, x === 5 ? 1e6 : 3 * x]))
    assert.equal(slope, 3)
    assert.ok(least <= 3 && greatest >= 3)
  })

  test('time_of_our_own_processes_is_no_foreign_time', () => {
    const from = cpuMark([process.pid])
    const began = process.cpuUsage()
    for (let used = 0; used < 200_000;) {
      const { user, system } = process.cpuUsage(began)
      used = user + system
    }
    const to = cpuMark([process.pid])
    assert.ok(to.ours - from.ours >= 0.1, 'this process was busy')
    assert.ok(foreignCpuPct(from, to) <= foreignCpuPct({ ...from, ours: 0 }, { ...to, ours: 0 }))
    const { residentBytes, anonymousBytes } = memoryOf(process.pid)
    assert.ok(anonymousBytes > 0 && residentBytes >= anonymousBytes)
  })

  test('few_samples_say_nothing', () => {
    assert.equal(judgeFlatness(samples(5, () => ({}))).flat, undefined)
  })

  test('median_of_an_even_number_lies_between', () => {
    assert.equal(median([4, 1, 3, 2]), 2.5)
    assert.equal(median([9, 1, 2]), 2)
  })

  test('quantiles_are_within_their_bucket', () => {
    const latencies = new Latencies()
    assert.equal(latencies.quantileMs(0.99), 0)
    for (let ms = 1; ms <= 1000; ms++) latencies.add(ms)
    const p99 = latencies.quantileMs(0.99)
    assert.ok(p99 >= 990 && p99 <= 990 * 1.05, String(p99))
    assert.equal(latencies.count, 1000)
  })
})

describe('model', () => {
  const now = 1_000_000

  test('what_was_acknowledged_is_all_that_may_be_seen', () => {
    const model = new Model(2)
    assert.equal(model.contradicts(0, 0, now, now), undefined)
    model.acknowledged(0, model.nextVersion(0))
    assert.equal(model.contradicts(0, 1, now, now), undefined)
    assert.match(model.contradicts(0, 0, now, now)!, /version 0, not 1/)
    model.acknowledged(0, 0)
    assert.match(model.contradicts(0, 1, now, now)!, /version 1, not 0/)
    assert.equal(model.nextVersion(0), 2, 'no version is used twice')
  })

  test('an_unanswered_change_may_have_happened_until_it_is_seen', () => {
    const model = new Model(1)
    model.acknowledged(0, model.nextVersion(0))
    model.unanswered(0, model.nextVersion(0))
    assert.match(model.contradicts(0, 3, now, now)!, /not 1 or 2/)
    assert.equal(model.contradicts(0, 2, now, now), undefined)
    assert.match(model.contradicts(0, 1, now, now)!, /not 2/)
  })

  test('an_expiring_record_is_gone_after_its_time_and_not_before', () => {
    const model = new Model(1)
    model.acknowledged(0, model.nextVersion(0), { from: now, to: now + 10 })
    assert.match(model.contradicts(0, 0, now - 5, now - 1)!, /version 0, not 1/)
    assert.equal(model.contradicts(0, 1, now + 10, now + 20), undefined)
    assert.match(model.contradicts(0, 1, now + 11, now + 20)!, /expired/)
    assert.equal(model.contradicts(0, 0, now, now), undefined)
    assert.match(model.contradicts(0, 1, now, now)!, /not 0/)
  })

  test('a_record_has_one_request_at_a_time', () => {
    const model = new Model(1)
    assert.equal(model.take(0), true)
    assert.equal(model.take(0), false)
    model.give(0)
    assert.equal(model.take(0), true)
  })
})

describe('contents', () => {
  const contents = new Contents(1, 500)

  test('every_byte_of_a_record_is_known', () => {
    const bins = contents.bins(7, 3)
    assert.equal(contents.versionOf(7, bins), 3)
    const value = Buffer.from(bins['value'] as Buffer)
    assert.ok(value.length > 0, 'this one has bytes to damage')
    value[value.length - 1]! ^= 1
    const damaged: Bins[] = [{ ...bins, value }, { ...bins, key: 8 }, { ...bins, version: 4 }, { ...bins, more: 1 }, { key: 7, version: 3 }]
    for (const wrong of damaged) {
      assert.throws(() => contents.versionOf(7, wrong), ContentsError)
    }
  })
})

describe('options', () => {
  test('defaults_hold_an_hour_and_numbers_are_checked', () => {
    const options = parseOptions(['--seed', '5'])
    assert.equal(options?.minutes, 60)
    assert.equal(options?.sampleSeconds, 60)
    assert.equal(parseOptions(['--minutes', '1'])?.sampleSeconds, 5)
    for (const wrong of [['--minutes', 'x'], ['--minutes', '-1'], ['--fill-pct', '99'], ['--nothing'], ['extra']]) {
      assert.throws(() => parseOptions(wrong), UsageError, wrong.join(' '))
    }
  })
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseConfigText } from '../../config/load.js'
import type { Latencies } from '../engine/native.js'
import { LatencyWindow } from './latencies.js'
import type { NodeView } from './node-view.js'
import { answerInfo } from './registry.js'

const FLOORS_US = [0, 1, 2, 512, 1000, 1024, 65_536, 65_536_000]
const NOTHING = FLOORS_US.map(() => 0)

/** An engine whose counts and clock are the test's. */
function scratch (service = '') {
  const config = parseConfigText(`service: { node-id: A1 ${service} }\nnamespaces: [{ name: test, storage-engine: { type: memory, data-size: 1G } }]`)
  let now = 5000
  let counts: Latencies = { 'floors-us': FLOORS_US, service: { 'batch-index': NOTHING, info: NOTHING }, namespaces: { test: { read: NOTHING, write: NOTHING } } }
  const window = new LatencyWindow(() => counts, () => now)
  const node = { latencies: window, runtimeConfig: { current: config }, ready: true } as unknown as NodeView
  const ask = async (command: string) => (await answerInfo(node, `${command}\n`, (error) => { throw error })).slice(command.length + 1, -1)
  const pass = (ms: number, reads: number[], info = NOTHING) => {
    now += ms
    const { read, write } = counts.namespaces.test as { read: number[], write: number[] }
    const add = (to: readonly number[], more: readonly number[]) => to.map((count, i) => count + more[i]!)
    counts = { ...counts, service: { ...counts.service, info: add(counts.service.info!, info) }, namespaces: { test: { read: add(read, reads), write } } }
  }
  return { ask, pass, window }
}

/** All 17 columns, of which the last ones are alike. */
function columns (...first: number[]): string {
  return Array.from({ length: 17 }, (_, i) => (first[i] ?? first.at(-1)!).toFixed(2)).join(',')
}

test('histograms are listed in order, those without requests by name alone', async () => {
  const { ask, pass } = scratch()
  assert.equal(await ask('latencies:'), 'batch-index:;{test}-read:;{test}-write:;')
  pass(2000, [0, 0, 50, 30, 10, 10, 0, 0])
  assert.equal(await ask('latencies:'), `batch-index:;{test}-read:msec,50.0,${columns(20, 0)};{test}-write:;`)
  assert.equal(await ask('latencies:hist={test}-read'), `{test}-read:msec,50.0,${columns(20, 0)};`)
})

test('columns are shares of what took a power of two of the unit or longer', async () => {
  const { ask, pass } = scratch(', microsecond-histograms: true')
  pass(1000, [10, 10, 20, 20, 20, 10, 5, 5])
  const us = columns(90, 80, 60, 60, 60, 60, 60, 60, 60, 60, 20, 10)
  assert.equal(await ask('latencies:hist={test}-read'), `{test}-read:usec,100.0,${us};`)
  // 65,536 milliseconds are the last column, 65.536 are in the seventh.
  const ms = columns(40, 10, 10, 10, 10, 10, 10, 5)
  assert.equal(await ask('latencies:hist={test}-read;unit=msec'), `{test}-read:msec,100.0,${ms};`)
})

test('what was answered before the last interval but one is left out', async () => {
  const { ask, pass, window } = scratch()
  const read = async () => /^\{test\}-read:(?:msec,(\d+\.\d),.*)?;$/.exec(await ask('latencies:hist={test}-read'))?.[1]
  pass(10_000, [0, 0, 0, 0, 1000, 0, 0, 0])
  window.turn()
  assert.equal(await read(), '100.0')
  pass(10_000, [0, 0, 500, 0, 0, 0, 0, 0])
  window.turn()
  assert.equal(await read(), '50.0')
  pass(5000, [0, 0, 100, 0, 0, 0, 0, 0])
  assert.equal(await read(), '40.0')
  pass(5000, NOTHING)
  window.turn()
  assert.equal(await read(), '10.0')
  pass(10_000, NOTHING)
  window.turn()
  assert.equal(await read(), undefined)
})

test('info is listed where the configuration says so', async () => {
  const info = [0, 0, 7, 0, 0, 0, 0, 0]
  const hidden = scratch()
  hidden.pass(1000, NOTHING, info)
  assert.equal(await hidden.ask('latencies:'), 'batch-index:;{test}-read:;{test}-write:;')
  assert.equal(await hidden.ask('latencies:hist=info'), "ERROR:4:no histogram 'info'")
  const shown = scratch(', enable-hist-info: true')
  shown.pass(1000, NOTHING, info)
  assert.equal(await shown.ask('latencies:hist=info'), `info:msec,7.0,${columns(0)};`)
})

test('what cannot be meant is refused', async () => {
  const { ask } = scratch()
  assert.equal(await ask('latencies:hist={none}-read'), "ERROR:4:no histogram '{none}-read'")
  assert.equal(await ask('latencies:unit=days'), "ERROR:4:bad 'unit' 'days': usec, msec")
})

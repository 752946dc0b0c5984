// The phases of a soak: fill, steady load with samples, crash rounds, the engine's power-cut tests.
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Client } from '../../src/client/client.js'
import { NodeProcess, fileNamespace, type YamlMap } from '../support/node-process.js'
import { packageRoot } from '../support/package-root.js'
import { Random } from '../support/seed.js'
import { totalsOfCargo } from '../support/totals.js'
import { rawInfoPairs } from '../support/wire.js'
import { Contents } from './contents.js'
import { Model } from './model.js'
import type { SoakOptions } from './options.js'
import { cpuMark, foreignCpuPct, type CpuMark, memoryOf } from './process-load.js'
import { Latencies, judgeFlatness, type Flatness, type Sample } from './samples.js'
import { NAMESPACE, Workload, type Mix } from './workload.js'

const STEADY: Mix = { reads: 0.4, deletes: 0.02, expiring: 0.02, durableDeletes: false }
const CRASHING: Mix = { reads: 0.2, deletes: 0.15, expiring: 0, durableDeletes: true }
/** Of the keys, those that are deleted or expired at a time in the steady state of that mix, about. */
const ABSENT_SHARE = 0.07
const CRASH_KEYS = 2_000
const CRASH_FILE_BYTES = 64 * 2 ** 20
const CRASH_AFTER_MS = { min: 200, max: 2_500 }
const READY_TIMEOUT_MS = 180_000
/** The engine's tests that take the number of their seeds from PERIGEE_CRASH_SEEDS. */
const POWER_CUT_TESTS = ['storage::tests::power', 'deletion_tests']
const OUTPUT_CHARACTERS_MAX = 100_000
const SETTLE_LOOK_MS = 50
const KIB = 1024

export interface SteadyReport {
  keys: number
  seconds: number
  operations: number
  overloads: number
  errors: number
  findings: string[]
  samples: Sample[]
  flatness: Flatness
}

export interface CrashReport {
  rounds: number
  acknowledged: number
  errors: number
  findings: string[]
}

export interface SeedsReport { seeds: number, tests: number, passed: boolean }

export interface SoakReport {
  seed: number
  options: SoakOptions
  interrupted: boolean
  steady?: SteadyReport
  crashes?: CrashReport
  powerCuts?: SeedsReport
  /** Null if nothing failed, and the samples do not say whether the load stayed flat. */
  passed: boolean | null
}

export interface Observer {
  say (line: string): void
  sample (sample: Sample): void
}

export async function soak (options: SoakOptions, interrupted: AbortSignal, observer: Observer): Promise<SoakReport> {
  const report: SoakReport = { seed: options.seed, options, interrupted: false, passed: false }
  if (options.minutes > 0) report.steady = await steady(options, interrupted, observer)
  if (options.crashRounds > 0 && !interrupted.aborted) report.crashes = await crashRounds(options, interrupted, observer)
  if (options.crashSeeds > 0 && !interrupted.aborted) report.powerCuts = await powerCuts(options.crashSeeds, interrupted, observer)
  report.interrupted = interrupted.aborted
  const holds = [report.steady?.errors ?? 0, report.crashes?.errors ?? 0].every(errors => errors === 0) &&
    report.steady?.flatness.flat !== false && report.powerCuts?.passed !== false
  report.passed = holds && isUndecided(report) ? null : holds
  return report
}

/** There were enough samples, and too few of them could be used. */
function isUndecided ({ steady }: SoakReport): boolean {
  return steady !== undefined && steady.flatness.flat === undefined && steady.flatness.trends.length > 0
}

function namespaces (options: SoakOptions, fileBytes: number, storage: YamlMap): (directory: string) => YamlMap[] {
  return directory => [fileNamespace(directory, {
    name: NAMESPACE,
    filesize: `${Math.floor(fileBytes / KIB)}K`,
    // Limits and caches that are reached early, so that what grows afterwards grows for ever.
    storage: { 'write-block-size': `${options.writeBlockBytes / KIB}K`, 'flush-size': `${Math.min(1024, options.writeBlockBytes / KIB)}K`, 'post-write-cache': '16M', 'defrag-lwm-pct': options.defragLwmPct, ...storage },
    more: { 'max-record-size': `${options.writeBlockBytes / KIB}K`, 'nsup-period': 5, 'stop-writes-used-pct': 95, 'stop-writes-avail-pct': 0 }
  })]
}

function connect (node: NodeProcess): Promise<Client> {
  return Client.connect({ hosts: [`127.0.0.1:${node.port}`], timeoutMs: 20_000, connectTimeoutMs: 20_000 })
}

async function steady (options: SoakOptions, interrupted: AbortSignal, observer: Observer): Promise<SteadyReport> {
  const contents = new Contents(options.seed, options.valueBytesMax)
  const keys = Math.floor(options.fileBytes * options.fillPct / 100 / contents.storedBytesMean / (1 - ABSENT_SHARE))
  const workload = new Workload(new Model(keys), contents, new Random(options.seed))
  const node = await NodeProcess.start({ name: 'soak', namespaces: namespaces(options, options.fileBytes, {}), readyTimeoutMs: READY_TIMEOUT_MS })
  const client = await connect(node)
  const samples: Sample[] = []
  let seconds = 0
  try {
    observer.say(`filling ${options.fillPct} % of ${Math.round(options.fileBytes / 2 ** 20)} MiB with ${keys} records`)
    await workload.fill(client, options.workers, () => interrupted.aborted)
    await settle(options, workload, client, node, interrupted, observer)
    observer.say(`load of ${options.rate === 0 ? 'as many as come back' : options.rate} requests/s for ${options.minutes} minutes`)
    const started = performance.now()
    const end = started + options.minutes * 60_000
    const over = (): boolean => interrupted.aborted || performance.now() >= end || !node.running
    const running = workload.run(client, STEADY, options, over)
    const cpu = (): CpuMark => cpuMark([node.pid, process.pid])
    let [before, cpuBefore] = [await counters(node), cpu()]
    while (!over()) {
      workload.reads = new Latencies()
      workload.writes = new Latencies()
      const [from, operations, overloads, errors] = [performance.now(), workload.operations, workload.overloads, workload.errors]
      await sleep(Math.max(0, Math.min(options.sampleSeconds * 1000, end - from)), undefined, { signal: interrupted }).catch(() => {})
      if (!node.running || performance.now() - from < options.sampleSeconds * 500) break
      const [now, cpuNow] = [await counters(node), cpu()]
      const sample: Sample = {
        seconds: (performance.now() - started) / 1000,
        operationsPerSecond: (workload.operations - operations) * 1000 / (performance.now() - from),
        ...memoryOf(node.pid),
        heapBytes: now.heapBytes,
        foreignCpuPct: foreignCpuPct(cpuBefore, cpuNow),
        readP99Ms: workload.reads.quantileMs(0.99),
        writeP99Ms: workload.writes.quantileMs(0.99),
        writeAmplification: (now.flushed - before.flushed) / Math.max(1, now.written - before.written),
        availPct: now.availPct,
        freeBlocks: now.freeBlocks,
        overloads: workload.overloads - overloads,
        errors: workload.errors - errors
      }
      before = now
      cpuBefore = cpuNow
      samples.push(sample)
      observer.sample(sample)
    }
    await running
    seconds = (performance.now() - started) / 1000
    if (node.running) {
      observer.say('comparing every record')
      await workload.check(client, options.workers)
    } else {
      workload.find(`the node ended\n${node.tail()}`)
    }
  } catch (error) {
    workload.find(`${error instanceof Error ? error.message : String(error)}\n${node.tail()}`)
  } finally {
    await client.close()
    await node.dispose()
  }
  const { operations, overloads, errors, findings } = workload
  return { keys, seconds, operations, overloads, errors, findings, samples, flatness: judgeFlatness(samples) }
}

/**
 * Overwrites at full speed until as many bytes were written as the file has: while there are blocks that were never used, nothing is
 * compacted, and a trend from there to the steady state is none.
 */
async function settle (
  options: SoakOptions, workload: Workload, client: Client, node: NodeProcess, interrupted: AbortSignal, observer: Observer
): Promise<void> {
  observer.say('overwriting until the file has been written over once')
  let over = false
  const until = async (): Promise<void> => {
    while (!over) {
      over = interrupted.aborted || !node.running || (await counters(node)).written >= options.fileBytes * (1 + options.fillPct / 100)
      await sleep(SETTLE_LOOK_MS)
    }
  }
  // A look that fails ends the load, too.
  const looking = until().finally(() => { over = true })
  await Promise.all([workload.run(client, STEADY, { workers: options.workers, rate: 0 }, () => over), looking])
}

interface Counters { flushed: number, written: number, availPct: number, freeBlocks: number, heapBytes: number }

async function counters (node: NodeProcess): Promise<Counters> {
  const pairs = new Map([...await rawInfoPairs(node.port, 'statistics'), ...await rawInfoPairs(node.port, `namespace/${NAMESPACE}`)])
  const of = (name: string): number => {
    const value = pairs.get(name)
    if (value === undefined) throw new Error(`the node does not tell ${name}`)
    return Number(value)
  }
  return {
    flushed: of('storage-engine.flush_bytes'),
    written: of('storage-engine.write_bytes'),
    availPct: of('data_avail_pct'),
    freeBlocks: of('storage-engine.free_blocks'),
    heapBytes: of('heap_allocated_kbytes') * KIB
  }
}

/** Kills a node under load at random times; whatever was acknowledged must be there when it is back. */
async function crashRounds (options: SoakOptions, interrupted: AbortSignal, observer: Observer): Promise<CrashReport> {
  const random = new Random(options.seed ^ 0x5bd1e995)
  const contents = new Contents(options.seed, options.valueBytesMax)
  const workload = new Workload(new Model(CRASH_KEYS), contents, random)
  const storage = { 'commit-to-device': true }
  const fileBytes = Math.max(CRASH_FILE_BYTES, options.writeBlockBytes * 16)
  const node = await NodeProcess.start({ name: 'soak-crash', namespaces: namespaces(options, fileBytes, storage), readyTimeoutMs: READY_TIMEOUT_MS })
  let rounds = 0
  let acknowledged = 0
  try {
    while (rounds < options.crashRounds && !interrupted.aborted) {
      const client = await connect(node)
      let killed = false
      const before = workload.operations
      const running = workload.run(client, CRASHING, { workers: options.workers, rate: 0 }, () => killed)
      await sleep(random.integer(CRASH_AFTER_MS.min, CRASH_AFTER_MS.max))
      workload.forgiving = true
      killed = true
      await node.kill()
      await client.close()
      await running
      workload.forgiving = false
      acknowledged += workload.operations - before
      await node.start()
      const reader = await connect(node)
      await workload.check(reader, options.workers)
      await reader.close()
      rounds++
      observer.say(`crash ${rounds} of ${options.crashRounds}: ${acknowledged} requests answered so far, ${workload.errors} wrong`)
      if (workload.errors > 0) break
    }
  } catch (error) {
    workload.find(`${error instanceof Error ? error.message : String(error)}\n${node.tail()}`)
  } finally {
    await node.dispose()
  }
  return { rounds, acknowledged, errors: workload.errors, findings: workload.findings }
}

/** The engine's own power-cut tests, with more seeds than a test run has time for. */
async function powerCuts (seeds: number, interrupted: AbortSignal, observer: Observer): Promise<SeedsReport> {
  observer.say(`power-cut tests of the engine with ${seeds} seeds`)
  const child = spawn('cargo', ['test', '--release', '--locked', '-p', 'perigee-engine', '--lib', '--', ...POWER_CUT_TESTS], {
    cwd: join(packageRoot, 'native'),
    env: { ...process.env, PERIGEE_CRASH_SEEDS: String(seeds) },
    stdio: ['ignore', 'pipe', 'inherit']
  })
  const end = (): void => { child.kill('SIGTERM') }
  interrupted.addEventListener('abort', end, { once: true })
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => { output = (output + text).slice(-OUTPUT_CHARACTERS_MAX) })
  const succeeded = await new Promise<boolean>(resolve => {
    child.once('error', error => {
      observer.say(`cargo cannot be started: ${error.message}`)
      resolve(false)
    })
    child.once('close', code => { resolve(code === 0) })
  })
  // Names that no test has any more would pass, too.
  const { passed: tests } = totalsOfCargo(output)
  const passed = succeeded && tests >= POWER_CUT_TESTS.length
  if (!passed) observer.say(output)
  interrupted.removeEventListener('abort', end)
  return { seeds, tests, passed }
}

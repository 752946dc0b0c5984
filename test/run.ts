// `npm test`: everything that can be checked on one machine, section by section. The last line is the total of all of them:
// `N passed, N failed, N skipped`.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { HEADER, build, failure, fuzzAll, missing, row, targets } from './fuzz/fuzz.js'
import { ensureInstalled } from './support/official-client.js'
import { packageRoot } from './support/package-root.js'
import { removeTempDirectory, tempDirectory } from './support/temp.js'
import { NO_TOTALS, addTotals, totalsOfCargo, totalsOfConformance, totalsOfTap, type Totals } from './support/totals.js'

const DIST = join(packageRoot, 'dist')
const NATIVE = join(packageRoot, 'native')
/** A test file that has not ended after this long is hung. */
const TEST_FILE_TIMEOUT_MS = 300_000

/** What a section came to; `trouble` says why it fails apart from single tests. */
interface SectionResult { totals: Totals, trouble?: string, note?: string }

interface Section {
  name: string
  /** What `--only` calls it; several sections may share one. */
  group: string
  run (): Promise<SectionResult>
}

interface RunResult { code: number | null, signal: NodeJS.Signals | null, output: string }

/** What happens to the stdout of a command: ours, kept, or both. */
type Stdout = 'through' | 'kept' | 'both'

function run (command: string, args: readonly string[], { cwd = packageRoot, stdout = 'through' }: { cwd?: string, stdout?: Stdout } = {}): Promise<RunResult> {
  return new Promise(resolve => {
    const child = spawn(command, args, { cwd, stdio: ['ignore', stdout === 'through' ? 'inherit' : 'pipe', 'inherit'] })
    const endWithParent = (): void => { child.kill('SIGTERM') }
    process.once('exit', endWithParent)
    let output = ''
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      output += text
      if (stdout === 'both') process.stdout.write(text)
    })
    const settle = (result: Omit<RunResult, 'output'>): void => {
      process.off('exit', endWithParent)
      resolve({ ...result, output })
    }
    child.once('error', error => {
      console.error(`${command}: ${error.message}`)
      settle({ code: null, signal: null })
    })
    child.once('close', (code, signal) => { settle({ code, signal }) })
  })
}

function howItEnded ({ code, signal }: RunResult): string {
  return signal === null ? `exit ${code ?? 'without starting'}` : `ended by ${signal}`
}

/** A command that is one check by itself: it passes or it does not. */
async function check (command: string, args: readonly string[], cwd: string, probe: readonly string[]): Promise<SectionResult> {
  if (spawnSync(command, probe, { cwd, stdio: 'ignore' }).status !== 0) {
    return { totals: { ...NO_TOTALS, skipped: 1 }, note: `${command} ${probe.join(' ')} does not run here` }
  }
  const result = await run(command, args, { cwd })
  return { totals: result.code === 0 ? { ...NO_TOTALS, passed: 1 } : { ...NO_TOTALS, failed: 1 } }
}

async function cargoTests (): Promise<SectionResult> {
  const child = await run('cargo', ['test', '--workspace', '--locked', '--no-fail-fast'], { cwd: NATIVE, stdout: 'both' })
  const totals = totalsOfCargo(child.output)
  // Cargo also fails without a failed test: when something does not compile.
  const trouble = child.code !== 0 && totals.failed === 0 ? `cargo test: ${howItEnded(child)}` : undefined
  return { totals, ...(trouble === undefined ? {} : { trouble }) }
}

/**
 * Compiled test files below dist/ for which `wanted` holds, by their path from there. A file whose source is gone is left over
 * from an older build, and is not run.
 */
function compiledTests (wanted: (path: string) => boolean): string[] {
  if (!existsSync(DIST)) return []
  return readdirSync(DIST, { recursive: true, encoding: 'utf8' })
    .filter(path => path.endsWith('.test.js') && !path.startsWith('conformance-suite'))
    .filter(wanted)
    .filter(path => existsSync(join(packageRoot, path.replace(/\.js$/, '.ts'))))
    .filter(path => statSync(join(DIST, path)).isFile())
    .sort()
    .map(path => join(DIST, path))
}

async function nodeTests (files: readonly string[], concurrency: number | null): Promise<SectionResult> {
  if (files.length === 0) return { totals: NO_TOTALS, trouble: 'there is no test file' }
  const directory = tempDirectory('test-run')
  const tap = join(directory, 'tap')
  const result = await run(process.execPath, [
    '--enable-source-maps', '--test',
    ...(concurrency === null ? [] : [`--test-concurrency=${concurrency}`]),
    `--test-timeout=${TEST_FILE_TIMEOUT_MS}`,
    '--test-reporter=spec', '--test-reporter-destination=stdout',
    '--test-reporter=tap', `--test-reporter-destination=${tap}`,
    ...files.map(file => relative(packageRoot, file))
  ])
  const totals = totalsOfTap(existsSync(tap) ? readFileSync(tap, 'utf8') : '')
  removeTempDirectory(directory)
  const trouble = result.code !== 0 && totals.failed === 0 ? `node --test: ${howItEnded(result)}` : undefined
  return { totals, ...(trouble === undefined ? {} : { trouble }) }
}

const inSystem = (path: string): boolean => path.startsWith(join('test', 'system'))
const inKafka = (path: string): boolean => path.startsWith(join('test', 'kafka'))

async function conformance (): Promise<SectionResult> {
  const result = await run(process.execPath, [fileURLToPath(new URL('./conformance/main.js', import.meta.url)), '--json'], { stdout: 'kept' })
  const parsed = totalsOfConformance(result.output)
  if (parsed === null) return { totals: NO_TOTALS, trouble: `conformance: ${howItEnded(result)}` }
  const trouble = result.code !== 0 && parsed.totals.failed === 0 ? `conformance: ${howItEnded(result)}` : undefined
  return {
    totals: parsed.totals,
    note: `${parsed.knownGaps} of the skipped are known gaps (test/conformance/known-gaps.json)`,
    ...(trouble === undefined ? {} : { trouble })
  }
}

/** Seconds of each target; two run at a time. `npm run fuzz` takes as many as there is time for. */
const FUZZ_SECONDS = Number(process.env['PERIGEE_FUZZ_SECONDS'] ?? 60)
const FUZZ_JOBS = 2

/** The same for the same Rust code, so that a check that passed passes again; another with every change of it. None outside of a checkout. */
function fuzzSeed (): number | undefined {
  const { stdout } = spawnSync('git', ['rev-parse', 'HEAD:native'], { cwd: packageRoot, encoding: 'utf8' })
  const digits = /^[0-9a-f]{7}/.exec(stdout ?? '')?.[0]
  return digits === undefined ? undefined : 1 + Number.parseInt(digits, 16)
}

/** Each target is one check. */
async function fuzzing (): Promise<SectionResult> {
  const wanted = targets()
  const lacking = missing()
  if (lacking !== null) return { totals: { ...NO_TOTALS, skipped: wanted.length }, note: lacking }
  const program = build()
  const seed = fuzzSeed()
  if (seed !== undefined) console.log(`seed ${seed} (npm run fuzz -- --seed ${seed} repeats it)`)
  console.log(HEADER)
  const results = await fuzzAll(program, wanted, { seconds: FUZZ_SECONDS, jobs: FUZZ_JOBS, ...seed === undefined ? {} : { seed } }, result => { console.log(row(result)) })
  const failed = results.filter(({ finding }) => finding !== undefined)
  return {
    totals: { ...NO_TOTALS, passed: results.length - failed.length, failed: failed.length },
    // Often the end of a log is all that is left of it.
    ...(failed.length === 0 ? {} : { note: failed.map(result => `${result.target} FAILED: ${failure(result)}`).join('\n') })
  }
}

const SECTIONS: readonly Section[] = [
  { group: 'rust', name: 'Rust: formatting', run: () => check('cargo', ['fmt', '--all', '--check'], NATIVE, ['fmt', '--version']) },
  {
    group: 'rust',
    name: 'Rust: clippy',
    run: () => check('cargo', ['clippy', '--workspace', '--all-targets', '--locked', '--quiet', '--', '-D', 'warnings'], NATIVE, ['clippy', '--version'])
  },
  { group: 'rust', name: 'Rust: tests', run: cargoTests },
  { group: 'fuzz', name: `Fuzzing: each target for ${FUZZ_SECONDS} s`, run: fuzzing },
  { group: 'unit', name: 'TypeScript: unit tests', run: () => nodeTests(compiledTests(path => !inSystem(path) && !inKafka(path)), null) },
  {
    group: 'system',
    name: 'System: real nodes',
    run: () => {
      ensureInstalled()
      return nodeTests(compiledTests(inSystem), 1)
    }
  },
  { group: 'kafka', name: 'Kafka: a real broker', run: () => nodeTests(compiledTests(inKafka), 1) },
  { group: 'conformance', name: 'Conformance: the official client\'s own suite', run: conformance }
]

function describe ({ passed, failed, skipped }: Totals): string {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`
}

/** A section in which nothing ran proves nothing, so it fails; so does one that fell over. */
function settle ({ totals, trouble }: SectionResult): { totals: Totals, trouble?: string } {
  const executed = totals.passed + totals.failed + totals.skipped
  const reason = trouble ?? (executed === 0 ? 'no test ran' : undefined)
  return reason === undefined ? { totals } : { totals: { ...totals, failed: totals.failed + 1 }, trouble: reason }
}

async function main (): Promise<void> {
  const groups = [...new Set(SECTIONS.map(({ group }) => group))]
  const { values } = parseArgs({ options: { only: { type: 'string' }, list: { type: 'boolean', default: false } } })
  if (values.list) {
    for (const { group, name } of SECTIONS) console.log(`${group.padEnd(12)} ${name}`)
    return
  }
  const wanted = values.only?.split(',') ?? groups
  const unknown = wanted.filter(group => !groups.includes(group))
  if (unknown.length > 0) throw new Error(`--only ${unknown.join(',')}: it can be ${groups.join(', ')}`)

  let total = NO_TOTALS
  const summary: string[] = []
  for (const section of SECTIONS.filter(({ group }) => wanted.includes(group))) {
    console.log(`\n=== ${section.name} ===\n`)
    const started = Date.now()
    let result: SectionResult
    try {
      result = await section.run()
    } catch (error) {
      result = { totals: NO_TOTALS, trouble: error instanceof Error ? error.message : String(error) }
    }
    const { totals, trouble } = settle(result)
    total = addTotals(total, totals)
    const seconds = ((Date.now() - started) / 1000).toFixed(1)
    const notes = [trouble, result.note].filter(text => text !== undefined).map(text => `\n    ${text.replaceAll('\n', '\n    ')}`).join('')
    summary.push(`${section.name.padEnd(46)} ${describe(totals)}  (${seconds} s)${notes}`)
    console.log(`\n${section.name}: ${describe(totals)}${notes}`)
  }
  console.log(`\n=== Summary ===\n\n${summary.join('\n')}\n`)
  process.exitCode = total.failed > 0 ? 1 : 0
  console.log(describe(total))
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => process.exit(130))
}

try {
  await main()
} catch (error) {
  console.error(`test: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 2
}

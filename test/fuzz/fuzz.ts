// Builds the program that libFuzzer drives, with the stable toolchain, and runs its targets.
//
// The compiler counts edges and comparisons for libFuzzer when LLVM's pass for that is asked for; `cargo fuzz` does no more than that where no
// sanitizer is wanted, and needs an unstable compiler or an installation otherwise. Flags are for the target alone (`--target`): build scripts
// and macros are programs without libFuzzer.
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { packageRoot } from '../support/package-root.js'
import { findingOf, numbersOf, type RunNumbers } from './output.js'

const NATIVE = join(packageRoot, 'native')
const SEEDS = join(NATIVE, 'fuzz', 'seeds')
/** Everything that is made here: the program, corpora that grow from run to run, inputs that broke a promise. */
const WORK = join(NATIVE, 'target', 'fuzz')
export const CRASHES = join(WORK, 'crashes')

/** An input that takes longer does unbounded work. Most take microseconds. */
const INPUT_SECONDS_MAX = 25
const MEMORY_MIB_MAX = 2048
/** A run that has not ended so long after its time is ended. */
const GRACE_MS = 120_000
const OUTPUT_CHARACTERS_MAX = 4 << 20
/** What a failure shows of its input; a larger one is made smaller first. */
export const SHOWN_BYTES_MAX = 512
const SHORTEN_SECONDS = 20
const MINIMISE_SECONDS = 120

const FLAGS = [
  '-Cpasses=sancov-module',
  '-Cllvm-args=-sanitizer-coverage-level=4',
  '-Cllvm-args=-sanitizer-coverage-inline-8bit-counters',
  '-Cllvm-args=-sanitizer-coverage-pc-table',
  '-Cllvm-args=-sanitizer-coverage-trace-compares'
]

/** An input that broke a promise. */
export interface FoundInput {
  path: string
  /** Of the input that failed, or of a smaller one that fails too: at most {@link SHOWN_BYTES_MAX} of them. */
  bytes: Buffer
  /** How many it has. */
  length: number
  /** How many the one in `path` has. */
  lengthFound: number
}

/** What a target came to. `finding` is why it failed, with the input if there is one. */
export interface TargetResult {
  target: string
  numbers: RunNumbers
  seconds: number
  finding?: { reason: string, input?: FoundInput }
}

/** All targets, in the order of their names: each has a file of seeds. */
export function targets (): string[] {
  return readdirSync(SEEDS).filter(name => name.endsWith('.hex')).map(name => name.slice(0, -4)).sort()
}

/** Why the program cannot be built here; null if it can. */
export function missing (): string | null {
  for (const tool of ['cargo', process.env['CXX'] ?? 'c++']) {
    if (spawnSync(tool, ['--version'], { stdio: 'ignore' }).status !== 0) return `${tool} --version does not run here`
  }
  return null
}

/** Builds the program and returns its path. */
export function build (): string {
  const about = spawnSync('rustc', ['-vV'], { encoding: 'utf8' }).stdout ?? ''
  const host = /^host: (\S+)$/m.exec(about)?.[1]
  if (host === undefined) throw new Error('rustc -vV does not name the machine')
  // Not --locked: the lock file of a workspace of its own misses what another crate has got since.
  const { status } = spawnSync('cargo', ['build', '--release', '--quiet', '--target', host], {
    cwd: join(NATIVE, 'fuzz', 'libfuzzer'),
    stdio: 'inherit',
    env: { ...process.env, RUSTFLAGS: FLAGS.join(' '), CARGO_TARGET_DIR: WORK }
  })
  if (status !== 0) throw new Error('the fuzzed program could not be built')
  return join(WORK, host, 'release', 'perigee-libfuzzer')
}

/** Puts the seeds of a target into files, which is how libFuzzer takes them, and returns their directory. */
function unpack (target: string): string {
  const directory = join(WORK, 'seeds', target)
  rmSync(directory, { recursive: true, force: true })
  mkdirSync(directory, { recursive: true })
  const lines = readFileSync(join(SEEDS, `${target}.hex`), 'utf8').split('\n').filter(line => line !== '')
  for (const [at, line] of lines.entries()) {
    const [name = '', digits = ''] = line.split(' ')
    writeFileSync(join(directory, `${at}-${name.replace(/[^\w-]/g, '_')}`), Buffer.from(digits, 'hex'))
  }
  return directory
}

interface Ended { code: number | null, signal: NodeJS.Signals | null, output: string, seconds: number }

function execute (program: string, target: string, args: readonly string[], timeoutMs: number, echo: boolean): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const started = Date.now()
    const child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, PERIGEE_FUZZ_TARGET: target, RUST_BACKTRACE: process.env['RUST_BACKTRACE'] ?? '1' }
    })
    const endWithParent = (): void => { child.kill('SIGKILL') }
    process.once('exit', endWithParent)
    const timer = setTimeout(() => { child.kill('SIGKILL') }, timeoutMs)
    let output = ''
    const take = (text: string): void => {
      output = (output + text).slice(-OUTPUT_CHARACTERS_MAX)
      if (echo) process.stderr.write(text)
    }
    child.stdout.setEncoding('utf8').on('data', take)
    child.stderr.setEncoding('utf8').on('data', take)
    child.once('error', reject)
    child.once('close', (code, signal) => {
      clearTimeout(timer)
      process.off('exit', endWithParent)
      resolve({ code, signal, output, seconds: (Date.now() - started) / 1000 })
    })
  })
}

/** How the runs of some targets go. */
export interface FuzzOptions {
  seconds: number
  jobs: number
  /** Of libFuzzer's choices; drawn by it if absent. */
  seed?: number
  /** Shows everything that libFuzzer prints. */
  echo?: boolean
}

/** Runs one target for some seconds, from its seeds and what earlier runs have found. */
export async function fuzz (program: string, target: string, { seconds, seed, echo = false }: FuzzOptions): Promise<TargetResult> {
  const corpus = join(WORK, 'corpus', target)
  mkdirSync(corpus, { recursive: true })
  mkdirSync(CRASHES, { recursive: true })
  const ended = await execute(program, target, [
    corpus, unpack(target), ...seed === undefined ? [] : [`-seed=${seed}`],
    `-max_total_time=${seconds}`, `-timeout=${INPUT_SECONDS_MAX}`, `-rss_limit_mb=${MEMORY_MIB_MAX}`,
    `-artifact_prefix=${join(CRASHES, `${target}-`)}`, '-print_final_stats=1'
  ], seconds * 1000 + GRACE_MS, echo)
  const numbers = numbersOf(ended.output)
  const result = { target, numbers, seconds: ended.seconds }
  if (ended.code === 0 && numbers.runs > 0) return result
  const how = ended.signal ?? `exit ${ended.code ?? ''}`
  const { reason, artifact } = findingOf(ended.output) ?? { reason: `ended by ${how} after ${numbers.runs} runs\n${ended.output.slice(-2000)}` }
  return { ...result, finding: { reason, ...artifact === undefined ? {} : { input: await shown(program, target, artifact) } } }
}

/** The input that libFuzzer wrote, as a failure shows it. */
export async function shown (program: string, target: string, path: string): Promise<FoundInput> {
  const found = readFileSync(path)
  // Of a panic alone: each attempt at an input that takes too long would take as long.
  const isLarge = found.length > SHOWN_BYTES_MAX && /-crash-\w+$/.test(path)
  const smaller = isLarge ? await minimised(program, target, path, SHORTEN_SECONDS, false) : null
  const bytes = smaller === null ? found : readFileSync(smaller)
  return { path, bytes: bytes.subarray(0, SHOWN_BYTES_MAX), length: bytes.length, lengthFound: found.length }
}

/** The file of a smaller input that fails too; null where none was found in that time. */
async function minimised (program: string, target: string, file: string, seconds: number, echo: boolean): Promise<string | null> {
  const smaller = `${file}.min`
  rmSync(smaller, { force: true })
  await execute(program, target, ['-minimize_crash=1', `-max_total_time=${seconds}`, `-exact_artifact_path=${smaller}`, file], seconds * 1000 + GRACE_MS, echo)
  return existsSync(smaller) ? smaller : null
}

/** Runs one input again. Everything that the program prints is shown. Its exit code is returned. */
export async function reproduce (program: string, target: string, file: string): Promise<number> {
  const { code } = await execute(program, target, [`-timeout=${INPUT_SECONDS_MAX}`, file], 600_000, true)
  return code ?? 1
}

/** Has an input that fails made smaller, which is shown, and says what came of it. */
export async function minimise (program: string, target: string, file: string): Promise<number> {
  const smaller = await minimised(program, target, file, MINIMISE_SECONDS, true)
  console.log(smaller === null ? 'no smaller input was found' : `the smallest input that was found: ${smaller}`)
  return smaller === null ? 1 : 0
}

/** Puts an input that is given in hexadecimal digits into a file. Throws when they are none. */
export function fileOfHex (digits: string, directory = CRASHES): string {
  if (!/^(?:[0-9a-f]{2})*$/i.test(digits)) throw new Error(`${JSON.stringify(digits.slice(0, 80))} is not pairs of hexadecimal digits`)
  const bytes = Buffer.from(digits, 'hex')
  mkdirSync(directory, { recursive: true })
  const path = join(directory, `hex-${createHash('sha256').update(bytes).digest('hex').slice(0, 16)}`)
  writeFileSync(path, bytes)
  return path
}

/** The targets' results as they come, so many at a time. */
export async function fuzzAll (
  program: string, wanted: readonly string[],
  options: FuzzOptions,
  told: (result: TargetResult) => void
): Promise<TargetResult[]> {
  const waiting = [...wanted]
  const results: TargetResult[] = []
  const worker = async (): Promise<void> => {
    for (let target = waiting.shift(); target !== undefined; target = waiting.shift()) {
      const result = await fuzz(program, target, options)
      results.push(result)
      told(result)
    }
  }
  await Promise.all(Array.from({ length: Math.min(options.jobs, wanted.length) }, worker))
  return results
}

export const HEADER = `${'target'.padEnd(18)}${'runs'.padStart(12)}${'a second'.padStart(10)}${'edges'.padStart(8)}${'features'.padStart(10)}${'corpus'.padStart(8)}${'seconds'.padStart(9)}`

/** A line of the table, and what follows it if the target failed. */
export function row (result: TargetResult): string {
  const { target, numbers, seconds, finding } = result
  const line = target.padEnd(18) + String(numbers.runs).padStart(12) + String(numbers.perSecond).padStart(10) +
    String(numbers.coverage).padStart(8) + String(numbers.features).padStart(10) + String(numbers.corpus).padStart(8) + seconds.toFixed(0).padStart(9)
  return finding === undefined ? line : `${line}  FAILED\n    ${failure(result).replaceAll('\n', '\n    ')}`
}

/** Why a target failed, and all that is needed to see it again on another machine. Empty for one that kept its promises. */
export function failure ({ target, numbers, finding }: TargetResult): string {
  if (finding === undefined) return ''
  const lines = [finding.reason]
  const { input } = finding
  if (input === undefined) lines.push(`npm run fuzz -- --seed ${numbers.seed} ${target}`)
  else {
    const digits = input.bytes.toString('hex')
    const from = input.length < input.lengthFound ? `, made smaller from ${input.lengthFound}` : ''
    lines.push(`libFuzzer seed ${numbers.seed}; input of ${input.length} bytes${from}; as it was found: ${relative(packageRoot, input.path)}`)
    if (input.length === input.bytes.length) lines.push(`npm run fuzz -- --reproduce ${target} --hex ${digits === '' ? "''" : digits}`)
    else lines.push(`npm run fuzz -- --reproduce ${target} ${relative(packageRoot, input.path)}`, `its first ${input.bytes.length} bytes: ${digits}`)
  }
  return lines.join('\n')
}

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { basename, dirname, join } from 'node:path'
import { runTest, testsOf, type TestFailure, type TestFile, type TestOutcome } from '../../../udf/harness/test-file.js'
import { ModuleError } from '../../../udf/lua-module.js'
import { FileChanges } from '../file-changes.js'
import { CommandError, UsageError, type Io } from '../io.js'
import { excerpt, MODULE_SUFFIX, modulesBeside, readLuaFile, testPaths } from '../lua-files.js'
import { packageRoot } from '../package-root.js'

export interface TestOptions {
  readonly filter?: string
  readonly json?: boolean
  readonly watch?: boolean
}

interface FileOutcome {
  readonly path: string
  readonly file: TestFile
  /** Why there are no tests to run. */
  readonly problem: TestFailure | null
  readonly tests: readonly TestOutcome[]
}

const FAILED = 1
/** Lines of a failed test's log that are shown, the last ones. */
const LOG_LINES_SHOWN_MAX = 20

export async function test (io: Io, paths: readonly string[], options: TestOptions): Promise<number> {
  const filter = filterOf(options.filter)
  if (options.watch === true) return await testAgainAndAgain(io, paths, options)
  const files = await testPaths(paths)
  const outcomes: FileOutcome[] = []
  for (const path of files) {
    const outcome = await runFile(path, filter)
    outcomes.push(outcome)
    if (options.json !== true && (outcome.tests.length > 0 || outcome.problem !== null)) io.out(render(outcome, io))
  }
  const tests = outcomes.flatMap((outcome) => outcome.tests)
  const failed = tests.filter(({ failure }) => failure !== null).length
  const broken = outcomes.filter(({ problem }) => problem !== null).length
  if (options.json === true) io.out(`${JSON.stringify(asJson(outcomes, tests.length - failed, failed + broken))}\n`)
  else io.out(`${tests.length - failed} passed, ${failed + broken} failed\n`)
  if (tests.length === 0 && broken === 0) throw new CommandError(`no test has a name like ${JSON.stringify(options.filter)}`)
  return failed + broken > 0 ? FAILED : 0
}

function filterOf (text: string | undefined): RegExp {
  try {
    return new RegExp(text ?? '')
  } catch (error) {
    throw new UsageError(`--filter: ${(error as Error).message}`)
  }
}

async function runFile (path: string, filter: RegExp): Promise<FileOutcome> {
  const source = await readLuaFile(path)
  const file: TestFile = { source, modules: await modulesBeside(path) }
  try {
    const names = testsOf(file)
    const problem = names.length > 0 ? null : { file: source.name, line: 0, message: 'there are no tests in it: functions whose names begin with test_' }
    return { path, file, problem, tests: names.filter((name) => filter.test(name)).map((name) => runTest(file, name)) }
  } catch (error) {
    if (!(error instanceof ModuleError)) throw error
    return { path, file, problem: { file: source.name, line: error.line, message: error.message }, tests: [] }
  }
}

function render ({ path, file, problem, tests }: FileOutcome, io: Io): string {
  const [bold, red, green, plain] = io.colours.out ? ['\u001b[1m', '\u001b[31m', '\u001b[32m', '\u001b[0m'] : ['', '', '', '']
  const widest = Math.max(0, ...tests.map(({ name }) => name.length))
  const lines = tests.flatMap(({ name, milliseconds, failure, logged }) => [
    `  ${failure === null ? `${green}ok  ` : `${red}FAIL`}${plain}  ${name.padEnd(widest)}  ${milliseconds.toFixed(1)} ms`,
    ...failure === null ? [] : [...failureLines(failure, file), ...logged.slice(-LOG_LINES_SHOWN_MAX).map(({ module, line, message }) => `log: ${module}:${line}: ${message}`)].map((line) => `        ${line}`)
  ])
  const broken = problem === null ? [] : failureLines(problem, file).map((line, i) => i === 0 ? `  ${red}FAIL${plain}  ${line}` : `        ${line}`)
  return [`${bold}${path}${plain}`, ...broken, ...lines].map((line) => `${line}\n`).join('')
}

function failureLines ({ file: name, line, message }: TestFailure, file: TestFile): string[] {
  const place = name === '' ? '' : `${name}:${line === 0 ? '' : `${line}:`} `
  const content = [file.source, ...file.modules].find((source) => source.name === name)?.content
  return `${place}${message}${excerpt(content, line)}`.split('\n')
}

function asJson (outcomes: readonly FileOutcome[], passed: number, failed: number): object {
  return {
    passed,
    failed,
    tests: outcomes.flatMap(({ path, problem, tests }) => [
      ...problem === null ? [] : [{ path, name: null, passed: false, milliseconds: 0, ...problem, log: [] }],
      ...tests.map(({ name, milliseconds, failure, logged }) => ({
        path, name, passed: failure === null, milliseconds: Number(milliseconds.toFixed(3)), ...failure ?? {}, log: logged.map(({ module, line, message }) => ({ module, line, message }))
      }))
    ])
  }
}

/** Runs the tests in a process of their own, which can be ended whatever they do; what they print goes to `io`. True when all passed. */
export async function passes (io: Io, paths: readonly string[], { filter, json }: TestOptions, signal: AbortSignal): Promise<boolean> {
  const args = ['udf', 'test', ...paths, ...filter === undefined ? [] : ['--filter', filter], ...json === true ? ['--json'] : []]
  const child = spawn(process.execPath, [join(packageRoot(), 'bin/perigee.js'), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'], signal, killSignal: 'SIGKILL', env: { ...io.env, ...io.colours.out ? { FORCE_COLOR: '1' } : {} }
  })
  child.stdout.setEncoding('utf8').on('data', (text: string) => { io.out(text) })
  child.stderr.setEncoding('utf8').on('data', (text: string) => { io.err(text) })
  try {
    const [code] = await once(child, 'close') as [number | null]
    return code === 0
  } catch (error) {
    if (signal.aborted) return false
    throw error
  }
}

async function testAgainAndAgain (io: Io, paths: readonly string[], options: TestOptions): Promise<number> {
  const signal = io.interrupted()
  const changes = new FileChanges((await testPaths(paths)).map(dirname), MODULE_SUFFIX, signal)
  try {
    while (await changes.next()) {
      if (io.isTerminal && options.json !== true) io.out('\u001b[H\u001b[J')
      await passes(io, paths, options, signal)
      if (!signal.aborted && options.json !== true) io.out(`waiting for changes of ${(await testPaths(paths)).map((path) => basename(path)).join(', ')}\n`)
    }
    return 0
  } finally {
    changes.close()
  }
}

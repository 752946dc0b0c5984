// `npm run conformance`: the official client's own test suite against a running node, file by file, compared with the list
// of known gaps. Starts a node of its own unless --host is given.
import { fork } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { NodeProcess, memoryNamespace } from '../support/node-process.js'
import { ensureInstalled } from '../support/official-client.js'
import { packageRoot } from '../support/package-root.js'
import { openSlowLink } from '../support/slow-link.js'
import { defaultReason } from './default-reasons.js'
import { judge, readGaps, updated, writeGaps, type KnownGaps, type Verdict } from './gaps.js'
import { settle, type ChildMessage, type FileOutcome } from './outcome.js'
import { prepareSuite, suiteDirectory } from './suite.js'

const FILE_TIMEOUT_MS = 240_000
/** No test of the suite takes so long without a result. */
const SILENCE_MS_MAX = 60_000
const TEST_TIMEOUT_MS = 10_000
/** Unlisted failures printed a file; the rest is counted. */
const FAILURES_SHOWN_MAX = 40
const FILE_COLUMN = 28

const USAGE = `usage: npm run conformance -- [options]
  --host H --port P   a running server, instead of a node of its own (port 3000 unless given)
  --namespace N       namespace that the suite writes to (test)
  --files a,b         only these files of the suite (get,put,apply ...)
  --grep TEXT         only titles that contain TEXT
  --json              one line of JSON on stdout; everything else on stderr
  --update-gaps       write known-gaps.json anew from this run, keeping its reasons
  --list              print the files of the suite and end`

interface Options {
  host?: string
  port?: string
  namespace: string
  files?: string
  grep?: string
  json: boolean
  'update-gaps': boolean
  list: boolean
}

interface Target { host: string, port: number, suiteOptions?: string }

/** What is measured there are time limits of a millisecond, which a server must not keep: it is put that far away. */
const SLOW_LINK_FILE = 'timeout_delay'
const SLOW_LINK_MS = 100

class UsageError extends Error {}

function parseOptions (): Options {
  try {
    const { values } = parseArgs({
      options: {
        host: { type: 'string' },
        port: { type: 'string' },
        namespace: { type: 'string', default: 'test' },
        files: { type: 'string' },
        grep: { type: 'string' },
        json: { type: 'boolean', default: false },
        'update-gaps': { type: 'boolean', default: false },
        list: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false }
      }
    })
    if (values.help) {
      console.log(USAGE)
      process.exit(0)
    }
    if (values.port !== undefined && values.host === undefined) throw new UsageError('--port needs --host')
    if (values['update-gaps'] && values.grep !== undefined) throw new UsageError('--update-gaps needs whole files: leave --grep out')
    return values
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
}

function chooseFiles (all: readonly string[], wanted: string | undefined, gaps: KnownGaps): string[] {
  const excluded = new Set(gaps.excluded.map(({ file }) => file))
  if (wanted === undefined) return all.filter(file => !excluded.has(file))
  const files = wanted.split(',').map(name => name.trim().replace(/\.[jt]s$/, '')).filter(name => name !== '')
  const unknown = files.filter(file => !all.includes(file))
  if (unknown.length > 0) throw new UsageError(`no such file in the suite: ${unknown.join(', ')}; --list prints them`)
  return files
}

/**
 * One file in a process of its own. The client is native code, and now and then takes its process down in the middle: such a
 * file gets a second try, and the output says so.
 */
async function runFile (file: string, version: string, target: Target, options: Options, say: (line: string) => void): Promise<FileOutcome> {
  const first = await runFileOnce(file, version, target, options)
  if (!first.crashed || !first.results.some(({ state }) => state === 'failed')) return first
  say(`  ${file.padEnd(FILE_COLUMN)} ${first.stopped}; once more`)
  return await runFileOnce(file, version, target, options)
}

function runFileOnce (file: string, version: string, target: Target, { namespace, grep = '' }: Options): Promise<FileOutcome & { crashed: boolean }> {
  const started = Date.now()
  const child = fork(fileURLToPath(new URL('./run-file.js', import.meta.url)), [file, grep, String(TEST_TIMEOUT_MS)], {
    cwd: suiteDirectory,
    // The suite prints what it does; only its results matter here, and its errors when it dies.
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    env: {
      ...process.env,
      OPTIONS: `--host ${target.host} --port ${target.port} --namespace ${namespace}${target.suiteOptions ?? ''}`,
      AEROSPIKE_HOSTS: undefined,
      // The suite expects to be run by npm inside its own package.
      npm_package_version: version
    },
    execArgv: ['--no-warnings']
  })
  const messages: ChildMessage[] = []
  let stopped: string | null = null
  let errors = ''
  const end = (why: string): void => {
    stopped ??= why
    child.kill('SIGKILL')
  }
  const whole = setTimeout(() => { end(`the file did not end within ${FILE_TIMEOUT_MS / 1000} s`) }, FILE_TIMEOUT_MS)
  const silence = setTimeout(() => { end(`nothing happened for ${SILENCE_MS_MAX / 1000} s`) }, SILENCE_MS_MAX)
  const killWithParent = (): void => { child.kill('SIGKILL') }
  process.once('exit', killWithParent)
  child.stderr?.setEncoding('utf8').on('data', (text: string) => { errors = (errors + text).slice(-4_000) })
  child.on('message', message => {
    messages.push(message as ChildMessage)
    silence.refresh()
    // All is said; closing its threads and sockets can hang in the client.
    if ((message as ChildMessage).kind === 'ended') child.kill('SIGKILL')
  })
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => {
      clearTimeout(whole)
      clearTimeout(silence)
      process.off('exit', killWithParent)
      const finished = messages.some(({ kind }) => kind === 'ended' || kind === 'load-failed')
      const crashed = !finished && stopped === null && signal !== null
      if (!finished && stopped === null) {
        const firstError = errors.trim().split('\n').find(line => /error/i.test(line)) ?? ''
        stopped = `the process ended early (${signal ?? `exit ${code}`})${firstError === '' ? '' : `: ${firstError.trim()}`}`
      }
      resolve({ file, results: settle(messages, stopped), durationMs: Date.now() - started, stopped, crashed })
    })
  })
}

interface Counts { passed: number, failed: number, pending: number }

function count ({ results }: FileOutcome): Counts {
  const counts = { passed: 0, failed: 0, pending: 0 }
  for (const { state } of results) counts[state]++
  return counts
}

function describeFile (outcome: FileOutcome, verdict: Verdict): string[] {
  const { passed, failed, pending } = count(outcome)
  const parts = [`${String(passed).padStart(4)} passed`]
  if (verdict.known > 0) parts.push(`${verdict.known} known gaps`)
  if (failed > verdict.known) parts.push(`${failed - verdict.known} FAILED`)
  if (pending > 0) parts.push(`${pending} pending`)
  const unlisted = verdict.unexpected.filter(({ result }) => result.state === 'pending').length
  if (unlisted > 0) parts.push(`${unlisted} of them NOT LISTED`)
  const lines = [`  ${outcome.file.padEnd(FILE_COLUMN)} ${parts.join(', ')}  (${(outcome.durationMs / 1000).toFixed(1)} s)`]
  if (outcome.stopped !== null) lines.push(`      ${outcome.stopped}`)
  let previous: string | undefined
  for (const { result } of verdict.unexpected.slice(0, FAILURES_SHOWN_MAX)) {
    lines.push(`      ${result.state === 'pending' ? 'pending, and not listed' : 'failed'}: ${result.title}`)
    // What stopped a whole file is said once.
    if (result.error !== undefined && result.error !== previous) lines.push(`              ${result.error}`)
    previous = result.error
  }
  const rest = verdict.unexpected.length - FAILURES_SHOWN_MAX
  if (rest > 0) lines.push(`      ... and ${rest} more`)
  for (const { title } of verdict.closed) lines.push(`      passes, remove it from known-gaps.json: ${title}`)
  for (const { title } of verdict.vanished) lines.push(`      no such title, remove it from known-gaps.json: ${title}`)
  return lines
}

async function startNode (namespace: string): Promise<NodeProcess> {
  return await NodeProcess.start({ name: 'conformance', namespaces: [memoryNamespace(namespace)] })
}

/** Runs a file against a node of its own that clients reach over a slow link only. */
async function runOverSlowLink (file: string, version: string, options: Options, say: (line: string) => void): Promise<FileOutcome> {
  const node = await NodeProcess.create({ name: 'conformance-slow', namespaces: [memoryNamespace(options.namespace)] })
  const link = await openSlowLink(node.port, SLOW_LINK_MS)
  try {
    node.configure({ networkService: { 'access-port': link.port } })
    await node.start()
    return await runFile(file, version, { host: '127.0.0.1', port: link.port, suiteOptions: ' --testTimeoutDelay true' }, options, say)
  } finally {
    await link.close()
    await node.dispose()
  }
}

async function main (): Promise<void> {
  const options = parseOptions()
  const say = (line: string): void => { if (options.json) console.error(line); else console.log(line) }
  const gapsPath = join(packageRoot, 'test/conformance/known-gaps.json')
  const gaps = readGaps(gapsPath)
  ensureInstalled(say)
  const all = prepareSuite(say)
  if (options.list) {
    for (const file of all) console.log(file)
    return
  }
  const files = chooseFiles(all, options.files, gaps)
  const { version } = JSON.parse(readFileSync(join(suiteDirectory, 'package.json'), 'utf8')) as { version: string }

  let node: NodeProcess | null = options.host === undefined ? await startNode(options.namespace) : null
  const target = (): Target => node === null
    ? { host: options.host as string, port: Number(options.port ?? 3000) }
    : { host: '127.0.0.1', port: node.port }
  say(`the suite of the official client ${version} against ${target().host}:${target().port}, ${files.length} files`)

  const outcomes: FileOutcome[] = []
  const complete = options.grep === undefined
  const nodeEnded: string[] = []
  for (const file of files) {
    const run = (): Promise<FileOutcome> => node !== null && file === SLOW_LINK_FILE
      ? runOverSlowLink(file, version, options, say)
      : runFile(file, version, target(), options, say)
    let outcome = await run()
    // What goes wrong in its hooks by chance takes the titles behind it along.
    const isFlaky = gaps.gaps.some(group => group.file === file && group.flaky === true)
    if (isFlaky && judge([outcome], gaps, complete).unexpected.length > 0) {
      say(`  ${file.padEnd(FILE_COLUMN)} failed, and depends on timing; once more`)
      outcome = await run()
    }
    outcomes.push(outcome)
    for (const line of describeFile(outcome, judge([outcome], gaps, complete))) say(line)
    if (node !== null && !node.running) {
      const { code, signal } = await node.exited()
      nodeEnded.push(file)
      say(`      the node ended (${signal ?? `exit ${code}`}) during this file; starting another\n${node.tail()}`)
      await node.dispose()
      node = await startNode(options.namespace)
    }
  }
  if (node !== null) {
    try {
      await node.stop()
    } finally {
      await node.dispose()
    }
  }

  if (options['update-gaps']) {
    writeGaps(gapsPath, updated(gaps, outcomes, defaultReason))
    say('wrote test/conformance/known-gaps.json')
  }
  report(options, outcomes, judge(outcomes, options['update-gaps'] ? readGaps(gapsPath) : gaps, complete), gaps, nodeEnded, say)
}

function report (options: Options, outcomes: FileOutcome[], verdict: Verdict, gaps: KnownGaps, nodeEnded: string[], say: (line: string) => void): void {
  const total = { passed: 0, failed: 0, pending: 0 }
  for (const outcome of outcomes) {
    const counts = count(outcome)
    total.passed += counts.passed
    total.pending += counts.pending
    total.failed += counts.failed
  }
  const failed = total.failed - verdict.known
  const unlisted = verdict.unexpected.length - failed
  // Another server may lack what the suite asks for before it runs a title.
  const stale = verdict.closed.length + verdict.vanished.length + (options.host === undefined ? unlisted : 0)
  if (options.files === undefined) for (const { file, reason } of gaps.excluded) say(`  ${file.padEnd(FILE_COLUMN)} not run: ${reason}`)
  if (stale > 0) say(`the list of known gaps does not fit ${stale} titles, which are named above; mend it, or run with --update-gaps`)
  if (nodeEnded.length > 0) say(`the node ended by itself during: ${nodeEnded.join(', ')}`)
  say(`conformance: ${total.passed} passed, ${failed} failed, ${total.pending} pending, ${verdict.known} known gaps`)
  if (options.json) {
    console.log(JSON.stringify({
      passed: total.passed,
      failed: failed + stale + nodeEnded.length,
      pending: total.pending,
      known_gaps: verdict.known,
      files: outcomes.map(outcome => ({ file: outcome.file, ...count(outcome), duration_ms: outcome.durationMs })),
      unexpected: verdict.unexpected.map(({ file, result }) => ({ file, ...result })),
      closed: verdict.closed,
      vanished: verdict.vanished,
      node_ended_during: nodeEnded
    }))
  }
  const nothingRan = total.passed + total.failed + total.pending === 0
  if (nothingRan) say('no title ran')
  process.exitCode = failed + stale + nodeEnded.length > 0 || nothingRan ? 1 : 0
}

try {
  await main()
} catch (error) {
  console.error(`conformance: ${error instanceof Error ? error.message : String(error)}`)
  if (error instanceof UsageError) console.error(USAGE)
  process.exitCode = error instanceof UsageError ? 2 : 1
}

// Runs one file of the suite with mocha in this process and sends what happens to the parent as it happens, so that a file
// that hangs or takes the process down still leaves the results it had.
//
// node run-file.js <file without ending> <grep or ''> <timeout of one test, ms>; OPTIONS holds the suite's own options.
import { join } from 'node:path'
import { requireOfficial } from '../support/official-client.js'
import { TitleNumbers, type ChildMessage } from './outcome.js'
import { suiteDirectory } from './suite.js'

interface MochaTest { fullTitle (): string, pending: boolean, type: string }
interface MochaSuite { suites: MochaSuite[], tests: MochaTest[] }
interface MochaRunner {
  on (event: 'pass' | 'pending', listener: (test: MochaTest) => void): void
  on (event: 'fail', listener: (test: MochaTest, error: unknown) => void): void
  grepTotal (suite: MochaSuite): number
}
interface MochaInstance {
  suite: MochaSuite & {
    once (event: 'pre-require', listener: () => void): void
    beforeAll (title: string, hook: (this: { timeout (ms: number): void }) => Promise<void>): void
  }
  addFile (path: string): void
  loadFiles (): void
  grep (expression: RegExp): void
  run (ended: (failures: number) => void): MochaRunner
}
type MochaClass = new (options: object) => MochaInstance

const CONNECT_TIMEOUT_MS = 15_000
const CONNECT_POLL_MS = 20

function send (message: ChildMessage): Promise<void> {
  return new Promise(resolve => {
    if (process.send === undefined) throw new Error('run-file.js is started by main.js')
    process.send(message, () => { resolve() })
  })
}

function firstLine (error: unknown): string {
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  return text.split('\n')[0] as string
}

/**
 * The suite's helper starts to connect in a root hook but does not wait for it: run all together, only the first file races
 * with that; run one by one, every file would. So wait until its client is connected and it knows what it is talking to.
 */
function waitForHelper (mocha: MochaInstance): void {
  const helperPath = join(suiteDirectory, 'test/test_helper.js')
  const loaded = requireOfficial.cache[helperPath]
  if (loaded === undefined) return
  const { client, cluster } = loaded.exports as {
    client: { isConnected (checkTend: boolean): boolean }
    cluster: { build: string, namespaceInfo: { config?: unknown } }
  }
  mocha.suite.beforeAll('wait until the suite\'s client is connected', async function () {
    this.timeout(CONNECT_TIMEOUT_MS)
    while (!client.isConnected(false) || cluster.build === '' || cluster.namespaceInfo.config === undefined) {
      await new Promise(resolve => setTimeout(resolve, CONNECT_POLL_MS))
    }
  })
}

/** Two files are skipped before every server, for the reason that old ones lack what they test: ours is asked for its version instead. */
function liftSkips (): void {
  const helper = requireOfficial(join(suiteDirectory, 'test/test_helper.js')) as {
    skip (context: unknown, message: string): void
    skipUnlessVersion (range: string, context: unknown): void
  }
  const skip = helper.skip
  helper.skip = (context, message) => {
    const version = /requires? server version (\d[\d.]*)/.exec(message)?.[1]
    if (version === undefined) skip(context, message)
    else helper.skipUnlessVersion(`>= ${version}`, context)
  }
}

async function main (): Promise<void> {
  const [file = '', grep = '', timeout = '10000'] = process.argv.slice(2)
  process.chdir(suiteDirectory)
  const Mocha = requireOfficial('mocha') as MochaClass
  const pendingSends: Array<Promise<void>> = []
  const report = (message: ChildMessage): void => { pendingSends.push(send(message)) }

  // Results are reported by the listeners below; the reporter has nothing to print.
  const mocha = new Mocha({ timeout: Number(timeout), reporter: class {} })
  if (grep !== '') mocha.grep(new RegExp(grep.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')))
  // Files that do not import the suite's helper still count on the global that it sets.
  Object.assign(globalThis, { expect: (requireOfficial('chai') as { expect: unknown }).expect })
  mocha.addFile(join(suiteDirectory, 'test', `${file}.js`))
  // Once mocha's functions are there, which the suite's helper calls when it is loaded.
  mocha.suite.once('pre-require', liftSkips)
  try {
    mocha.loadFiles()
  } catch (error) {
    await send({ kind: 'load-failed', error: firstLine(error) })
    process.exit(0)
  }
  waitForHelper(mocha)
  // As mocha's own command line does: an unhandled rejection fails the test that is running.
  process.on('unhandledRejection', reason => { throw reason })

  const names = new Map<MochaTest, string>()
  const numbers = new TitleNumbers()
  const name = (suite: MochaSuite): void => {
    for (const test of suite.tests) names.set(test, numbers.unique(test.fullTitle()))
    for (const inner of suite.suites) name(inner)
  }
  name(mocha.suite)
  const nameOf = (test: MochaTest): string => names.get(test) ?? new TitleNumbers().unique(test.fullTitle())
  const wanted = [...names.values()].filter(title => grep === '' || title.includes(grep))
  report({ kind: 'planned', titles: wanted })
  if (wanted.length === 0) {
    await send({ kind: 'ended' })
    process.exit(0)
  }

  const runner = mocha.run(() => {
    void (async () => {
      await Promise.all(pendingSends)
      await send({ kind: 'ended' })
      // The client keeps threads and handles open; the suite relies on being ended.
      process.exit(0)
    })()
  })
  const result = (test: MochaTest, state: 'passed' | 'failed' | 'pending', error?: unknown): void => {
    report({ kind: 'result', result: { title: nameOf(test), state, ...(error === undefined ? {} : { error: firstLine(error) }) } })
  }
  runner.on('pass', test => { result(test, 'passed') })
  runner.on('pending', test => { result(test, 'pending') })
  runner.on('fail', (test, error) => {
    if (test.type === 'hook') report({ kind: 'hook-failed', title: nameOf(test), error: firstLine(error) })
    else result(test, 'failed', error)
  })
}

await main()

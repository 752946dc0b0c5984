// One node for a measurement: its configuration, its process, its log, and an end to all of it.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { infoOnce } from '../dist/src/client/index.js'

export const root = join(dirname(fileURLToPath(import.meta.url)), '..')
export const benchProgram = join(root, 'native/target/release/perigee-bench')

const START_MS_MAX = 600_000
const ANSWER_MS_MAX = 2000
const POLL_MS = 5

/** A directory in `parent` that is removed when the process ends. */
export function scratchDirectory (parent) {
  mkdirSync(parent, { recursive: true })
  const directory = mkdtempSync(join(parent, 'perigee-measure-'))
  process.on('exit', () => rmSync(directory, { recursive: true, force: true, maxRetries: 3 }))
  return directory
}

/** Where the nodes of a measurement keep their shared memory, on a file system that is memory if there is one. */
export function sharedDirectory (directory) {
  return existsSync('/dev/shm') ? scratchDirectory('/dev/shm') : join(directory, 'shared')
}

export function freePort () {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })
}

export class ScratchNode {
  #child
  #ended = Promise.resolve()

  /** `config` is the text of the file; `network` is added to it. `nodeArguments` are for Node.js itself. */
  constructor (directory, port, config, { nodeArguments = [] } = {}) {
    this.directory = directory
    this.nodeArguments = nodeArguments
    this.port = port
    this.configPath = join(directory, 'perigee.yaml')
    this.logPath = join(directory, 'log')
    mkdirSync(join(directory, 'work'), { recursive: true })
    writeFileSync(this.configPath, `${config}\nnetwork: { service: { address: 127.0.0.1, port: ${port} } }\n`)
    process.on('exit', () => this.#child?.kill('SIGKILL'))
  }

  get pid () {
    return this.#child.pid
  }

  get log () {
    return readFileSync(this.logPath, 'utf8')
  }

  /** Starts the process; resolves to its start in performance.now() at once. */
  begin () {
    writeFileSync(this.logPath, '')
    const started = performance.now()
    const child = spawn('sh', ['-c', 'exec "$@" > "$LOG" 2>&1', 'sh', process.execPath, ...this.nodeArguments, join(root, 'bin/perigee.js'), 'serve', '--config', this.configPath],
      { env: { ...process.env, LOG: this.logPath }, stdio: 'ignore' })
    this.#child = child
    this.#ended = new Promise((resolve) => child.once('close', () => {
      if (this.#child === child) this.#child = undefined
      resolve()
    }))
    return started
  }

  /** Resolves when `look` resolves to something other than undefined; with the time since `started` in ms. */
  async until (started, look) {
    while (performance.now() - started < START_MS_MAX) {
      if (this.#child === undefined) throw new Error(`the node ended:\n${this.log}`)
      const found = await look().catch(() => undefined)
      if (found !== undefined) return performance.now() - started
      await sleep(POLL_MS)
    }
    throw new Error(`the node did not start:\n${this.log}`)
  }

  /** Starts and waits until records are served. */
  async start () {
    return this.until(this.begin(), () => serves(this.port))
  }

  async end (signal) {
    this.#child?.kill(signal)
    await this.#ended
  }
}

/** True when records are served: the port is open before that. */
async function serves (port) {
  const answers = await infoOnce({ host: '127.0.0.1', port, connectTimeoutMs: ANSWER_MS_MAX }, ['status'], ANSWER_MS_MAX)
  return answers.get('status') === 'ok' ? true : undefined
}

/** Runs perigee-bench and resolves to its JSON. */
export async function bench (args) {
  const child = spawn(benchProgram, [...args, '--json'], { stdio: ['ignore', 'pipe', 'pipe'] })
  let [out, err] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text) => { out += text })
  child.stderr.setEncoding('utf8').on('data', (text) => { err += text })
  const code = await new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  if (out.trim() === '') throw new Error(`perigee-bench ${args.join(' ')}: exit ${code}: ${err.trim()}`)
  const report = JSON.parse(out)
  if (code !== 0) throw new Error(`perigee-bench ${args.join(' ')}: errors ${JSON.stringify(report.errors)}`)
  return report
}

/** Whether a program runs here at all. */
export function runs (command, args) {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0
}

export function median (values) {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** Numbers by name from `--name value` arguments; anything else is refused. */
export function options (usage, defaults) {
  const values = { ...defaults }
  const args = process.argv.slice(2)
  for (let i = 0; i < args.length; i += 2) {
    const name = args[i].replace(/^--/, '')
    const wanted = defaults[name]
    const given = args[i + 1]
    const value = typeof wanted === 'number' ? Number(given) : given
    if (wanted === undefined || given === undefined || Number.isNaN(value)) {
      console.error(usage)
      process.exit(args[i] === '--help' ? 0 : 2)
    }
    values[name] = value
  }
  return values
}

/** Ends the process with a line when the measurement cannot be done. */
export async function main (body) {
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(130))
  try {
    await body()
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error))
    process.exitCode = 1
  }
}

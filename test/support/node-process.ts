// One real node in a process of its own: `perigee serve` on free loopback ports, with its files in a temporary directory.
// It can be stopped the polite way, killed without warning, and started again on the same files and ports.
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { stringify } from 'yaml'
import { packageRoot, perigeeProgram } from './package-root.js'
import { freePort } from './ports.js'
import { removeTempDirectory, tempDirectory } from './temp.js'
import { rawInfo } from './wire.js'

const LOG_LINES_MAX = 4_000
const LOG_LINES_SHOWN_MAX = 60
const READY_POLL_MS = 40

/** A configuration as it is written to YAML; the schema in config/ is the judge of it. */
export type YamlValue = string | number | boolean | null | YamlValue[] | { [key: string]: YamlValue }
export interface YamlMap { [key: string]: YamlValue }

export interface NodeOptions {
  /** Shows in log output, directory names and error messages. */
  name?: string
  /** Namespaces as in the configuration. Absent: one in memory called `test`. */
  namespaces?: YamlMap[] | ((directory: string) => YamlMap[])
  /** The `xdr` section, or a function of the node's directory. */
  xdr?: YamlMap | ((directory: string) => YamlMap)
  /** Merged into the `service` section. */
  service?: YamlMap
  /** The `mod-lua` section. */
  modLua?: YamlMap
  /** Merged into the `network.service` section. */
  networkService?: YamlMap
  /** The `network.tls` section. */
  tls?: YamlValue[]
  port?: number
  readyTimeoutMs?: number
  env?: NodeJS.ProcessEnv
}

export interface Exit { code: number | null, signal: NodeJS.Signals | null }

/** A namespace in memory. */
export function memoryNamespace (name = 'test', more: YamlMap = {}): YamlMap {
  return { name, 'storage-engine': { type: 'memory', 'data-size': '1G' }, ...more }
}

/** A namespace in one file of the node's directory. */
export function fileNamespace (directory: string, { name = 'test', filesize = '256M', storage = {}, more = {} }: {
  name?: string, filesize?: string, storage?: YamlMap, more?: YamlMap
} = {}): YamlMap {
  return {
    name,
    'storage-engine': { type: 'device', files: [join(directory, `${name}.dat`)], filesize, ...storage },
    ...more
  }
}

export class NodeProcess {
  readonly name: string
  readonly directory: string
  readonly port: number
  readonly configPath: string
  #options: NodeOptions
  #child: ChildProcess | null = null
  #exit: Promise<Exit> = Promise.resolve({ code: 0, signal: null })
  #log: string[] = []

  private constructor (options: NodeOptions, directory: string, port: number) {
    this.#options = options
    this.name = options.name ?? 'node'
    this.directory = directory
    this.port = port
    this.configPath = join(directory, 'perigee.yaml')
  }

  /** Starts a node and resolves when it answers; rejects with its last log lines otherwise. */
  static async start (options: NodeOptions = {}): Promise<NodeProcess> {
    const node = await NodeProcess.create(options)
    await node.start()
    return node
  }

  /** A node with its ports and directory, not started yet; two nodes that name each other need that. */
  static async create (options: NodeOptions = {}): Promise<NodeProcess> {
    return new NodeProcess(options, tempDirectory(options.name ?? 'node'), options.port ?? await freePort())
  }

  get pid (): number {
    if (this.#child?.pid === undefined) throw new Error(`${this.name} is not running`)
    return this.#child.pid
  }

  get running (): boolean {
    return this.#child !== null
  }

  /** Everything the node has written to stdout and stderr, the oldest lines dropped. */
  get log (): string {
    return this.#log.join('\n')
  }

  /** Changes the options of the next start. */
  configure (options: Partial<NodeOptions>): void {
    this.#options = { ...this.#options, ...options }
  }

  async start (): Promise<void> {
    if (this.#child !== null) throw new Error(`${this.name} is running already`)
    this.#writeConfig()
    const child = spawn(process.execPath, [perigeeProgram, 'serve', '--config', this.configPath], {
      cwd: packageRoot,
      env: { ...process.env, NODE_TEST_CONTEXT: undefined, ...this.#options.env },
      stdio: ['ignore', 'pipe', 'pipe']
    })
    this.#child = child
    const killWithParent = (): void => { child.kill('SIGKILL') }
    process.once('exit', killWithParent)
    this.#exit = new Promise(resolve => {
      child.once('error', error => { this.#remember(`could not start: ${error.message}`) })
      child.once('close', (code, signal) => {
        process.off('exit', killWithParent)
        if (this.#child === child) this.#child = null
        resolve({ code, signal })
      })
    })
    for (const stream of [child.stdout, child.stderr]) {
      let rest = ''
      stream.setEncoding('utf8')
      stream.on('data', (text: string) => {
        const lines = (rest + text).split('\n')
        rest = lines.pop() ?? ''
        for (const line of lines) this.#remember(line)
      })
      stream.on('end', () => { if (rest !== '') this.#remember(rest) })
    }
    await this.#untilReady(this.#options.readyTimeoutMs ?? 30_000)
  }

  /** SIGTERM and wait. A node that has not ended in time is killed, and that is an error. */
  async stop (timeoutMs = 20_000): Promise<Exit> {
    const child = this.#child
    if (child === null) return await this.#exit
    child.kill('SIGTERM')
    const ended = await Promise.race([this.#exit, sleep(timeoutMs, null, { ref: false })])
    if (ended !== null) return ended
    child.kill('SIGKILL')
    await this.#exit
    throw new Error(`${this.name} did not end within ${timeoutMs} ms of SIGTERM\n${this.tail()}`)
  }

  /** kill -9: nothing in the process gets to finish. */
  async kill (): Promise<void> {
    this.#child?.kill('SIGKILL')
    await this.#exit
  }

  /** Stops politely and starts on the same files and port. */
  async restart (): Promise<void> {
    await this.stop()
    await this.start()
  }

  /** Ends the node however it stands and removes its directory. Call it when a test is over. */
  async dispose (): Promise<void> {
    await this.kill()
    removeTempDirectory(this.directory)
  }

  /** Resolves with how the process ended. */
  exited (): Promise<Exit> {
    return this.#exit
  }

  info (command: string): Promise<string> {
    return rawInfo(this.port, command)
  }

  /** The last lines of the log, for error messages. */
  tail (): string {
    const lines = this.#log.slice(-LOG_LINES_SHOWN_MAX)
    return [`--- log of ${this.name} (last ${lines.length} lines) ---`, ...lines, '---'].join('\n')
  }

  #remember (line: string): void {
    this.#log.push(line)
    if (this.#log.length > LOG_LINES_MAX) this.#log.splice(0, this.#log.length - LOG_LINES_MAX)
  }

  #writeConfig (): void {
    const { namespaces = [memoryNamespace()], xdr, service = {}, modLua = {}, networkService = {}, tls = [] } = this.#options
    const work = join(this.directory, 'work')
    mkdirSync(work, { recursive: true })
    const config: YamlMap = {
      service: { 'work-directory': work, 'shmem-directory': join(this.directory, 'shmem'), ...service },
      network: { service: { address: '127.0.0.1', port: this.port, ...networkService }, tls },
      'mod-lua': modLua,
      namespaces: typeof namespaces === 'function' ? namespaces(this.directory) : namespaces
    }
    if (xdr !== undefined) config.xdr = typeof xdr === 'function' ? xdr(this.directory) : xdr
    writeFileSync(this.configPath, stringify(config))
  }

  async #untilReady (timeoutMs: number): Promise<void> {
    const deadline = Date.now() + timeoutMs
    while (Date.now() < deadline) {
      if (this.#child === null) {
        const { code, signal } = await this.#exit
        throw new Error(`${this.name} ended while starting (${signal ?? `exit ${code}`})\n${this.tail()}`)
      }
      try {
        const [status, generation] = [await rawInfo(this.port, 'status', 2_000), await rawInfo(this.port, 'partition-generation', 2_000)]
        if (status === 'ok' && Number(generation) >= 0) return
      } catch {
        // Nobody listens yet, or the info lane is not open yet.
      }
      await sleep(READY_POLL_MS)
    }
    const tail = this.tail()
    await this.kill()
    throw new Error(`${this.name} did not answer on port ${this.port} within ${timeoutMs} ms\n${tail}`)
  }
}

/** Runs `body`, and when it fails puts the nodes' logs on stderr before the error goes on. */
export async function showingLogs<T> (nodes: readonly NodeProcess[], body: () => Promise<T>): Promise<T> {
  try {
    return await body()
  } catch (error) {
    for (const node of nodes) console.error(node.tail())
    throw error
  }
}

// One datacenter of the quickstart: a `perigee serve` process, its files in a directory of its own, its log in a file there.
import { fork, type ChildProcess } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'

const PROGRAM = fileURLToPath(new URL('../../../bin/perigee.js', import.meta.url))
const END_WITH_PARENT = new URL('./end-with-parent.js', import.meta.url).href
const STOP_TIMEOUT_MS = 15_000
const LOG_LINES_SHOWN = 15

export const ADDRESS = '127.0.0.1'

/** A message for the user, without a stack. */
export class QuickstartError extends Error {}

/** Resolves when nobody listens on the port; rejects with what to do about it. */
export async function assertPortFree (port: number, allPorts: readonly number[]): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const server = createServer()
    server.once('error', (error: NodeJS.ErrnoException) => {
      const what = error.code === 'EADDRINUSE' ? 'is taken by another program' : `cannot be used (${error.code ?? error.message})`
      reject(new QuickstartError(
        `port ${port} ${what}; the quickstart needs ${allPorts.join(' and ')}. ` +
        'Stop what listens there, or choose others: --base-port N uses N and N + 1000'))
    })
    server.listen({ host: ADDRESS, port, exclusive: true }, () => { server.close(() => { resolve() }) })
  })
}

export class Site {
  readonly logPath: string
  readonly configPath: string
  #child: ChildProcess
  #ended: Promise<string>
  #stopping = false

  private constructor (readonly name: string, readonly port: number, directory: string, config: object) {
    mkdirSync(directory, { recursive: true })
    this.logPath = join(directory, 'perigee.log')
    this.configPath = join(directory, 'perigee.yaml')
    writeFileSync(this.configPath, `# Written by the quickstart at each start.\n${stringify(config)}`)
    const log = openSync(this.logPath, 'w')
    this.#child = fork(PROGRAM, ['serve', '--config', this.configPath], {
      execArgv: ['--import', END_WITH_PARENT],
      stdio: ['ignore', log, log, 'ipc']
    })
    closeSync(log)
    this.#ended = new Promise(resolve => {
      this.#child.once('error', error => { resolve(error.message) })
      this.#child.once('exit', (code, signal) => { resolve(signal ?? `exit ${code}`) })
    })
  }

  static start (name: string, port: number, directory: string, config: object): Site {
    return new Site(name, port, directory, config)
  }

  /** Polls `answers` until it is true; rejects when the node ends first or is too slow. */
  async ready (answers: () => Promise<boolean>, timeoutMs: number): Promise<void> {
    const deadline = Date.now() + timeoutMs
    for (;;) {
      const ended = await Promise.race([this.#ended, sleep(50, null)])
      if (ended !== null) throw new QuickstartError(`${this.name} ended while starting (${ended}).\n${this.#tail()}`)
      try {
        if (await answers()) return
      } catch {
        // Not listening yet.
      }
      if (Date.now() > deadline) throw new QuickstartError(`${this.name} did not answer on port ${this.port} in ${timeoutMs / 1000} s.\n${this.#tail()}`)
    }
  }

  /** Rejects when the node ends without having been stopped. */
  async failed (): Promise<never> {
    const ended = await this.#ended
    if (this.#stopping) return await new Promise<never>(() => { /* Asked for, so nothing failed. */ })
    throw new QuickstartError(`${this.name} ended by itself (${ended}).\n${this.#tail()}`)
  }

  async stop (): Promise<void> {
    this.#stopping = true
    this.#child.kill('SIGTERM')
    const ended = await Promise.race([this.#ended, sleep(STOP_TIMEOUT_MS, null, { ref: false })])
    if (ended !== null) return
    this.#child.kill('SIGKILL')
    await this.#ended
  }

  #tail (): string {
    const log = readFileSync(this.logPath, 'utf8').trimEnd()
    if (log === '') return `${this.logPath} is empty.`
    const lines = log.split('\n').slice(-LOG_LINES_SHOWN)
    return `The end of ${this.logPath}:\n${lines.map(line => `  ${line}`).join('\n')}`
  }
}

import { createHash } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { FileChanges } from '../file-changes.js'
import type { Io } from '../io.js'
import { MODULE_SUFFIX, modulePaths, readLuaFile, testBeside, type LuaFile } from '../lua-files.js'
import { endpointOf, timeoutOf, type TargetOptions } from '../target.js'
import { passes } from './udf-test.js'
import { refusalText, register, type Refusal } from './udf.js'

export interface UdfWatchOptions extends TargetOptions {
  readonly test?: boolean
}

/** A node that could not be asked is asked again after this long. */
const RETRY_MS = 1000

type Event =
  | { event: 'watching', modules: string[] }
  | { event: 'registered', module: string }
  | { event: 'refused', module: string, line?: number, message: string }
  | { event: 'tests-failed', module: string }
  | { event: 'gone', module: string }
  | { event: 'unreachable', module: string, message: string }

export async function watch (io: Io, paths: readonly string[], options: UdfWatchOptions): Promise<void> {
  endpointOf(options)
  timeoutOf(options)
  const signal = io.interrupted()
  const first = await modulePaths(paths)
  const folders = await Promise.all(paths.map(async (path) => (await stat(path)).isDirectory() ? path : dirname(path)))
  const changes = new FileChanges(folders, MODULE_SUFFIX, signal)
  const watched = new Watched(io, options, signal)
  let retry: NodeJS.Timeout | undefined
  try {
    watched.tell({ event: 'watching', modules: first.map((path) => basename(path)) })
    while (await changes.next()) {
      clearTimeout(retry)
      if (!await watched.bringUp(await presentPaths(paths, watched.paths))) retry = setTimeout(() => { changes.tell() }, RETRY_MS)
    }
  } finally {
    clearTimeout(retry)
    changes.close()
  }
}

/** What there is now; a file that an editor is about to put back, or a folder without modules, is no reason to end. */
async function presentPaths (paths: readonly string[], known: Iterable<string>): Promise<Set<string>> {
  const found = await Promise.all(paths.map(async (path) => await modulePaths([path]).catch(() => [])))
  const present = await Promise.all([...known].map(async (path) => await stat(path).then(() => [path], () => [])))
  return new Set([...found.flat(), ...present.flat()])
}

class Watched {
  readonly #io: Io
  readonly #options: UdfWatchOptions
  readonly #signal: AbortSignal
  /** By path: what was last brought to an end, well or not. */
  readonly #done = new Map<string, string>()
  /** Modules whose node could not be asked, so that it is said once. */
  readonly #unreachable = new Set<string>()

  constructor (io: Io, options: UdfWatchOptions, signal: AbortSignal) {
    this.#io = io
    this.#options = options
    this.#signal = signal
  }

  get paths (): Iterable<string> {
    return this.#done.keys()
  }

  /** Registers what is new or has changed; false when a node could not be asked. */
  async bringUp (paths: ReadonlySet<string>): Promise<boolean> {
    for (const path of [...this.#done.keys()].filter((known) => !paths.has(known))) {
      this.#done.delete(path)
      this.tell({ event: 'gone', module: basename(path) })
    }
    let reached = true
    for (const path of paths) {
      if (this.#signal.aborted) break
      reached = await this.#bringUpOne(path) && reached
    }
    return reached
  }

  async #bringUpOne (path: string): Promise<boolean> {
    const file = await readLuaFile(path).catch(() => undefined)
    if (file === undefined) return true
    const tests = this.#options.test === true ? await readLuaFile(testBeside(path)).catch(() => undefined) : undefined
    const state = createHash('sha256').update(file.content).update('\0').update(tests?.content ?? '').digest('hex')
    if (this.#done.get(path) === state) return true
    const module = file.name
    if (tests !== undefined && !await passes(this.#io, [path], this.#options, this.#signal)) {
      this.#done.set(path, state)
      if (!this.#signal.aborted) this.tell({ event: 'tests-failed', module })
      return true
    }
    let refusal: Refusal | undefined
    try {
      refusal = await register(this.#options, module, file.content)
    } catch (error) {
      if (!(error instanceof Error)) throw error
      if (!this.#unreachable.has(path)) this.tell({ event: 'unreachable', module, message: error.message })
      this.#unreachable.add(path)
      return false
    }
    this.#done.set(path, state)
    this.#unreachable.delete(path)
    this.tell(refusal === undefined ? { event: 'registered', module } : { event: 'refused', module, ...refusal }, file)
    return true
  }

  tell (event: Event, file?: LuaFile): void {
    if (this.#options.json === true) return this.#io.out(`${JSON.stringify(event)}\n`)
    switch (event.event) {
      case 'watching': return this.#io.out(`watching ${event.modules.join(', ')}; Ctrl-C ends\n`)
      case 'registered': return this.#io.out(`registered ${event.module}\n`)
      case 'refused': return this.#io.out(`${refusalText(event.module, event, file?.content)}\n`)
      case 'tests-failed': return this.#io.out(`${event.module} is not registered: its tests fail\n`)
      case 'gone': return this.#io.out(`${event.module} is gone; the node keeps what it has\n`)
      case 'unreachable': return this.#io.out(`${event.module} is not registered yet: ${event.message}\n`)
    }
  }
}

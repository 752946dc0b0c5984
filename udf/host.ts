// The Lua host on the main thread: owns the module store and the worker threads.
//
//   modules     a change is prepared by every worker, then stored, then brought into force by one number in shared memory: every
//               task that starts from then on, wherever, runs in the new version; a change that does not get there leaves no trace
//   watchdog    a worker that sits on a task past its deadline (a library call that never looks at the clock) is terminated,
//               what it held is failed by the engine, and a new thread takes its number
//   quarantine  a module during whose load a thread died or was terminated is not loaded again: a put of it is refused, one that
//               was on disk stays there and its functions answer with the reason
//   statistics  rows that the workers count in, see statistics.ts

import { Worker } from 'node:worker_threads'
import { loadAllowanceMs } from './compile-check.js'
import { UdfError } from './errors.js'
import { CALL_MEMORY_BYTES_DEFAULT } from './limits.js'
import { checkModuleName, ModuleStore } from './module-store.js'
import type { ModuleInfo } from './module-store.js'
import type { UdfNative } from './native.js'
import { Progress } from './protocol.js'
import type { FromWorker, LoadProblem, ModuleSource, ModuleToLoad, ToWorker, WorkerData } from './protocol.js'
import { HostStatistics } from './statistics.js'
import type { FunctionStatistics } from './statistics.js'
import { LogLevel } from './vm.js'

const WATCHDOG_MS = 100
/** A worker looks at the clock itself; only one that has not done so for this long past the deadline is stuck. */
const OVERDUE_GRACE_MS = 250
/** At the start all threads load all modules at once, perhaps on fewer cores. */
const START_LOAD_FACTOR = 4
/** A worker may have to wait for a processor while it loads a change; a main chunk that loops looks at the clock itself. */
const CHANGE_LOAD_FACTOR = 2
/** Before a thread that died by itself is replaced, so that one that dies at once does not spin. */
const RESTART_MS = 100
const STOP_MS = 2000
/** Of a worker thread, once for its JavaScript heap, once for its strings and bytes, or twice what one call may take; who fills either loses its thread. */
const WORKER_MEMORY_MIB_DEFAULT = 512

export interface HostLogger {
  warn(fields: object, message: string): void
  info(fields: object, message: string): void
  debug(fields: object, message: string): void
  trace(fields: object, message: string): void
}

export interface UdfHostOptions {
  readonly native: UdfNative
  readonly handle: number
  readonly addonPath: string
  readonly workers: number
  readonly workDirectory: string
  /** For tasks without a limit of their own. */
  readonly timeLimitMs: number
  readonly logger: HostLogger
  /** 1 warn, 2 info, 3 debug, 4 trace. */
  readonly logLevel?: number
  readonly workerMemoryMib?: number
  /** What one call may take, once of strings and bytes, once of the heap. */
  readonly callMemoryBytes?: number
  /** Modules are kept and loaded, calls are refused. */
  readonly isDisabled?: boolean
}

type WorkerState = 'running' | 'replacing' | 'ended'

interface Slot {
  readonly index: number
  /** Where the worker notes what it does. */
  readonly progress: Float64Array
  /** The modules that the thread started with. */
  modules: readonly ModuleToLoad[]
  /**
   * The load last seen under way there, and for how long. Counted in rounds of the watchdog: a pause of the whole process then does
   * not look like a load that takes long.
   */
  loading: { code: number, loads: number, milliseconds: number }
  thread: Worker
  /** False once the thread has exited. */
  alive: boolean
  state: WorkerState
  /** The newest module version that is prepared there. */
  version: number
}

const NOT_LOADING = { code: 0, loads: 0, milliseconds: 0 } as const

/** On its way to the workers. */
interface Change {
  readonly version: number
  readonly name: string
  /** Undefined removes the module. */
  readonly source: ModuleSource | undefined
}

interface Waiter {
  /** Every worker is to have prepared it. */
  readonly version: number
  resolve(): void
  reject(error: Error): void
}

export class UdfHost {
  readonly #options: UdfHostOptions
  readonly #store: ModuleStore
  readonly #slots: Slot[] = []
  readonly #statistics = new HostStatistics()
  #waiters: Waiter[] = []
  /** Of the version in force, by name. */
  readonly #modules = new Map<string, ModuleSource>()
  /** The number of the version in force; every worker reads it before each task. */
  readonly #active = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT))
  #change: Change | null = null
  /** Why a module is not loaded any more. By the object: new content under the same name is another module. */
  readonly #quarantine = new WeakMap<ModuleSource, string>()
  /** Of the last change, whatever became of it. */
  #version = 1
  #replaced = 0
  #watchdog: NodeJS.Timeout | null = null
  #phase: 'new' | 'open' | 'closed' = 'new'
  /** Module changes happen one after another. */
  #tail: Promise<unknown> = Promise.resolve()

  constructor (options: UdfHostOptions) {
    this.#options = options
    this.#store = new ModuleStore(options.workDirectory)
  }

  /** Resolves when every worker has the stored modules loaded, those that can be. */
  async open (): Promise<void> {
    await this.#store.open()
    if (this.#phase !== 'new') throw new UdfError('udf-closed', 'the Lua host is closed')
    this.#phase = 'open'
    for (const module of this.#store.modules) this.#modules.set(module.name, module)
    Atomics.store(this.#active, 0, this.#version)
    for (let index = 0; index < this.#options.workers; index++) {
      const progress = new Float64Array(new SharedArrayBuffer(Progress.COUNT * Float64Array.BYTES_PER_ELEMENT))
      const modules = this.#modulesToLoad()
      const thread = this.#start(index, progress, modules)
      this.#slots.push({ index, progress, modules, loading: NOT_LOADING, thread, alive: true, state: 'running', version: 0 })
    }
    this.#watchdog = setInterval(() => { this.#watch() }, WATCHDOG_MS)
    this.#watchdog.unref()
    try {
      await this.#prepared(this.#version)
    } catch (error) {
      await this.close()
      throw error
    }
  }

  /**
   * Stores a module and resolves when it is in force; throws UdfError. One that does not load ('udf-load'), or with which another does not
   * load that did before, changes nothing. To require a module that is not there yet is no error.
   */
  async put (name: string, content: Uint8Array): Promise<void> {
    await this.#serially(async () => {
      const module = await this.#store.check(name, content)
      await this.#bring(name, module, () => this.#store.write(module))
    })
  }

  /** Removes a module, also one that is not there. */
  async remove (name: string): Promise<void> {
    checkModuleName(name)
    await this.#serially(async () => {
      if (this.#modules.has(name)) await this.#bring(name, undefined, () => this.#store.remove(name))
    })
  }

  list (): ModuleInfo[] {
    return this.#store.list()
  }

  get (name: string): ModuleSource | undefined {
    return this.#store.get(name)
  }

  /** What functions did since the start, those that were called at all; of one module (a name without extension) if that is wanted. */
  statistics (module?: string): FunctionStatistics[] {
    return this.#statistics.functions(module)
  }

  /** Threads that were stuck or died. */
  get workersReplaced (): number {
    return this.#replaced
  }

  /** Lets the threads go. What they still hold is the engine's to fail. */
  async close (): Promise<void> {
    if (this.#phase === 'closed') return
    const opened = this.#phase === 'open'
    this.#phase = 'closed'
    // Before opening there is no thread to wake, and perhaps no running node: an error here would hide why it did not start.
    if (!opened) return
    if (this.#watchdog !== null) clearInterval(this.#watchdog)
    const error = new UdfError('udf-closed', 'the Lua host is closed')
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error)
    const exits = this.#slots.map(async slot => {
      if (!slot.alive) return
      const gone = new Promise<void>(resolve => slot.thread.once('exit', () => { resolve() }))
      this.#send(slot, { kind: 'stop' })
      const timer = setTimeout(() => { void slot.thread.terminate() }, STOP_MS)
      await gone
      clearTimeout(timer)
    })
    this.#options.native.udfWake()
    await Promise.all(exits)
  }

  #serially<T> (action: () => Promise<T>): Promise<T> {
    const result = this.#tail.then(() => {
      if (this.#phase !== 'open') throw new UdfError('udf-closed', 'the Lua host is closed')
      return action()
    })
    this.#tail = result.catch(() => {})
    return result
  }

  /** Prepares a change everywhere, makes it durable, and brings it into force. */
  async #bring (name: string, source: ModuleSource | undefined, store: () => Promise<void>): Promise<void> {
    const change: Change = { version: ++this.#version, name, source }
    this.#change = change
    try {
      for (const slot of this.#slots) if (slot.state === 'running') this.#send(slot, { kind: 'change', ...change })
      this.#options.native.udfWake()
      await this.#prepared(change.version)
      await store()
      // A thread that was replaced meanwhile has to prepare it as well; nothing can come between this and the next line.
      await this.#prepared(change.version)
      Atomics.store(this.#active, 0, change.version)
      if (source === undefined) this.#modules.delete(name)
      else this.#modules.set(name, source)
    } finally {
      this.#change = null
    }
  }

  #send (slot: Slot, message: ToWorker): void {
    slot.thread.postMessage(message)
  }

  /** Resolves when the version is prepared on every worker. */
  async #prepared (version: number): Promise<void> {
    if (this.#phase === 'closed') throw new UdfError('udf-closed', 'the Lua host is closed')
    if (this.#preparedEverywhere >= version) return
    await new Promise<void>((resolve, reject) => { this.#waiters.push({ version, resolve, reject }) })
  }

  get #preparedEverywhere (): number {
    return Math.min(...this.#slots.filter(slot => slot.state !== 'ended').map(slot => slot.version))
  }

  #settle (): void {
    const reached = this.#preparedEverywhere
    const done = this.#waiters.filter(waiter => waiter.version <= reached)
    this.#waiters = this.#waiters.filter(waiter => waiter.version > reached)
    for (const waiter of done) waiter.resolve()
  }

  /** The change will not come into force. */
  #refuse (change: Change, message: string, line = 0): void {
    const concerned = this.#waiters.filter(waiter => waiter.version === change.version)
    this.#waiters = this.#waiters.filter(waiter => waiter.version !== change.version)
    for (const waiter of concerned) waiter.reject(new UdfError('udf-load', message, { line }))
  }

  #modulesToLoad (): ModuleToLoad[] {
    return [...this.#modules.values()].map(module => {
      const refused = this.#quarantine.get(module)
      return refused === undefined ? module : { ...module, refused }
    })
  }

  /** The module that a worker's progress names, or undefined. */
  #moduleLoading (slot: Slot, code: number): ModuleSource | undefined {
    if (code < 0) return this.#change?.version === -code ? this.#change.source : undefined
    // What is in force now under that name may be other content, which has no part in this.
    const started = slot.modules[code - 1]
    const active = started === undefined ? undefined : this.#modules.get(started.name)
    return active !== undefined && active.content === started?.content ? active : undefined
  }

  #start (index: number, progress: Float64Array, modules: readonly ModuleToLoad[]): Worker {
    const { handle, addonPath, timeLimitMs, logLevel, callMemoryBytes = CALL_MEMORY_BYTES_DEFAULT, isDisabled = false } = this.#options
    const workerMemoryMib = this.#options.workerMemoryMib ?? Math.max(WORKER_MEMORY_MIB_DEFAULT, 2 * callMemoryBytes / (1024 * 1024))
    const data: WorkerData = {
      handle,
      worker: index,
      addonPath,
      modules,
      version: this.#active[0]!,
      activeVersion: this.#active.buffer as SharedArrayBuffer,
      defaultTimeLimitMs: timeLimitMs,
      logLevel: logLevel ?? LogLevel.INFO,
      callMemoryBytes,
      heapBytesMax: workerMemoryMib * 1024 * 1024,
      isDisabled,
      arrayBufferBytesMax: workerMemoryMib * 1024 * 1024,
      progress: progress.buffer as SharedArrayBuffer
    }
    const thread = new Worker(new URL('./worker.js', import.meta.url), {
      workerData: data,
      resourceLimits: { maxOldGenerationSizeMb: workerMemoryMib },
      name: `udf-${index}`
    })
    let failure = ''
    thread.on('message', (message: FromWorker) => { this.#receive(index, thread, message) })
    thread.on('error', (error: Error) => { failure = error.message })
    thread.on('exit', () => { this.#exited(index, thread, failure) })
    if (this.#change !== null) thread.postMessage({ kind: 'change', ...this.#change } satisfies ToWorker)
    return thread
  }

  #receive (index: number, thread: Worker, message: FromWorker): void {
    const slot = this.#slots[index]
    // Messages of a thread that was replaced meanwhile are stale.
    if (message.kind === 'log') this.#log(message.line)
    else if (slot === undefined || slot.thread !== thread) return
    else if (message.kind === 'function') this.#statistics.add(index, message.module, message.name, message.row)
    else if (message.kind === 'loaded') {
      if (index === 0) for (const problem of message.failures) this.#reportFailure(problem)
      const change = this.#change
      if (message.refused !== undefined && change?.version === message.version) {
        const { name, line, message: why } = message.refused
        if (name === change.name) this.#refuse(change, why, line)
        else this.#refuse(change, `module ${name}, which requires it, does not load with it: ${line === 0 ? '' : `${name}:${line}: `}${why}`)
      }
      slot.version = Math.max(slot.version, message.version)
      this.#settle()
    } else if (message.kind === 'exhausted') {
      if (this.#phase !== 'open' || slot.state !== 'running') return
      this.#options.logger.warn({ worker: index, bytes: message.bytes }, 'a Lua worker holds too much memory and is replaced')
      // It leaves by itself; its 'exit' starts the replacement.
      slot.state = 'replacing'
    } else {
      slot.state = 'ended'
      this.#settle()
    }
  }

  #reportFailure ({ name, line, message }: LoadProblem): void {
    this.#options.logger.warn({ module: name, line }, `module failed to load: ${message}`)
  }

  #log ({ level, module, line, message }: { level: number, module: string, line: number, message: string }): void {
    const { logger } = this.#options
    const fields = { module, line }
    if (level <= LogLevel.WARN) logger.warn(fields, message)
    else if (level === LogLevel.INFO) logger.info(fields, message)
    else if (level === LogLevel.DEBUG) logger.debug(fields, message)
    else logger.trace(fields, message)
  }

  #watch (): void {
    for (const { worker, overdueMs } of this.#options.native.udfOverdue()) {
      const slot = this.#slots[worker]
      if (slot === undefined || slot.state !== 'running' || overdueMs <= OVERDUE_GRACE_MS) continue
      // What it holds is overdue since it loads a module; that has a deadline of its own, and the module may be innocent.
      if (slot.progress[Progress.LOADING] !== 0) continue
      this.#options.logger.warn({ worker, overdueMs }, 'a Lua worker is stuck and is replaced')
      // Its 'exit' starts the replacement.
      slot.state = 'replacing'
      void slot.thread.terminate()
    }
    for (const slot of this.#slots) if (slot.state === 'running') this.#watchLoading(slot)
  }

  #watchLoading (slot: Slot): void {
    const code = slot.progress[Progress.LOADING]!
    const loads = slot.progress[Progress.LOADS]!
    if (code !== slot.loading.code || loads !== slot.loading.loads) slot.loading = { code, loads, milliseconds: 0 }
    else slot.loading.milliseconds += WATCHDOG_MS
    if (code === 0) return
    const allowed = loadAllowanceMs(slot.progress[Progress.LOADING_BYTES]!)
    if (slot.loading.milliseconds <= allowed * (code > 0 ? START_LOAD_FACTOR : CHANGE_LOAD_FACTOR) + OVERDUE_GRACE_MS) return
    this.#options.logger.warn({ worker: slot.index }, 'a Lua worker is stuck loading a module and is replaced')
    slot.state = 'replacing'
    void slot.thread.terminate()
  }

  /** A thread died or was terminated while it loaded this module: no other shall. */
  #quarantineModule (module: ModuleSource, failure: string): void {
    if (this.#quarantine.has(module)) return
    const reason = `loading exceeded the limits: ${failure === '' ? 'it took too long' : failure}`
    this.#quarantine.set(module, reason)
    this.#options.logger.warn({ module: module.name }, `module is not loaded any more: ${reason}`)
    if (this.#change?.source === module) this.#refuse(this.#change, `module ${module.name}: ${reason}`)
  }

  /** A thread is gone: by the watchdog, out of memory, or for good. */
  #exited (index: number, thread: Worker, failure: string): void {
    const slot = this.#slots[index]
    if (slot === undefined || slot.thread !== thread) return
    slot.alive = false
    this.#statistics.retire(index, slot.progress[Progress.FUNCTION]!)
    if (slot.state === 'ended' || this.#phase === 'closed') {
      slot.state = 'ended'
      this.#settle()
      return
    }
    slot.state = 'replacing'
    this.#replaced++
    if (failure !== '') this.#options.logger.warn({ worker: index }, `a Lua worker died: ${failure}`)
    const { progress } = slot
    this.#options.native.udfAbandon(index, progress[Progress.RUNNING])
    const loading = progress[Progress.LOADING]!
    progress.fill(0)
    slot.loading = NOT_LOADING
    const module = this.#moduleLoading(slot, loading)
    if (module !== undefined) this.#quarantineModule(module, failure)
    const started = slot.version > 0
    if (!started && loading === 0) {
      const error = new UdfError('udf-worker', `Lua worker ${index} did not start: ${failure === '' ? 'it exited' : failure}`)
      for (const waiter of this.#waiters.splice(0)) waiter.reject(error)
    }
    const replace = (): void => {
      if (this.#phase === 'closed') {
        slot.state = 'ended'
        return
      }
      slot.version = 0
      slot.modules = this.#modulesToLoad()
      slot.thread = this.#start(index, progress, slot.modules)
      slot.alive = true
      slot.state = 'running'
    }
    if (failure === '' && started) replace()
    else setTimeout(replace, RESTART_MS)
  }
}

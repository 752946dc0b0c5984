// The Lua host on the main thread: owns the module store and the worker threads.
//
//   modules     a change is stored first, then sent to every worker; the caller is answered when all have it in force
//   watchdog    a worker that sits on a task past its deadline (a library call that never looks at the clock) is terminated,
//               what it held is failed by the engine, and a new thread takes its number
//   statistics  gathered from the workers, by `module.function`

import { Worker } from 'node:worker_threads'
import { UdfError } from './errors.js'
import { ModuleStore } from './module-store.js'
import type { ModuleInfo } from './module-store.js'
import type { UdfNative } from './native.js'
import type { FromWorker, ModuleSource, ToWorker, WorkerData } from './protocol.js'
import type { FunctionStatistics } from './task-runner.js'
import { LogLevel } from './vm.js'

const WATCHDOG_MS = 100
/** A worker looks at the clock itself; only one that has not done so for this long past the deadline is stuck. */
const OVERDUE_GRACE_MS = 250
/** Before a thread that died by itself is replaced, so that one that dies at once does not spin. */
const RESTART_MS = 100
const STOP_MS = 2000
/** JavaScript heap of a worker thread; a script that fills it loses its thread. */
const WORKER_MEMORY_MIB_DEFAULT = 512
const STATISTICS_MAX = 16384

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
}

type WorkerState = 'running' | 'replacing' | 'ended'

interface Slot {
  readonly index: number
  /** Where the worker notes which task it runs. */
  readonly running: SharedArrayBuffer
  thread: Worker
  /** False once the thread has exited. */
  alive: boolean
  state: WorkerState
  /** The newest module version in force there. */
  version: number
}

interface Waiter {
  readonly version: number
  resolve(): void
  reject(error: Error): void
}

export class UdfHost {
  readonly #options: UdfHostOptions
  readonly #store: ModuleStore
  readonly #slots: Slot[] = []
  readonly #statistics = new Map<string, FunctionStatistics>()
  #waiters: Waiter[] = []
  #version = 0
  #replaced = 0
  #watchdog: NodeJS.Timeout | null = null
  #phase: 'new' | 'open' | 'closed' = 'new'
  /** Module changes happen one after another. */
  #tail: Promise<unknown> = Promise.resolve()

  constructor (options: UdfHostOptions) {
    this.#options = options
    this.#store = new ModuleStore(options.workDirectory)
  }

  /** Resolves when every worker has the stored modules loaded. */
  async open (): Promise<void> {
    await this.#store.open()
    this.#phase = 'open'
    this.#version = 1
    for (let index = 0; index < this.#options.workers; index++) {
      const running = new SharedArrayBuffer(Float64Array.BYTES_PER_ELEMENT)
      this.#slots.push({ index, running, thread: this.#start(index, running), alive: true, state: 'running', version: 0 })
    }
    this.#watchdog = setInterval(() => { this.#watch() }, WATCHDOG_MS)
    this.#watchdog.unref()
    try {
      await this.#loaded(this.#version)
    } catch (error) {
      await this.close()
      throw error
    }
  }

  /** Stores a module and resolves when every worker has it in force; throws UdfError. */
  async put (name: string, content: Uint8Array): Promise<void> {
    await this.#serially(async () => {
      const module = await this.#store.put(name, content)
      await this.#distribute(version => ({ kind: 'put', version, module }))
    })
  }

  /** Removes a module, also one that is not there. */
  async remove (name: string): Promise<void> {
    await this.#serially(async () => {
      if (await this.#store.remove(name)) await this.#distribute(version => ({ kind: 'remove', version, name }))
    })
  }

  list (): ModuleInfo[] {
    return this.#store.list()
  }

  get (name: string): ModuleSource | undefined {
    return this.#store.get(name)
  }

  /** Since the start, by `module.function`. */
  get statistics (): ReadonlyMap<string, Readonly<FunctionStatistics>> {
    return this.#statistics
  }

  /** Threads that were stuck or died. */
  get workersReplaced (): number {
    return this.#replaced
  }

  /** Lets the threads go. What they still hold is the engine's to fail. */
  async close (): Promise<void> {
    if (this.#phase === 'closed') return
    this.#phase = 'closed'
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

  async #distribute (message: (version: number) => ToWorker): Promise<void> {
    const version = ++this.#version
    for (const slot of this.#slots) if (slot.state === 'running') this.#send(slot, message(version))
    this.#options.native.udfWake()
    await this.#loaded(version)
  }

  #send (slot: Slot, message: ToWorker): void {
    slot.thread.postMessage(message)
  }

  /** Resolves when the version is in force on every worker. */
  #loaded (version: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiters.push({ version, resolve, reject })
      this.#settle()
    })
  }

  #settle (): void {
    const reached = Math.min(...this.#slots.filter(slot => slot.state !== 'ended').map(slot => slot.version))
    const done = this.#waiters.filter(waiter => waiter.version <= reached)
    this.#waiters = this.#waiters.filter(waiter => waiter.version > reached)
    for (const waiter of done) waiter.resolve()
  }

  #start (index: number, running: SharedArrayBuffer): Worker {
    const { handle, addonPath, timeLimitMs, logLevel, workerMemoryMib } = this.#options
    const data: WorkerData = {
      handle,
      worker: index,
      addonPath,
      modules: this.#store.modules,
      version: this.#version,
      defaultTimeLimitMs: timeLimitMs,
      logLevel: logLevel ?? LogLevel.INFO,
      running
    }
    const thread = new Worker(new URL('./worker.js', import.meta.url), {
      workerData: data,
      resourceLimits: { maxOldGenerationSizeMb: workerMemoryMib ?? WORKER_MEMORY_MIB_DEFAULT },
      name: `udf-${index}`
    })
    let failure = ''
    thread.on('message', (message: FromWorker) => { this.#receive(index, thread, message) })
    thread.on('error', (error: Error) => { failure = error.message })
    thread.on('exit', () => { this.#exited(index, thread, failure) })
    return thread
  }

  #receive (index: number, thread: Worker, message: FromWorker): void {
    const slot = this.#slots[index]
    // Messages of a thread that was replaced meanwhile are stale; its counts still count.
    if (message.kind === 'statistics') this.#count(message.functions)
    else if (message.kind === 'log') this.#log(message.line)
    else if (slot === undefined || slot.thread !== thread) return
    else if (message.kind === 'loaded') {
      slot.version = Math.max(slot.version, message.version)
      this.#settle()
    } else if (message.kind === 'load-failed') {
      const { name, line } = message
      if (index === 0) this.#options.logger.warn({ module: name, line }, `module failed to load: ${message.message}`)
    } else {
      slot.state = 'ended'
      this.#settle()
    }
  }

  #log ({ level, module, line, message }: { level: number, module: string, line: number, message: string }): void {
    const { logger } = this.#options
    const fields = { module, line }
    if (level <= LogLevel.WARN) logger.warn(fields, message)
    else if (level === LogLevel.INFO) logger.info(fields, message)
    else if (level === LogLevel.DEBUG) logger.debug(fields, message)
    else logger.trace(fields, message)
  }

  #count (functions: ReadonlyArray<readonly [string, FunctionStatistics]>): void {
    for (const [name, { calls, errors, microseconds }] of functions) {
      const sum = this.#statistics.get(name)
      if (sum !== undefined) {
        sum.calls += calls
        sum.errors += errors
        sum.microseconds += microseconds
      } else if (this.#statistics.size < STATISTICS_MAX) {
        this.#statistics.set(name, { calls, errors, microseconds })
      }
    }
  }

  #watch (): void {
    for (const { worker, overdueMs } of this.#options.native.udfOverdue()) {
      const slot = this.#slots[worker]
      if (slot === undefined || slot.state !== 'running' || overdueMs <= OVERDUE_GRACE_MS) continue
      this.#options.logger.warn({ worker, overdueMs }, 'a Lua worker is stuck and is replaced')
      // Its 'exit' starts the replacement.
      slot.state = 'replacing'
      void slot.thread.terminate()
    }
  }

  /** A thread is gone: by the watchdog, out of memory, or for good. */
  #exited (index: number, thread: Worker, failure: string): void {
    const slot = this.#slots[index]
    if (slot === undefined || slot.thread !== thread) return
    slot.alive = false
    if (slot.state === 'ended' || this.#phase === 'closed') {
      slot.state = 'ended'
      this.#settle()
      return
    }
    slot.state = 'replacing'
    this.#replaced++
    if (failure !== '') this.#options.logger.warn({ worker: index }, `a Lua worker died: ${failure}`)
    const running = new Float64Array(slot.running)
    this.#options.native.udfAbandon(index, running[0])
    running[0] = 0
    if (slot.version === 0) {
      const error = new UdfError('udf-worker', `Lua worker ${index} did not start: ${failure === '' ? 'it exited' : failure}`)
      for (const waiter of this.#waiters.splice(0)) waiter.reject(error)
    }
    const replace = (): void => {
      if (this.#phase === 'closed') {
        slot.state = 'ended'
        return
      }
      slot.version = 0
      slot.thread = this.#start(index, slot.running)
      slot.alive = true
      slot.state = 'running'
    }
    if (failure === '' && slot.version > 0) replace()
    else setTimeout(replace, RESTART_MS)
  }
}

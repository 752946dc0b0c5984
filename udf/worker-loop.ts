// The loop of a worker thread, without the thread: control messages, exchange, tasks, again.
//
// Control messages are taken synchronously between two exchanges, since the thread never returns to its event loop: when one brings
// no tasks, as it does once after each wake-up. A module change is prepared there, and comes into force with the shared number, also
// within a batch (module-versions.ts).

import { ResultBatch, TaskBatch } from './lane.js'
import { control, heapBytesBeyond, setCallMemory } from './limits.js'
import type { UdfExchange } from './native.js'
import { Progress } from './protocol.js'
import type { FromWorker, LoadProblem, ModuleToLoad, ToWorker, WorkerData } from './protocol.js'
import type { LoadFailure } from './module-set.js'
import { ModuleVersions } from './module-versions.js'
import { WorkerStatistics } from './statistics.js'
import { TaskRunner } from './task-runner.js'
import { LogLevel, LuaVm } from './vm.js'

/** One task with the largest record, its key and its arguments. */
export const TASKS_BYTES = 24 * 1024 * 1024
/** How long an exchange blocks; a wake-up ends it early. */
const WAIT_MS = 1000
/** Between two looks at what the thread holds. */
const REVIEW_MS = 1000
/** Log lines a worker may send from one review to the next; a script in a loop must not fill the main thread's queue. */
const LOG_LINES_MAX = 1000

export interface WorkerLoopOptions {
  readonly data: WorkerData
  readonly exchange: UdfExchange
  /** The next control message, or undefined; does not block. */
  readonly receive: () => ToWorker | undefined
  readonly post: (message: FromWorker) => void
  readonly tasksBytes?: number
  /** Bytes that the thread's array buffers take. */
  readonly arrayBufferBytes?: () => number
}

export class WorkerLoop {
  readonly #data: WorkerData
  readonly #exchange: UdfExchange
  readonly #receive: () => ToWorker | undefined
  readonly #post: (message: FromWorker) => void
  readonly #vm: LuaVm
  readonly #tasks: Uint8Array
  readonly #progress: Float64Array
  readonly #arrayBufferBytes: () => number
  /**
   * Modules can keep strings and bytes beyond a call, outside the heap that the thread's limit sees. Well above what the thread has
   * after loading: it is not replaced for what its successor would have as well.
   */
  #arrayBufferBytesMax = 0
  #logged = 0
  #reviewedAt = performance.now()

  constructor ({ data, exchange, receive, post, tasksBytes, arrayBufferBytes }: WorkerLoopOptions) {
    this.#data = data
    this.#exchange = exchange
    this.#receive = receive
    this.#post = post
    this.#tasks = new Uint8Array(tasksBytes ?? TASKS_BYTES)
    this.#progress = new Float64Array(data.progress)
    this.#arrayBufferBytes = arrayBufferBytes ?? (() => process.memoryUsage().arrayBuffers)
    setCallMemory(data.callMemoryBytes, data.heapBytesMax)
    this.#vm = new LuaVm({
      logLevel: data.logLevel,
      log: line => {
        if (this.#logged < LOG_LINES_MAX) post({ kind: 'log', line })
        else if (this.#logged === LOG_LINES_MAX) {
          post({ kind: 'log', line: { level: LogLevel.WARN, module: '', line: 0, message: `more than ${LOG_LINES_MAX} lines in ${REVIEW_MS} ms, dropping the rest` } })
        }
        this.#logged++
      }
    })
  }

  /** Runs until the node closes or 'stop' arrives. */
  run (): void {
    const versions = this.#load()
    const runner = new TaskRunner({
      vm: this.#vm,
      modules: versions,
      isDisabled: this.#data.isDisabled,
      defaultTimeLimitMs: this.#data.defaultTimeLimitMs,
      warn: message => { this.#post({ kind: 'log', line: { level: LogLevel.WARN, module: '', line: 0, message } }) },
      statistics: new WorkerStatistics((module, name, row) => { this.#post({ kind: 'function', module, name, row }) }),
      running: number => { this.#progress[Progress.FUNCTION] = number }
    })
    const allowed = this.#data.arrayBufferBytesMax
    this.#arrayBufferBytesMax = Math.max(allowed, this.#arrayBufferBytes() + allowed / 2)
    this.#post({ kind: 'loaded', version: this.#data.version, failures: versions.failures.map(problemOf), refused: undefined })
    const batch = new TaskBatch(this.#tasks)
    const results = new ResultBatch()
    const progress = this.#progress
    let exhausted = 0
    let pending: Uint8Array | null = null
    let running = this.#control(versions)
    while (running) {
      const length = this.#exchange(this.#data.handle, this.#data.worker, pending, this.#tasks, WAIT_MS)
      pending = null
      if (length < 0) break
      // Who sends a message wakes the worker: then nothing comes here, before any task.
      if (length === 0) running = this.#control(versions)
      if (length > 0) {
        batch.open(length)
        results.reset()
        let now = performance.now()
        for (let task = batch.next(); task !== null; task = batch.next()) {
          progress[Progress.RUNNING] = task.idNumber
          now = runner.run(task, results, now)
        }
        progress[Progress.RUNNING] = 0
        pending = results.finish()
      }
      if (control.heapFull || performance.now() - this.#reviewedAt >= REVIEW_MS) {
        this.#reviewedAt = performance.now()
        this.#logged = 0
        const bytes = this.#arrayBufferBytes()
        const heapBytes = heapBytesBeyond()
        control.heapFull = false
        if (bytes > this.#arrayBufferBytesMax || heapBytes > 0) {
          exhausted = bytes + heapBytes
          break
        }
      }
    }
    // Results that are done go out even when the thread leaves. Tasks that come back instead are the engine's to fail:
    // the host abandons the worker.
    if (pending !== null) this.#exchange(this.#data.handle, this.#data.worker, pending, this.#tasks, 0)
    this.#post(exhausted > 0 ? { kind: 'exhausted', bytes: exhausted } : { kind: 'ended' })
  }

  /** Loads the modules that the worker starts with; the module that loads is named to the host, in case that costs the thread. */
  #load (): ModuleVersions {
    const { modules, version, activeVersion } = this.#data
    const positions = new Map(modules.map(({ name }, position) => [name, position + 1]))
    const outer: number[] = []
    return new ModuleVersions(this.#vm, new Int32Array(activeVersion), version, modules, source => {
      if (source === undefined) outer.pop()
      else {
        outer.push(positions.get(source.name)!)
        this.#beginLoad(source)
      }
      this.#progress[Progress.LOADING] = outer.at(-1) ?? 0
    })
  }

  #beginLoad (source: ModuleToLoad): void {
    this.#progress[Progress.LOADING_BYTES] = source.content.length
    this.#progress[Progress.LOADS]!++
  }

  /** Handles what has arrived; false to stop. */
  #control (versions: ModuleVersions): boolean {
    for (let message = this.#receive(); message !== undefined; message = this.#receive()) {
      switch (message.kind) {
        case 'change': {
          const { version } = message
          // Whatever loads now, the change is what it is for.
          this.#progress[Progress.LOADING] = -version
          const { refused, failures } = versions.prepare(version, message, source => { if (source !== undefined) this.#beginLoad(source) })
          this.#progress[Progress.LOADING] = 0
          this.#post({ kind: 'loaded', version, failures: failures.map(problemOf), refused: refused === undefined ? undefined : problemOf(refused) })
          break
        }
        case 'stop':
          return false
      }
    }
    return true
  }
}

function problemOf ({ name, error }: LoadFailure): LoadProblem {
  return { name, line: error.line, message: error.message }
}

// The loop of a worker thread, without the thread: control messages, exchange, tasks, again.
//
// Control messages are taken synchronously between two exchanges, since the thread never returns to its event loop. A module
// change is therefore in force for every task of the batches that follow its 'loaded'.

import { ResultBatch, TaskBatch } from './lane.js'
import type { UdfExchange } from './native.js'
import { Progress } from './protocol.js'
import type { FromWorker, ToWorker, WorkerData } from './protocol.js'
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
  readonly #runner: TaskRunner
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
    const vm = new LuaVm({
      logLevel: data.logLevel,
      log: line => {
        if (this.#logged < LOG_LINES_MAX) post({ kind: 'log', line })
        else if (this.#logged === LOG_LINES_MAX) {
          post({ kind: 'log', line: { level: LogLevel.WARN, module: '', line: 0, message: `more than ${LOG_LINES_MAX} lines in ${REVIEW_MS} ms, dropping the rest` } })
        }
        this.#logged++
      }
    })
    this.#runner = new TaskRunner({
      vm,
      defaultTimeLimitMs: data.defaultTimeLimitMs,
      warn: message => { post({ kind: 'log', line: { level: LogLevel.WARN, module: '', line: 0, message } }) },
      statistics: new WorkerStatistics((module, name, row) => { post({ kind: 'function', module, name, row }) }),
      running: number => { this.#progress[Progress.FUNCTION] = number }
    })
  }

  /** Runs until the node closes or 'stop' arrives. */
  run (): void {
    this.#data.modules.forEach(({ name, content, refused }, position) => {
      this.#progress[Progress.LOADING] = position + 1
      if (refused === undefined) this.#put(name, content)
      else this.#runner.refuse(name, refused)
    })
    this.#progress[Progress.LOADING] = 0
    const allowed = this.#data.arrayBufferBytesMax
    this.#arrayBufferBytesMax = Math.max(allowed, this.#arrayBufferBytes() + allowed / 2)
    this.#post({ kind: 'loaded', version: this.#data.version })
    const batch = new TaskBatch(this.#tasks)
    const results = new ResultBatch()
    const progress = this.#progress
    let exhausted = 0
    let pending: Uint8Array | null = null
    while (this.#control()) {
      const length = this.#exchange(this.#data.handle, this.#data.worker, pending, this.#tasks, WAIT_MS)
      pending = null
      if (length < 0) break
      if (length > 0) {
        batch.open(length)
        results.reset()
        for (let task = batch.next(); task !== null; task = batch.next()) {
          progress[Progress.RUNNING] = task.idNumber
          this.#runner.run(task, results)
        }
        progress[Progress.RUNNING] = 0
        pending = results.finish()
      }
      if (performance.now() - this.#reviewedAt >= REVIEW_MS) {
        this.#reviewedAt = performance.now()
        this.#logged = 0
        const bytes = this.#arrayBufferBytes()
        if (bytes > this.#arrayBufferBytesMax) {
          exhausted = bytes
          break
        }
      }
    }
    // Results that are done go out even when the thread leaves. Tasks that come back instead are the engine's to fail:
    // the host abandons the worker.
    if (pending !== null) this.#exchange(this.#data.handle, this.#data.worker, pending, this.#tasks, 0)
    this.#post(exhausted > 0 ? { kind: 'exhausted', bytes: exhausted } : { kind: 'ended' })
  }

  #put (name: string, content: Uint8Array): void {
    const problem = this.#runner.put(name, content)
    if (problem !== null) this.#post({ kind: 'load-failed', name, line: problem.line, message: problem.message })
  }

  /** Handles what has arrived; false to stop. */
  #control (): boolean {
    for (let message = this.#receive(); message !== undefined; message = this.#receive()) {
      switch (message.kind) {
        case 'put':
          this.#progress[Progress.LOADING] = -message.version
          this.#put(message.module.name, message.module.content)
          this.#progress[Progress.LOADING] = 0
          this.#post({ kind: 'loaded', version: message.version })
          break
        case 'remove':
          this.#runner.remove(message.name)
          this.#post({ kind: 'loaded', version: message.version })
          break
        case 'stop':
          return false
      }
    }
    return true
  }
}

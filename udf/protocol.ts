// Messages between the host on the main thread and its workers.

import type { FunctionStatistics } from './task-runner.js'
import type { LogLine } from './vm.js'

export interface ModuleSource {
  /** File name, ending in `.lua`. */
  readonly name: string
  readonly content: Uint8Array
}

/** What a worker thread starts with. */
export interface WorkerData {
  readonly handle: number
  readonly worker: number
  /** The native add-on; a JavaScript module with the same exports in tests. */
  readonly addonPath: string
  readonly modules: readonly ModuleSource[]
  /** The version that `modules` has. */
  readonly version: number
  readonly defaultTimeLimitMs: number
  readonly logLevel: number
  /** Shared with the host: one double, the id of the task that runs, 0 for none. Read when the thread is gone. */
  readonly running: SharedArrayBuffer
}

export type ToWorker =
  | { readonly kind: 'put', readonly version: number, readonly module: ModuleSource }
  | { readonly kind: 'remove', readonly version: number, readonly name: string }
  | { readonly kind: 'stop' }

export type FromWorker =
  /** All modules up to this version are in force. */
  | { readonly kind: 'loaded', readonly version: number }
  /** A module compiles but its main chunk fails; its functions answer with this error. */
  | { readonly kind: 'load-failed', readonly name: string, readonly line: number, readonly message: string }
  | { readonly kind: 'log', readonly line: LogLine }
  | { readonly kind: 'statistics', readonly functions: ReadonlyArray<readonly [string, FunctionStatistics]> }
  /** The worker leaves by itself: the node closed, or it was told to stop. */
  | { readonly kind: 'ended' }

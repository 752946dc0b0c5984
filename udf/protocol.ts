// Messages between the host on the main thread and its workers.

import type { LogLine } from './vm.js'

export interface ModuleSource {
  /** File name, ending in `.lua`. */
  readonly name: string
  readonly content: Uint8Array
}

/** A module as a new thread gets it. */
export interface ModuleToLoad extends ModuleSource {
  /** Why it must not be loaded: loading it has cost a thread before. Its functions answer with this. */
  readonly refused?: string
}

/** What a worker notes for the host, which reads it while the thread is stuck or when it is gone: doubles in shared memory. */
export const Progress = {
  /** Id of the task that runs, 0 for none. */
  RUNNING: 0,
  /** The module that loads: 1 + its position in `WorkerData.modules`, minus the version of the 'put' that brought it, or 0. */
  LOADING: 1,
  /** The function that runs, by the number of its row of statistics, or 0. */
  FUNCTION: 2,
  COUNT: 3
} as const

/** What a worker thread starts with. */
export interface WorkerData {
  readonly handle: number
  readonly worker: number
  /** The native add-on; a JavaScript module with the same exports in tests. */
  readonly addonPath: string
  readonly modules: readonly ModuleToLoad[]
  /** The version that `modules` has. */
  readonly version: number
  readonly defaultTimeLimitMs: number
  readonly logLevel: number
  /** Of all array buffers of the thread between two batches; with more it leaves for a successor. */
  readonly arrayBufferBytesMax: number
  /** Shared with the host, laid out as in `Progress`. */
  readonly progress: SharedArrayBuffer
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
  /** A function is called for the first time: where the worker counts from now on. */
  | { readonly kind: 'function', readonly module: string, readonly name: string, readonly row: SharedArrayBuffer }
  /** The worker leaves since it holds more bytes outside its heap than it may; it wants a successor. */
  | { readonly kind: 'exhausted', readonly bytes: number }
  /** The worker leaves by itself: the node closed, or it was told to stop. */
  | { readonly kind: 'ended' }

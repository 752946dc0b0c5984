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

export interface LoadProblem {
  /** File name. */
  readonly name: string
  readonly line: number
  readonly message: string
}

/** What a worker notes for the host, which reads it while the thread is stuck or when it is gone: doubles in shared memory. */
export const Progress = {
  /** Id of the task that runs, 0 for none. */
  RUNNING: 0,
  /** The module that loads: 1 + its position in `WorkerData.modules`, or, with all that it touches, minus the version of the change; or 0. */
  LOADING: 1,
  /** Main chunks begun, and the bytes of the source of the last: whether a load is still the same, and how long it may take. */
  LOADS: 2,
  LOADING_BYTES: 3,
  /** The function that runs, by the number of its row of statistics, or 0. */
  FUNCTION: 4,
  COUNT: 5
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
  /** What one call may take. */
  readonly callMemoryBytes: number
  /** Of the thread's heap; beyond it the thread dies. */
  readonly heapBytesMax: number
  /** Every call is refused. */
  readonly isDisabled: boolean
  /** Of all array buffers of the thread between two batches; with more it leaves for a successor. */
  readonly arrayBufferBytesMax: number
  /** Shared with the host, laid out as in `Progress`. */
  readonly progress: SharedArrayBuffer
  /** Shared with the host and all workers: an Int32Array with the number of the version in force. */
  readonly activeVersion: SharedArrayBuffer
}

export type ToWorker =
  /** To be prepared; in force once the shared number is its version. One that never is, is followed by another. */
  | { readonly kind: 'change', readonly version: number, readonly name: string, readonly source: ModuleSource | undefined }
  | { readonly kind: 'stop' }

export type FromWorker =
  /** The version is prepared: it can come into force. */
  | {
    readonly kind: 'loaded'
    readonly version: number
    /** Modules that compile and whose main chunks fail; their functions answer with the error. */
    readonly failures: readonly LoadProblem[]
    /** Why the change should not come into force. */
    readonly refused: LoadProblem | undefined
  }
  | { readonly kind: 'log', readonly line: LogLine }
  /** A function is called for the first time: where the worker counts from now on. */
  | { readonly kind: 'function', readonly module: string, readonly name: string, readonly row: SharedArrayBuffer }
  /** The worker leaves since it holds more bytes outside its heap than it may; it wants a successor. */
  | { readonly kind: 'exhausted', readonly bytes: number }
  /** The worker leaves by itself: the node closed, or it was told to stop. */
  | { readonly kind: 'ended' }

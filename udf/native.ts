// What the Lua host needs of the engine. The real one is a NativeNode of src/engine; tests pass their own.

export interface Overdue {
  readonly worker: number
  /** Past the deadline of the task it holds. */
  readonly overdueMs: number
}

/** Called on the main thread. */
export interface UdfNative {
  /** Wakes every waiting worker once: its exchange returns 0. */
  udfWake(): void
  /** Workers that sit on a task past its deadline. */
  udfOverdue(): Overdue[]
  /**
   * A worker's thread is gone. The task that it was running fails (when it is given: not 0), what it held besides goes to other
   * workers, and fails when that costs another one.
   */
  udfAbandon(worker: number, running?: number): void
}

/** Called on a worker thread: hands over results (or null), waits for tasks up to `waitMs`; their bytes, 0 for none, -1 when the node closed. */
export type UdfExchange = (handle: number, worker: number, results: Uint8Array | null, tasks: Uint8Array, waitMs: number) => number

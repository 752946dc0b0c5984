// What bounds the call that runs: steps, time and bytes. One per thread, since a thread runs one call at a time.

import { getHeapStatistics } from 'node:v8'

/** Steps between two looks at the clock. */
const STEPS_PER_CHECK = 512
/**
 * What one call may take, by default. Strings and bytes that it makes, whether it keeps them or not: they live outside the JavaScript heap, so
 * the thread's heap limit does not see them, and counting what is made needs no look at what is still alive. And, counted apart, what the heap grows by.
 */
export const CALL_MEMORY_BYTES_DEFAULT = 256 * 1024 * 1024
/** Filling this many bytes counts as a step (as a shift), so that few large strings look at the clock like many small ones. */
const STEP_BYTES_SHIFT = 8
/** Between two looks at the heap: a thread allocates some ten MiB meanwhile. Short calls never look. */
const HEAP_LOOK_MS = 10
/** Of the thread's heap; beyond it the thread would die with all that it holds. */
const HEAP_SHARE_MAX = 0.8

/** A limit is exceeded, found where no Lua error can be raised. */
export class LimitError extends Error {}

let callMemoryBytes = CALL_MEMORY_BYTES_DEFAULT
let heapBytesMax = Infinity
/** Used when the call looked first. */
let heapBytesBefore = -1
let nextHeapLook = 0

/** For all calls of this thread from here on. `heapBytes` is the limit of the heap's old generation, which V8 does not tell. */
export function setCallMemory (bytes: number, heapBytes: number): void {
  callMemoryBytes = bytes
  heapBytesMax = heapBytes * HEAP_SHARE_MAX
}

/** What the thread's heap holds, when that is more than calls may fill it to: each that takes longer would end at once. Else 0. */
export function heapBytesBeyond (): number {
  const used = getHeapStatistics().used_heap_size
  return used > heapBytesMax ? used : 0
}

export const control = {
  steps: STEPS_PER_CHECK,
  /** Bytes that the call may still make; below zero it is aborted at the next check. */
  bytes: CALL_MEMORY_BYTES_DEFAULT,
  /** By the clock of `performance.now()`. */
  deadline: Infinity,
  limitMs: 0,
  /** A call found the heap of the thread nearly full: with what modules keep, the next could take the thread with it. */
  heapFull: false,
  /** A limit is exceeded: every check fails from now on, so that no pcall can hold on. */
  aborted: false,
  /** Why, once aborted. */
  message: ''
}

/** Starts the limits of a call, `now` by the clock of `performance.now()`. */
export function startClock (limitMs: number, now = performance.now()): void {
  control.limitMs = limitMs
  control.deadline = now + limitMs
  control.steps = STEPS_PER_CHECK
  control.bytes = callMemoryBytes
  control.aborted = false
  heapBytesBefore = -1
  nextHeapLook = now + HEAP_LOOK_MS
}

/** The limits of a call that another one interrupts. */
export type PausedClock = Readonly<typeof control> & { readonly pausedAt: number }

export function pauseClock (): PausedClock {
  return { ...control, pausedAt: performance.now() }
}

/** Goes on with the limits of before; the pause does not count. */
export function resumeClock ({ pausedAt, ...before }: PausedClock): void {
  Object.assign(control, before, { deadline: before.deadline + performance.now() - pausedAt, heapFull: before.heapFull || control.heapFull })
}

/** Charges the call for a string or bytes; never throws, the next check does: it may be made where no error is expected. */
export function chargeBytes (bytes: number): void {
  control.bytes -= bytes
  control.steps -= bytes >>> STEP_BYTES_SHIFT
  if (control.bytes < 0) control.steps = 0
}

/** As `spend`, where no error is expected: the next check throws. For work that is bounded, such as what one instruction does. */
export function chargeSteps (steps: number): void {
  control.steps -= steps
}

/** Charges work that no script code does; throws LimitError when a limit is exceeded. To be called at least every some thousand steps. */
export function spend (steps: number): void {
  control.steps -= steps
  if (control.steps > 0) return
  const message = exceededLimit()
  if (message !== null) throw new LimitError(message)
}

/** Called when the steps are used up: null to go on, or why the call ends. */
export function exceededLimit (): string | null {
  if (!control.aborted) {
    const reason = limitReached()
    if (reason === null) {
      control.steps = STEPS_PER_CHECK
      return null
    }
    control.message = reason
    control.aborted = true
  }
  control.steps = 1
  return control.message
}

function limitReached (): string | null {
  if (control.bytes < 0) return `memory limit of ${callMemoryBytes / 1048576} MiB of strings and bytes exceeded`
  const now = performance.now()
  if (now >= control.deadline) return `time limit of ${control.limitMs} ms exceeded`
  if (now < nextHeapLook) return null
  nextHeapLook = now + HEAP_LOOK_MS
  const { used_heap_size: used } = getHeapStatistics()
  if (heapBytesBefore < 0) heapBytesBefore = used
  if (used > heapBytesMax) control.heapFull = true
  return used - heapBytesBefore > callMemoryBytes || control.heapFull ? `memory limit of ${callMemoryBytes / 1048576} MiB exceeded` : null
}

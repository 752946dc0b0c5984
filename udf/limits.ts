// What bounds the call that runs: steps, time and bytes. One per thread, since a thread runs one call at a time.

/** Steps between two looks at the clock. */
const STEPS_PER_CHECK = 512
/**
 * Strings and bytes that one call may make, whether it keeps them or not. They live outside the JavaScript heap, so the thread's heap
 * limit does not see them; counting what is made needs no look at what is still alive.
 */
export const CALL_BYTES_MAX = 256 * 1024 * 1024
/** Filling this many bytes counts as a step (as a shift), so that few large strings look at the clock like many small ones. */
const STEP_BYTES_SHIFT = 8

export const control = {
  steps: STEPS_PER_CHECK,
  /** Bytes that the call may still make; below zero it is aborted at the next check. */
  bytes: CALL_BYTES_MAX,
  /** By the clock of `performance.now()`. */
  deadline: Infinity,
  limitMs: 0,
  /** A limit is exceeded: every check fails from now on, so that no pcall can hold on. */
  aborted: false,
  /** Why, once aborted. */
  message: ''
}

/** Starts the limits of a call. */
export function startClock (limitMs: number): void {
  control.limitMs = limitMs
  control.deadline = performance.now() + limitMs
  control.steps = STEPS_PER_CHECK
  control.bytes = CALL_BYTES_MAX
  control.aborted = false
}

/** The limits of a call that another one interrupts. */
export type PausedClock = Readonly<typeof control> & { readonly pausedAt: number }

export function pauseClock (): PausedClock {
  return { ...control, pausedAt: performance.now() }
}

/** Goes on with the limits of before; the pause does not count. */
export function resumeClock ({ pausedAt, ...before }: PausedClock): void {
  Object.assign(control, before, { deadline: before.deadline + performance.now() - pausedAt })
}

/** Charges the call for a string or bytes; never throws, the next check does: it may be made where no error is expected. */
export function chargeBytes (bytes: number): void {
  control.bytes -= bytes
  control.steps -= bytes >>> STEP_BYTES_SHIFT
  if (control.bytes < 0) control.steps = 0
}

/** Called when the steps are used up: null to go on, or why the call ends. */
export function exceededLimit (): string | null {
  if (!control.aborted) {
    if (control.bytes >= 0) {
      if (performance.now() < control.deadline) {
        control.steps = STEPS_PER_CHECK
        return null
      }
      control.message = `time limit of ${control.limitMs} ms exceeded`
    } else {
      control.message = `memory limit of ${CALL_BYTES_MAX / 1048576} MiB of strings and bytes exceeded`
    }
    control.aborted = true
  }
  control.steps = 1
  return control.message
}

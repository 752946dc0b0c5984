// The time that functions under test see: the machine's, until a test sets it.

import type { Table } from '../fengari.js'
import { argument, argumentCount, functionValue, INTEGER, NIL, push, pushInteger, rawGet, rawSet, Value } from '../lua.js'

export class TestClock {
  #fixed: number | null = null

  /** Milliseconds since 1970. */
  readonly now = (): number => this.#fixed ?? Date.now()

  /** From here on time stands still. */
  set (milliseconds: number): void {
    this.#fixed = milliseconds
  }
}

/** Puts the clock in place of the machine's, in an environment that is not frozen yet. */
export function installClock (environment: Table, { now }: TestClock): void {
  rawSet(rawGet(environment, 'aerospike')!.value, 'get_current_time', functionValue(L => pushInteger(L, now())))
  const os: Table = rawGet(environment, 'os')!.value
  const [time, date] = [rawGet(os, 'time')!.value, rawGet(os, 'date')!.value]
  const seconds = (): number => Math.floor(now() / 1000)
  rawSet(os, 'time', functionValue(L => argument(L, 1).type === NIL ? pushInteger(L, seconds()) : time(L)))
  rawSet(os, 'date', functionValue(L => {
    if (argumentCount(L) === 0) return date(L)
    if (argumentCount(L) === 1) push(L, new Value(INTEGER, seconds()))
    return date(L)
  }))
}

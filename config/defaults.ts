// Defaults and bounds, in one place: the schema, the reference page and the tests read them from here.

import { availableParallelism } from 'node:os'

export const KiB = 1024
export const MiB = 1024 * KiB
export const GiB = 1024 * MiB
export const TiB = 1024 * GiB

export const NAMESPACES_MAX = 32
export const DATACENTERS_MAX = 64
export const NAME_BYTES_MAX = 31
export const SET_NAME_BYTES_MAX = 63
export const SETS_MAX = 4095
export const TLS_SECTIONS_MAX = 32
/** Ten years, the longest time to live on the wire. */
export const TTL_SECONDS_MAX = 315_360_000

/** Depend on the machine, so the reference page names them in words. */
/** One CPU is left to the control plane, Lua and storage; on two, a second service thread costs more in wake-ups than it brings (docs/benchmarks.md). */
export function serviceThreadsDefault (): number {
  return Math.max(1, availableParallelism() - 1)
}

export function luaWorkersDefault (): number {
  return Math.min(availableParallelism(), 4)
}

import type { Io } from '../io.js'
import { bench } from './bench.js'

/** Runs the device check, which is a part of the load generator's program. Resolves to its exit code. */
export async function act (io: Io, args: readonly string[]): Promise<number> {
  return bench(io, ['act', ...args])
}

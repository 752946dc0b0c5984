// What processes take of the machine, from /proc.
import { readFileSync } from 'node:fs'

const KIB = 1024
/** USER_HZ, which is the same on every Linux. */
const TICKS_PER_SECOND = 100

export interface MemoryUse { residentBytes: number, anonymousBytes: number, sharedBytes: number }

export function memoryOf (pid: number): MemoryUse {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const of = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1]) * KIB
  return { residentBytes: of('VmRSS'), anonymousBytes: of('RssAnon'), sharedBytes: of('RssShmem') }
}

/** Processor time that a process has taken. */
function secondsOf (pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  // The second field is a name that may hold anything; utime and stime are the 14th and the 15th.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}

/** Processor time of the whole machine: all of it, and what was neither idle nor waiting for a device. */
function secondsOfMachine (): { all: number, busy: number } {
  // user nice system idle iowait irq softirq steal; guests are within user.
  const ticks = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0]!.split(/\s+/).slice(1, 9).map(Number)
  const all = ticks.reduce((sum, each) => sum + each, 0)
  return { all: all / TICKS_PER_SECOND, busy: (all - ticks[3]! - ticks[4]!) / TICKS_PER_SECOND }
}

export interface CpuMark { all: number, busy: number, ours: number }

/** Where the clocks of the processors stand, and that of these processes together. */
export function cpuMark (pids: readonly number[]): CpuMark {
  return { ...secondsOfMachine(), ours: pids.reduce((sum, pid) => sum + secondsOf(pid), 0) }
}

/** The share of the machine that went to others between two marks, in percent. */
export function foreignCpuPct (from: CpuMark, to: CpuMark): number {
  const foreign = (to.busy - from.busy) - (to.ours - from.ours)
  return Math.max(0, 100 * foreign / Math.max(0.01, to.all - from.all))
}

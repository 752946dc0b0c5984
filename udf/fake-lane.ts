// A stand-in for the native lane that works across threads: the exchange of worker threads and the engine's side for the test.
//
// Fault model: tasks and results travel through files in the directory of PERIGEE_FAKE_LANE, one batch a file, renamed into place.
// Nothing is lost unless the thread dies; a batch taken by a thread that dies stays "held" until it is abandoned. An exchange
// polls; a wake-up is a file. No fault is injected by the stand-in itself: stuck and dying workers come from the scripts.

import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { decodeResults, encodeTasks } from './lane.js'
import type { TaskFields } from './lane.js'
import type { Overdue, UdfExchange, UdfNative } from './native.js'
import { plainOutcome } from './testing.js'
import type { Outcome } from './testing.js'

const POLL_MS = 2
const gate = new Int32Array(new SharedArrayBuffer(4))

function directory (): string {
  const path = process.env['PERIGEE_FAKE_LANE']
  if (path === undefined) throw new Error('PERIGEE_FAKE_LANE is not set')
  return path
}

function place (path: string, bytes: Uint8Array): void {
  writeFileSync(path + '.part', bytes)
  renameSync(path + '.part', path)
}

let sequence = 0

/** On a worker thread. */
export const udfExchange: UdfExchange = (_handle, worker, results, tasks, waitMs) => {
  const lane = directory()
  const held = join(lane, `held-${worker}`)
  if (results !== null) {
    place(join(lane, `results-${worker}-${process.hrtime.bigint()}-${sequence++}`), results)
    rmSync(held, { force: true })
  }
  const until = performance.now() + waitMs
  do {
    if (existsSync(join(lane, 'closed'))) return -1
    const wake = join(lane, `wake-${worker}`)
    if (existsSync(wake)) {
      rmSync(wake, { force: true })
      return 0
    }
    const mine = readdirSync(lane).filter(name => name.startsWith(`tasks-${worker}-`) && !name.endsWith('.part')).sort()[0]
    if (mine !== undefined) {
      renameSync(join(lane, mine), held)
      const bytes = readFileSync(held)
      tasks.set(bytes)
      return bytes.length
    }
    Atomics.wait(gate, 0, 0, POLL_MS)
  } while (performance.now() < until)
  return 0
}

/** On the main thread: the engine's side. */
export class FakeLane implements UdfNative {
  readonly #directory: string
  readonly #workers: number
  readonly #deadlines = new Map<number, number>()
  readonly abandoned: number[] = []
  /** Ids of the tasks that the abandoned workers were running. */
  readonly lost: number[] = []
  #next = 0

  constructor (path: string, workers: number) {
    this.#directory = path
    this.#workers = workers
    process.env['PERIGEE_FAKE_LANE'] = path
  }

  udfWake (): void {
    for (let worker = 0; worker < this.#workers; worker++) place(join(this.#directory, `wake-${worker}`), new Uint8Array(0))
  }

  udfOverdue (): Overdue[] {
    const now = performance.now()
    return [...this.#deadlines].filter(([worker, deadline]) => deadline < now && existsSync(join(this.#directory, `held-${worker}`)))
      .map(([worker, deadline]) => ({ worker, overdueMs: now - deadline }))
  }

  udfAbandon (worker: number, running = 0): void {
    this.abandoned.push(worker)
    this.lost.push(running)
    this.#deadlines.delete(worker)
    rmSync(join(this.#directory, `held-${worker}`), { force: true })
  }

  send (worker: number, tasks: TaskFields[], limitMs: number): void {
    this.#deadlines.set(worker, performance.now() + limitMs)
    place(join(this.#directory, `tasks-${worker}-${String(this.#next++).padStart(6, '0')}`), encodeTasks(tasks))
  }

  /** The results of the next batch of a worker, or undefined when none came in time. */
  async receive (worker: number, withinMs = 5000): Promise<Outcome[] | undefined> {
    const until = performance.now() + withinMs
    do {
      const name = readdirSync(this.#directory).filter(entry => entry.startsWith(`results-${worker}-`) && !entry.endsWith('.part')).sort()[0]
      if (name !== undefined) {
        const path = join(this.#directory, name)
        const bytes = new Uint8Array(readFileSync(path))
        rmSync(path)
        this.#deadlines.delete(worker)
        return decodeResults(bytes).map(plainOutcome)
      }
      await new Promise(resolve => setTimeout(resolve, POLL_MS))
    } while (performance.now() < until)
    return undefined
  }

  close (): void {
    place(join(this.#directory, 'closed'), new Uint8Array(0))
  }
}

// Whether a module compiles, found out without holding up the main thread.
//
// fengari's compiler takes quadratic time on long runs of pending jumps (`goto`, `break`, `or`, `elseif`): tens of milliseconds at
// 8 KiB, minutes at 1 MiB. A small source is compiled where it is asked for; a larger one on a thread of its own, which a deadline ends.

import { Worker } from 'node:worker_threads'
import { UdfError } from './errors.js'
import type { ModuleSource } from './protocol.js'
import { ModuleError } from './lua-module.js'
import { LOAD_TIME_LIMIT_MS, LuaVm } from './vm.js'

export interface CompileProblem {
  readonly line: number
  readonly message: string
}

/** Above it a thread pays: starting one takes about as long as the worst source of this size. */
const INLINE_BYTES_MAX = 8 * 1024
/** Ordinary sources take a third of a millisecond. */
const COMPILE_MS_PER_KIB = 4
const COMPILE_MEMORY_MIB = 512

/** Milliseconds that compiling a source and running its main chunk may take. */
export function loadAllowanceMs (bytes: number): number {
  return LOAD_TIME_LIMIT_MS + COMPILE_MS_PER_KIB * bytes / 1024
}

export class CompileCheck {
  #vm: LuaVm | null = null

  /** Null when the module compiles, else why not; throws UdfError 'udf-load' when compiling exceeds its limits. */
  async compile (module: ModuleSource): Promise<CompileProblem | null> {
    if (module.content.length > INLINE_BYTES_MAX) return await compileOnThread(module)
    this.#vm ??= new LuaVm()
    try {
      this.#vm.compile(module.name, module.content)
      return null
    } catch (error) {
      if (error instanceof ModuleError) return { line: error.line, message: error.message }
      throw error
    }
  }
}

async function compileOnThread (module: ModuleSource): Promise<CompileProblem | null> {
  const allowedMs = Math.round(loadAllowanceMs(module.content.length))
  const thread = new Worker(new URL('./compile-worker.js', import.meta.url), {
    workerData: { name: module.name, content: module.content },
    resourceLimits: { maxOldGenerationSizeMb: COMPILE_MEMORY_MIB },
    name: 'udf-compile'
  })
  let timer: NodeJS.Timeout | undefined
  try {
    return await new Promise((resolve, reject) => {
      const exceeded = (what: string): void => { reject(new UdfError('udf-load', `module ${module.name}: compiling exceeded the limits: ${what}`)) }
      // Counted from its first instruction: how long a thread takes to start is not the module's doing.
      thread.once('online', () => { timer = setTimeout(exceeded, allowedMs, `it took longer than ${allowedMs} ms`) })
      thread.once('message', resolve)
      thread.once('error', error => { exceeded(error.message) })
      thread.once('exit', () => { exceeded('the thread ended') })
    })
  } finally {
    clearTimeout(timer)
    void thread.terminate()
  }
}

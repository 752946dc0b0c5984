// Entry of a thread that compiles one module and says how that went: null, or the error with its line.

import { parentPort, workerData } from 'node:worker_threads'
import type { CompileProblem } from './compile-check.js'
import type { ModuleSource } from './protocol.js'
import { ModuleError } from './lua-module.js'
import { LuaVm } from './vm.js'

const { name, content } = workerData as ModuleSource
let problem: CompileProblem | null = null
try {
  new LuaVm().compile(name, content)
} catch (error) {
  if (!(error instanceof ModuleError)) throw error
  problem = { line: error.line, message: error.message }
}
parentPort?.postMessage(problem)

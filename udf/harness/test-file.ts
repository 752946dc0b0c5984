// Runs the tests of one file: its global functions whose names begin with `test_`, each in virtual machines of its own.

import type { TValue } from '../fengari.js'
import { ModuleError } from '../lua-module.js'
import type { LuaModule } from '../lua-module.js'
import { ModuleSet } from '../module-set.js'
import type { ModuleSource } from '../protocol.js'
import { LuaVm } from '../vm.js'
import type { LogLine } from '../vm.js'
import { LocalNode } from './local-node.js'
import { TestClock } from './test-clock.js'
import { installTestLibrary } from './test-library.js'

const TEST_PREFIX = 'test_'
/** Of one test, with all its calls; a function that is called has its own limit. */
const TEST_TIME_LIMIT_MS = 60_000

export interface TestFile {
  readonly source: ModuleSource
  /** The modules that its tests can call. */
  readonly modules: readonly ModuleSource[]
}

export interface TestFailure {
  /** Of the test file or of a module; empty when it is not known. */
  readonly file: string
  readonly line: number
  readonly message: string
}

export interface TestOutcome {
  readonly name: string
  readonly milliseconds: number
  readonly failure: TestFailure | null
  /** What the functions logged, and what the test printed. */
  readonly logged: readonly LogLine[]
}

interface Loaded {
  readonly vm: LuaVm
  readonly module: LuaModule
  readonly logged: LogLine[]
}

/** Everything new, so that no test sees what another left in a module's locals. Throws ModuleError. */
function load ({ source, modules }: TestFile): Loaded {
  const clock = new TestClock()
  const node = new LocalNode(modules, clock)
  const vm = new LuaVm({
    logLevel: 4,
    log: line => { node.logged.push(line) },
    extend: environment => { installTestLibrary(environment, node, clock) }
  })
  const set = ModuleSet.over(vm, name => name === source.name ? source : modules.find(module => module.name === name))
  const module = set.find(source.name)
  if (module instanceof ModuleError) throw module
  return { vm, module: module!, logged: node.logged }
}

/** Names of the tests, in the order of the file. Throws ModuleError when it does not load. */
export function testsOf (file: TestFile): string[] {
  return load(file).module.functionNames.filter(name => name.startsWith(TEST_PREFIX))
}

export function runTest (file: TestFile, name: string): TestOutcome {
  const started = performance.now()
  let logged: readonly LogLine[] = []
  let failure: TestFailure | null = null
  try {
    const loaded = load(file)
    logged = loaded.logged
    const fn: TValue | undefined = loaded.module.function(name)
    if (fn === undefined) throw new ModuleError(0, `there is no function ${name}`)
    const outcome = loaded.vm.call(loaded.module, fn, null, [], TEST_TIME_LIMIT_MS)
    if (!outcome.ok) failure = failureOf(outcome.message)
  } catch (error) {
    if (!(error instanceof ModuleError)) throw error
    failure = { file: file.source.name, line: error.line, message: error.message }
  }
  return { name, milliseconds: performance.now() - started, failure, logged }
}

function failureOf (text: string): TestFailure {
  const [, file, line, message] = /^([^:\n]*):(\d+): (.*)$/s.exec(text) ?? []
  return file === undefined ? { file: '', line: 0, message: text } : { file, line: Number(line), message: message! }
}

// The versions of the modules on one worker: the one in force, and the one that a change is preparing.
//
// A change comes into force in two phases: every worker prepares it, then the host writes its number into memory that all of them share.
// Each task looks at that number when it starts. So a version is in force everywhere at once, and a task goes on with the one that it
// started with.

import { LuaModule } from './lua-module.js'
import type { ModuleError } from './lua-module.js'
import { ModuleSet } from './module-set.js'
import type { LoadFailure, LoadObserver, ModuleChange } from './module-set.js'
import type { ModuleToLoad } from './protocol.js'
import type { LuaVm } from './vm.js'

export class ModuleVersions {
  readonly #shared: Int32Array
  #version: number
  #set: ModuleSet
  /** Modules by the names that calls have used: only what exists, so they have a bound. */
  #found = new Map<string, LuaModule>()
  #prepared: { version: number, set: ModuleSet } | null = null

  /** Loads the modules of version `version`. `shared[0]` is the number of the version in force. */
  constructor (vm: LuaVm, shared: Int32Array, version: number, modules: readonly ModuleToLoad[], observe?: LoadObserver) {
    this.#shared = shared
    this.#version = version
    const byName = new Map(modules.map(module => [module.name, module]))
    this.#set = ModuleSet.over(vm, name => byName.get(name), observe)
    for (const { name } of modules) this.#set.find(name)
  }

  /** What is registered and not usable in the version that the worker started with. */
  get failures (): readonly LoadFailure[] {
    return this.#set.failures
  }

  /** The module of a name, in the version in force; the reason when it is not usable. */
  find (name: string): LuaModule | ModuleError | undefined {
    if (Atomics.load(this.#shared, 0) !== this.#version) this.#switch()
    return this.#found.get(name) ?? this.#lookUp(name)
  }

  #lookUp (name: string): LuaModule | ModuleError | undefined {
    const module = this.#set.find(name)
    if (module instanceof LuaModule) this.#found.set(name, module)
    return module
  }

  #switch (): void {
    const version = Atomics.load(this.#shared, 0)
    if (this.#prepared === null || this.#prepared.version !== version) throw new Error(`modules of version ${version} are in force, and not prepared here`)
    this.#set = this.#prepared.set.serve()
    this.#version = version
    this.#found = new Map()
    this.#prepared = null
  }

  /**
   * Loads what a change of the version in force touches. The failures are those that the change brings; `refused` is one that speaks
   * against it: of the module itself, or of one that works without the change. To wait for a module that is not there is none.
   */
  prepare (version: number, change: ModuleChange, observe?: LoadObserver): { refused: LoadFailure | undefined, failures: readonly LoadFailure[] } {
    if (Atomics.load(this.#shared, 0) !== this.#version) this.#switch()
    const set = this.#set.changed(change, observe)
    this.#prepared = { version, set }
    const refused = change.source === undefined
      ? undefined
      : set.failures.find(({ name, error }) => !error.waiting && (name === change.name || this.#set.find(name) instanceof LuaModule))
    return { refused, failures: set.failures }
  }
}

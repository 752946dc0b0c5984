// All modules as one version has them: what `require` and the calls of clients find.
//
// A set never changes once it serves calls. A change makes another set: the module that changed, and those that require it, directly or
// through others, are loaded anew into it, the rest is shared. So a call never meets two versions of one module, and a set that turned out
// bad is dropped without a trace.

import { LuaModule, ModuleError } from './lua-module.js'
import type { ModuleToLoad } from './protocol.js'
import type { LuaVm, ModuleResolver } from './vm.js'

/** Names that one module may give to `require`. */
const REQUIRED_NAMES_MAX = 256
const EXTENSION = '.lua'

interface Entry {
  readonly module: LuaModule | ModuleError
  /** File names of what it required so far, there or not. */
  readonly requires: Set<string>
}

/** A module whose main chunk runs. */
interface Loading {
  readonly file: string
  readonly requires: Set<string>
  /** What `require` said of modules that are not there. */
  readonly absences: string[]
}

/** A module that is registered and not usable. */
export interface LoadFailure {
  /** File name. */
  readonly name: string
  readonly error: ModuleError
}

export interface ModuleChange {
  /** File name. */
  readonly name: string
  /** Undefined removes it. */
  readonly source: ModuleToLoad | undefined
}

export type ModuleSource = (fileName: string) => ModuleToLoad | undefined

/** Told what is about to load; undefined when that is through and the one around it goes on. */
export type LoadObserver = (source: ModuleToLoad | undefined) => void

/** The name by which clients call a module: without `.lua`. */
export function moduleName (fileName: string): string {
  return fileName.endsWith(EXTENSION) ? fileName.slice(0, -EXTENSION.length) : fileName
}

function fileOf (name: string): string {
  return name.endsWith(EXTENSION) ? name : name + EXTENSION
}

export class ModuleSet implements ModuleResolver {
  readonly #vm: LuaVm
  readonly #source: ModuleSource
  /** What changed since the first set; null for what was removed. */
  readonly #changes: ReadonlyMap<string, ModuleToLoad | null>
  readonly #observe: LoadObserver
  readonly #entries: Map<string, Entry>
  /** Entries by the name that was asked for, with or without `.lua`. */
  readonly #called = new Map<string, Entry>()
  readonly #loading: Loading[] = []
  readonly #failures: LoadFailure[] = []

  private constructor (vm: LuaVm, source: ModuleSource, changes: ReadonlyMap<string, ModuleToLoad | null>, entries: Map<string, Entry>, observe: LoadObserver) {
    this.#vm = vm
    this.#source = source
    this.#changes = changes
    this.#entries = entries
    this.#observe = observe
  }

  /** A set over sources that are looked up, and loaded, when something first needs them; it serves the virtual machine from here on. */
  static over (vm: LuaVm, source: ModuleSource, observe: LoadObserver = () => {}): ModuleSet {
    const set = new ModuleSet(vm, source, new Map(), new Map(), observe)
    vm.resolver = set
    return set
  }

  /** The module of a name, with or without `.lua`: undefined when there is none, the reason when it is not usable. */
  find (name: string): LuaModule | ModuleError | undefined {
    const found = this.#called.get(name)
    if (found !== undefined) return found.module
    const file = fileOf(name)
    const entry = this.#entries.get(file) ?? this.#load(file)
    // Only names that are there: others come from clients and have no bound.
    if (entry !== undefined) this.#called.set(name, entry)
    return entry?.module
  }

  /** What this set loaded in vain. */
  get failures (): readonly LoadFailure[] {
    return this.#failures
  }

  require (name: string, from: LuaModule): LuaModule {
    const file = fileOf(name)
    const loading = this.#loading.find(frame => frame.file === from.name)
    if (loading !== undefined && !loading.requires.has(file)) {
      if (loading.requires.size >= REQUIRED_NAMES_MAX) throw new ModuleError(0, `a module cannot require more than ${REQUIRED_NAMES_MAX} others`)
      loading.requires.add(file)
    }
    const at = this.#loading.findIndex(frame => frame.file === file)
    if (at >= 0) {
      const chain = [...this.#loading.slice(at).map(frame => frame.file), file]
      throw new ModuleError(0, `modules require each other while they load: ${chain.map(moduleName).join(' -> ')}`)
    }
    const found = this.find(file)
    if (found instanceof LuaModule) {
      // In a call: a change of that module is one of this module as well, which may keep what it got.
      if (loading === undefined) this.#entries.get(from.name)?.requires.add(file)
      return found
    }
    const error = found === undefined
      ? new ModuleError(0, `module '${name}' is not registered: 'require' finds modules that were put on this node, nothing else`, true)
      : new ModuleError(0, `module '${moduleName(file)}' failed to load: ${found.line === 0 ? '' : `${file}:${found.line}: `}${found.message}`, found.waiting)
    if (error.waiting) loading?.absences.push(error.message)
    throw error
  }

  /** The set after a change, with all that the change touches loaded. It serves no calls before `serve`. */
  changed ({ name, source }: ModuleChange, observe: LoadObserver = this.#observe): ModuleSet {
    const touched = this.#dependents(name)
    const next = new ModuleSet(
      this.#vm, this.#source, new Map(this.#changes).set(name, source ?? null),
      new Map([...this.#entries].filter(([file]) => !touched.has(file))), observe)
    this.#vm.resolver = next
    for (const file of touched) next.find(file)
    this.#vm.resolver = this
    return next
  }

  /** From here on the calls of the virtual machine find this set's modules. */
  serve (): this {
    this.#vm.resolver = this
    return this
  }

  /** The module of that name, and all that require it, directly or through others. */
  #dependents (name: string): Set<string> {
    const found = new Set([name])
    for (const wanted of found) {
      for (const [file, { requires }] of this.#entries) if (requires.has(wanted)) found.add(file)
    }
    return found
  }

  #sourceOf (file: string): ModuleToLoad | undefined {
    const changed = this.#changes.get(file)
    return changed === undefined ? this.#source(file) : changed ?? undefined
  }

  #load (file: string): Entry | undefined {
    const source = this.#sourceOf(file)
    if (source === undefined) return undefined
    const frame: Loading = { file, requires: new Set(), absences: [] }
    let module: LuaModule | ModuleError
    this.#loading.push(frame)
    this.#observe(source)
    try {
      module = source.refused === undefined ? this.#vm.load(file, source.content) : new ModuleError(0, source.refused)
    } catch (error) {
      if (!(error instanceof ModuleError)) throw error
      const waiting = frame.absences.some(absence => error.message.includes(absence))
      module = waiting ? new ModuleError(error.line, error.message, true) : error
    } finally {
      this.#loading.pop()
      this.#observe(undefined)
    }
    const entry = { module, requires: frame.requires }
    this.#entries.set(file, entry)
    if (module instanceof ModuleError) this.#failures.push({ name: file, error: module })
    return entry
  }
}

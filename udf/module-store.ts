// Lua modules on disk: one file each under `<work-directory>/udf/`.
//
// After a crash at any moment the old content of a module or the new one is there, whole. Temporary files that a crash left behind are removed at opening.

import { createHash } from 'node:crypto'
import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { makeDirectory } from '../src/files/make-directory.js'
import { TEMPORARY_SUFFIX, replaceFile, syncDirectory } from '../src/files/replace-file.js'
import { CompileCheck } from './compile-check.js'
import { UdfError } from './errors.js'
import type { ModuleSource } from './protocol.js'

export const MODULE_BYTES_MAX = 1024 * 1024
/** A file name is shorter than this. */
export const MODULE_NAME_BYTES_LIMIT = 128

export interface ModuleInfo {
  readonly name: string
  readonly type: 'LUA'
  /** SHA-1, in lower-case hexadecimal, of the module's metadata: JSON of content64, type and name. */
  readonly hash: string
}

// Letters, digits and a few marks: no path separators, and nothing that separates fields of the info protocol.
const NAME = /^[A-Za-z0-9_][A-Za-z0-9_.+@-]*\.lua$/

/** Whether a file of that name can be a module. */
export function isModuleName (name: string): boolean {
  return NAME.test(name) && Buffer.byteLength(name) < MODULE_NAME_BYTES_LIMIT
}

export function checkModuleName (name: string): void {
  const fail = (why: string): never => { throw new UdfError('udf-name', `module file name ${JSON.stringify(name.slice(0, MODULE_NAME_BYTES_LIMIT))}: ${why}`) }
  if (Buffer.byteLength(name) >= MODULE_NAME_BYTES_LIMIT) fail(`must be shorter than ${MODULE_NAME_BYTES_LIMIT} bytes`)
  if (!name.endsWith('.lua')) fail('must end in .lua')
  if (!NAME.test(name)) fail('may hold letters, digits and _ . + @ - only')
}

export function moduleHash ({ name, content }: ModuleSource): string {
  const text = JSON.stringify({ content64: Buffer.from(content).toString('base64'), type: 'LUA', name })
  return createHash('sha1').update(text).digest('hex')
}

export class ModuleStore {
  readonly #directory: string
  readonly #modules = new Map<string, ModuleSource>()
  /** Compiles, never runs: a main chunk runs on the workers only. */
  readonly #compiler = new CompileCheck()

  constructor (workDirectory: string) {
    this.#directory = join(workDirectory, 'udf')
  }

  async open (): Promise<void> {
    await makeDirectory(this.#directory)
    for (const entry of await readdir(this.#directory, { withFileTypes: true })) {
      if (!entry.isFile()) continue
      const path = join(this.#directory, entry.name)
      if (entry.name.endsWith(TEMPORARY_SUFFIX)) {
        await rm(path, { force: true })
      } else if (NAME.test(entry.name)) {
        this.#modules.set(entry.name, { name: entry.name, content: new Uint8Array(await readFile(path)) })
      }
    }
  }

  /** All modules, by name. */
  get modules (): ModuleSource[] {
    return [...this.#modules.values()].sort((a, b) => a.name < b.name ? -1 : 1)
  }

  list (): ModuleInfo[] {
    return this.modules.map(module => ({ name: module.name, type: 'LUA', hash: moduleHash(module) }))
  }

  get (name: string): ModuleSource | undefined {
    return this.#modules.get(name)
  }

  /** A module of this content, if it may be stored; else throws UdfError, whose `line` is that of a compile error. */
  async check (name: string, content: Uint8Array): Promise<ModuleSource> {
    checkModuleName(name)
    if (content.length > MODULE_BYTES_MAX) {
      throw new UdfError('udf-too-large', `module ${name} has ${content.length} bytes, the limit is ${MODULE_BYTES_MAX}`)
    }
    const module = { name, content: content.slice() }
    const problem = await this.#compiler.compile(module)
    if (problem !== null) throw new UdfError('udf-compile', problem.message, { line: problem.line })
    return module
  }

  /** Stores a module that was checked; it is durable when this resolves. */
  async write (module: ModuleSource): Promise<void> {
    const path = join(this.#directory, module.name)
    try {
      await replaceFile(path, module.content)
    } catch (error) {
      throw new UdfError('udf-storage', `cannot write ${path}: ${(error as Error).message}`, { cause: error })
    }
    this.#modules.set(module.name, module)
  }

  /** Removing what is not there is done already. */
  async remove (name: string): Promise<void> {
    checkModuleName(name)
    const path = join(this.#directory, name)
    try {
      await rm(path, { force: true })
      await syncDirectory(this.#directory)
    } catch (error) {
      throw new UdfError('udf-storage', `cannot remove ${path}: ${(error as Error).message}`, { cause: error })
    }
    this.#modules.delete(name)
  }
}

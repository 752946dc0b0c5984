// Lua modules and their tests as files: NAME.lua, and NAME.test.lua beside it.

import { readdir, readFile, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { isModuleName } from '../../udf/module-store.js'
import { CommandError } from './io.js'

export const MODULE_SUFFIX = '.lua'
export const TEST_SUFFIX = '.test.lua'

export interface LuaFile {
  readonly path: string
  readonly name: string
  readonly content: Buffer
}

export async function readLuaFile (path: string): Promise<LuaFile> {
  return { path, name: basename(path), content: await readFile(path).catch((error: unknown) => { throw unreadable(path, error) }) }
}

function unreadable (path: string, error: unknown): CommandError {
  return new CommandError(`${path} cannot be read (${(error as NodeJS.ErrnoException).code})`)
}

function isModule (name: string): boolean {
  return isModuleName(name) && !name.endsWith(TEST_SUFFIX)
}

async function namesIn (folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: unknown) => { throw unreadable(folder, error) })
  return entries.filter((entry) => !entry.isDirectory()).map(({ name }) => name).sort()
}

async function isFolder (path: string): Promise<boolean> {
  return (await stat(path).catch((error: unknown) => { throw unreadable(path, error) })).isDirectory()
}

/** The modules that paths name: files as they are, of folders all files that can be modules and are no tests. Each once. */
export async function modulePaths (paths: readonly string[]): Promise<string[]> {
  const found = await Promise.all(paths.map(async (path) => {
    if (!await isFolder(path)) return [path]
    const names = (await namesIn(path)).filter(isModule)
    if (names.length === 0) throw new CommandError(`there are no Lua modules in ${path}`)
    return names.map((name) => join(path, name))
  }))
  return [...new Set(found.flat())]
}

/** The test files that paths name: those, those beside modules, and all in folders. Each once. */
export async function testPaths (paths: readonly string[]): Promise<string[]> {
  const found = await Promise.all(paths.map(async (path) => {
    if (await isFolder(path)) {
      const names = (await namesIn(path)).filter((name) => name.endsWith(TEST_SUFFIX))
      if (names.length === 0) throw new CommandError(`there are no tests (NAME${TEST_SUFFIX}) in ${path}`)
      return names.map((name) => join(path, name))
    }
    if (path.endsWith(TEST_SUFFIX)) return [path]
    if (!path.endsWith(MODULE_SUFFIX)) throw new CommandError(`${path} is neither a Lua file nor a folder`)
    const test = testBeside(path)
    if (await stat(test).catch(() => undefined) === undefined) throw new CommandError(`${path} has no tests: there is no ${test}`)
    return [test]
  }))
  return [...new Set(found.flat())]
}

export function testBeside (modulePath: string): string {
  return modulePath.slice(0, -MODULE_SUFFIX.length) + TEST_SUFFIX
}

/** Every module in the folder of a file: what its tests can call. */
export async function modulesBeside (path: string): Promise<LuaFile[]> {
  const folder = dirname(path)
  return await Promise.all((await namesIn(folder)).filter(isModule).map(async (name) => await readLuaFile(join(folder, name))))
}

/** The line that an error is in, as it is shown below the error; empty when there is none. */
export function excerpt (content: Uint8Array | undefined, line: number): string {
  const text = content === undefined || line < 1 ? undefined : Buffer.from(content).toString('utf8').split('\n')[line - 1]
  return text === undefined || text.trim() === '' ? '' : `\n    ${line} | ${text.trimEnd()}`
}

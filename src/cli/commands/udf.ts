import { writeFile } from 'node:fs/promises'
import { parsePairs } from '../../client/info.js'
import { CommandError, UsageError, type Io } from '../io.js'
import { excerpt, modulePaths, readLuaFile } from '../lua-files.js'
import { table } from '../table.js'
import { askInfo, checked, rawInfos, type TargetOptions } from '../target.js'
import { plainName } from './amounts.js'

/** Why a node does not take a module. */
export interface Refusal {
  /** Of the module's source, where that is known. */
  readonly line?: number
  readonly message: string
}

export async function put (io: Io, paths: readonly string[], options: TargetOptions & { name?: string }): Promise<void> {
  const files = await modulePaths(paths)
  if (options.name !== undefined && files.length > 1) throw new UsageError('--name goes with a single file')
  const refused: string[] = []
  const registered: string[] = []
  for (const path of files) {
    const { name: fileName, content } = await readLuaFile(path)
    const name = options.name ?? fileName
    const refusal = await register(options, name, content)
    if (refusal !== undefined) refused.push(refusalText(name, refusal, content))
    else registered.push(name)
  }
  if (options.json === true) io.out(registered.map((name) => `${JSON.stringify({ name })}\n`).join(''))
  else io.out(registered.map((name) => `registered ${name}\n`).join(''))
  if (refused.length > 0) throw new CommandError(refused.join('\n'))
}

/** Puts a module in force on a node. Throws when there is no proper answer. */
export async function register (options: TargetOptions, name: string, source: Buffer): Promise<Refusal | undefined> {
  const content = source.toString('base64')
  const [answer] = await rawInfos(options, [`udf-put:filename=${plainName(name)};content=${content};content-len=${content.length};udf-type=LUA;`])
  const parts = parsePairs(answer ?? '')
  const line = Number(parts.get('line'))
  // Of its source: it does not compile, or its main chunk fails.
  if (parts.has('error') && line > 0) return { line, message: Buffer.from(parts.get('message') ?? '', 'base64').toString('utf8') }
  try {
    checked('udf-put', answer)
    return undefined
  } catch (error) {
    if (answer === undefined || !(error instanceof CommandError)) throw error
    return { message: error.message }
  }
}

/** A refusal with its place, and the line of the source that is there. */
export function refusalText (module: string, { line, message }: Refusal, source?: Uint8Array): string {
  return line === undefined ? `${module}: ${message}` : `${module}:${line}: ${message}${excerpt(source, line)}`
}

export async function list (io: Io, options: TargetOptions): Promise<void> {
  const modules = (await askInfo(options, 'udf-list')).split(';').filter((part) => part !== '').map((part) => {
    const module = parsePairs(part, ',')
    return { name: module.get('filename') ?? '', type: module.get('type') ?? '', hash: module.get('hash') ?? '' }
  })
  if (options.json === true) io.out(`${JSON.stringify(modules)}\n`)
  else if (modules.length === 0) io.out('no modules\n')
  else {
    io.out(table(modules, [
      { title: 'module', value: ({ name }) => name }, { title: 'type', value: ({ type }) => type }, { title: 'hash', value: ({ hash }) => hash }
    ], io.colours.out))
  }
}

export async function get (io: Io, name: string, options: TargetOptions & { output?: string }): Promise<void> {
  const content = parsePairs(await askInfo(options, `udf-get:filename=${name};`)).get('content')
  if (content === undefined) throw new CommandError(`udf-get: the answer for ${name} has no content`)
  const source = Buffer.from(content, 'base64')
  if (options.output !== undefined) await writeFile(options.output, source)
  if (options.json === true) io.out(`${JSON.stringify({ name, content: source.toString('utf8') })}\n`)
  else if (options.output === undefined) io.out(source.toString('utf8'))
}

export async function remove (io: Io, name: string, options: TargetOptions): Promise<void> {
  await askInfo(options, `udf-remove:filename=${name};`)
  if (options.json === true) io.out(`${JSON.stringify({ name })}\n`)
  else io.out(`removed ${name}\n`)
}

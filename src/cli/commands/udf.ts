import { readFile, writeFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { parsePairs } from '../../client/info.js'
import { CommandError, type Io } from '../io.js'
import { table } from '../table.js'
import { askInfo, type TargetOptions } from '../target.js'

export async function put (io: Io, file: string, options: TargetOptions & { name?: string }): Promise<void> {
  const content = (await contentOf(file)).toString('base64')
  const name = options.name ?? basename(file)
  await askInfo(options, `udf-put:filename=${name};content=${content};content-len=${content.length};udf-type=LUA;`)
  if (options.json === true) io.out(`${JSON.stringify({ name })}\n`)
  else io.out(`registered ${name}\n`)
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

async function contentOf (file: string): Promise<Buffer> {
  try {
    return await readFile(file)
  } catch (error) {
    throw new CommandError(`${file} cannot be read (${(error as NodeJS.ErrnoException).code})`)
  }
}

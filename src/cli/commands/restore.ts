import { rm, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { createReadStream, type Stats } from 'node:fs'
import { AsbReader } from '../../backup/asb-reader.js'
import { backupFiles, readManifest, verifyFiles } from '../../backup/manifest.js'
import { Progress } from '../../backup/progress.js'
import { RestoreState, type RestoreCounts } from '../../backup/restore-state.js'
import { Restore, type RestoreSource } from '../../backup/restore.js'
import { CommandError, UsageError, type Io } from '../io.js'
import { timeoutOf, withClient, type TargetOptions } from '../target.js'
import { durationOf, listOf, numberOf } from './amounts.js'

export interface RestoreCommandOptions extends TargetOptions {
  readonly namespace?: string
  readonly directory?: string
  readonly inputFile?: string
  readonly setList?: string
  readonly binList?: string
  readonly parallel: string
  readonly recordsPerSecond: string
  readonly unique?: boolean
  readonly replace?: boolean
  readonly generation: boolean
  readonly ignoreRecordError?: boolean
  readonly extraTtl: string
  readonly records: boolean
  readonly udfs: boolean
  readonly indexes: boolean
  readonly retryFor: string
  readonly continue?: string
  readonly verify: boolean
  readonly validate?: boolean
}

/** Every reader keeps some writes under way; together they need more than one connection. */
const CONNECTIONS = 4
const READ_BYTES = 1 << 20

/** Resolves to the code to end with. */
export async function restore (io: Io, options: RestoreCommandOptions): Promise<number> {
  if (options.unique === true && options.replace === true) throw new UsageError('--unique and --replace exclude each other')
  const { sources, bytes, where } = await sourcesOf(io, options)
  if (options.validate === true) return await validate(io, sources, options.json === true)
  const [from, to, ...more] = options.namespace?.split(',') ?? []
  if (more.length > 0 || from === '' || to === '') throw new UsageError('--namespace is NAME, or FROM,TO')
  let statePath = options.continue ?? (where === undefined ? undefined : where.directory ? join(where.path, 'perigee-restore.state') : `${where.path}.restore.state`)
  const state = options.continue === undefined ? new RestoreState(where?.path ?? '-') : await RestoreState.load(options.continue, where?.path ?? '-')
  const patienceMs = durationOf('--retry-for', options.retryFor)

  return await withClient(options, async (client) => {
    if (to !== undefined && !client.namespaces.includes(to)) throw new CommandError(`there is no namespace ${to}; there are: ${client.namespaces.join(', ')}`)
    const progress = new Progress({ isTerminal: io.isErrTerminal, write: (text) => io.err(text) }, bytes, 'bytes')
    const interrupted = io.interrupted()
    const save = async (): Promise<void> => {
      if (statePath !== undefined) await state.save(statePath)
    }
    await save().catch((error: NodeJS.ErrnoException) => {
      if (options.continue !== undefined) throw error
      // A backup may well lie where nothing can be written.
      io.err(`perigee: ${statePath} cannot be written (${error.code}): a restore that is stopped has to begin anew\n`)
      statePath = undefined
    })
    const job = new Restore(client, state, {
      from,
      to,
      sets: new Set(listOf(options.setList)),
      bins: new Set(listOf(options.binList)),
      records: options.records,
      udfs: options.udfs,
      indexes: options.indexes,
      policy: { unique: options.unique === true, replace: options.replace === true, noGeneration: !options.generation },
      ignoreRecordErrors: options.ignoreRecordError === true,
      extraTtl: Math.round(durationOf('--extra-ttl', options.extraTtl) / 1000),
      parallel: numberOf('--parallel', options.parallel, 1, 64),
      recordsPerSecond: numberOf('--records-per-second', options.recordsPerSecond, 0, 0xffff_ffff),
      timeoutMs: timeoutOf(options),
      patienceMs,
      signal: interrupted,
      onProgress: (records, read) => progress.update(records, read),
      onWarning: (text) => progress.line(`perigee: ${text}`),
      save
    })
    let complete: boolean
    try {
      complete = await job.run(sources)
    } catch (error) {
      progress.end()
      // Why it failed is what counts; the state is as of a moment ago then.
      await save().catch(() => {})
      report(io, state.counts, false, options.json === true)
      throw new CommandError(`${(error as Error).message}${statePath === undefined ? '' : `; go on with --continue ${statePath}`}`)
    }
    progress.end()
    if (complete && statePath !== undefined) await rm(statePath, { force: true })
    else await save()
    report(io, state.counts, complete, options.json === true)
    if (!complete) io.err(`perigee: stopped before the end${statePath === undefined ? '' : `; go on with --continue ${statePath}`}\n`)
    return complete && state.counts.errors === 0 && state.counts.tooBig === 0 && state.counts.indexesRefused === 0 ? 0 : 1
  }, { connectionsMax: CONNECTIONS })
}

interface Sources {
  readonly sources: RestoreSource[]
  /** Of all files; 0 when nobody knows. */
  readonly bytes: number
  readonly where: { readonly path: string, readonly directory: boolean } | undefined
}

async function sourcesOf (io: Io, options: RestoreCommandOptions): Promise<Sources> {
  const { directory, inputFile } = options
  if ((directory === undefined) === (inputFile === undefined)) throw new UsageError('either --directory or --input-file is needed')
  if (inputFile === '-') {
    return once('stdin', io.input(), options)
  }
  const path = resolve(directory ?? inputFile!)
  const names = directory === undefined ? [path] : await filesOf(path)
  if (directory !== undefined && options.verify) {
    const manifest = await readManifest(path)
    if (manifest !== undefined) await verifyFiles(path, manifest)
  }
  let bytes = 0
  const sources: RestoreSource[] = []
  for (const name of names) {
    const file = directory === undefined ? path : join(path, name)
    const found = await entryOf(file)
    if (found.isDirectory()) throw new CommandError(`${file} is a directory${directory === undefined ? '; --directory reads one' : ''}`)
    if (directory === undefined && !found.isFile()) return once(inputFile!, opened(file), options)
    bytes += found.size
    sources.push({ name: directory === undefined ? inputFile! : name, path: file })
  }
  return { sources, bytes, where: { path, directory: directory !== undefined } }
}

/** What can be read only once: stdin, or a pipe. */
function once (name: string, stream: AsyncIterable<Buffer>, options: RestoreCommandOptions): Sources {
  if (options.continue !== undefined) throw new UsageError(`what comes from ${name} cannot be continued`)
  return { sources: [{ name, path: undefined, stream }], bytes: 0, where: undefined }
}

/** Opened when it is read: the opening of a pipe waits for who writes to it. */
async function * opened (path: string): AsyncGenerator<Buffer, void> {
  yield * createReadStream(path, { highWaterMark: READ_BYTES }) as AsyncIterable<Buffer>
}

async function filesOf (directory: string): Promise<string[]> {
  let names: string[]
  try {
    names = await backupFiles(directory)
  } catch (error) {
    throw new CommandError(`${directory} cannot be read (${(error as NodeJS.ErrnoException).code})`)
  }
  if (names.length === 0) throw new CommandError(`${directory} has no .asb files`)
  return names
}

async function entryOf (file: string): Promise<Stats> {
  try {
    return await stat(file)
  } catch (error) {
    throw new CommandError(`${file} cannot be read (${(error as NodeJS.ErrnoException).code}, in ${dirname(file)})`)
  }
}

/** Reads everything and writes nothing. */
async function validate (io: Io, sources: readonly RestoreSource[], json: boolean): Promise<number> {
  const found = { files: sources.length, records: 0, modules: 0, indexes: 0 }
  for (const { name, path, stream } of sources) {
    for await (const items of new AsbReader(name).items(stream ?? opened(path!))) {
      for (const { kind } of items) found[`${kind === 'index' ? 'indexe' : kind}s`]++
    }
  }
  if (json) io.out(`${JSON.stringify(found)}\n`)
  else io.out(`${found.files} files: ${found.records} records, ${found.modules} modules, ${found.indexes} indexes\n`)
  return 0
}

function report (io: Io, counts: RestoreCounts, complete: boolean, json: boolean): void {
  if (json) {
    io.out(`${JSON.stringify({ ...counts, complete })}\n`)
    return
  }
  const { read, inserted, existed, fresher, expired, skipped, tooBig, errors, modules, indexes, indexesRefused, retries } = counts
  io.out(`${read} records: ${inserted} inserted, ${existed} existed, ${fresher} fresher, ${expired} expired, ${skipped} skipped, ${tooBig} too big, ${errors} refused; ` +
    `${modules} modules, ${indexes} indexes${indexesRefused === 0 ? '' : `, ${indexesRefused} indexes NOT created`}${retries === 0 ? '' : `; ${retries} retries`}\n`)
}

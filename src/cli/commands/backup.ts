import { rm, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { AsbWriter, UnwritableError } from '../../backup/asb-writer.js'
import { BackupState, type BackupChoice } from '../../backup/backup-state.js'
import { Backup, artifactsOf, removeArtifacts, type BackupOutcome, type BackupTarget } from '../../backup/backup.js'
import { readManifest, verifyFiles } from '../../backup/manifest.js'
import { allPartitions, parsePartitions, partitionsAfter, type PartitionCursors } from '../../backup/partitions.js'
import { Progress, sizeText } from '../../backup/progress.js'
import type { Client } from '../../client/client.js'
import { parsePairs } from '../../client/info.js'
import { makeDirectory } from '../../files/make-directory.js'
import { CommandError, UsageError, type Io } from '../io.js'
import { withClient, type TargetOptions } from '../target.js'
import { durationOf, listOf, numberOf } from './amounts.js'

export interface BackupCommandOptions extends TargetOptions {
  readonly namespace?: string
  readonly set?: string[]
  readonly binList?: string
  readonly directory?: string
  readonly outputFile?: string
  readonly outputFilePrefix?: string
  readonly parallel: string
  readonly partitionList?: string
  readonly afterDigest?: string
  readonly maxRecords: string
  readonly recordsPerSecond: string
  readonly fileLimit: string
  readonly socketTimeout: string
  readonly retryFor: string
  readonly compact?: boolean
  readonly records: boolean
  readonly udfs: boolean
  readonly indexes: boolean
  readonly bins: boolean
  readonly ttlOnly: boolean
  readonly estimate?: boolean
  readonly estimateSamples: string
  readonly continue?: string
  readonly removeFiles?: boolean
  readonly removeArtifacts?: boolean
  readonly verify?: string
  readonly verbose?: boolean
  readonly modifiedAfter?: string
  readonly modifiedBefore?: string
  readonly filterExp?: string
}

const MEBIBYTE = 1 << 20

/** Resolves to the code to end with. */
export async function backup (io: Io, options: BackupCommandOptions): Promise<number> {
  for (const [name, value] of Object.entries({ '--modified-after': options.modifiedAfter, '--modified-before': options.modifiedBefore, '--filter-exp': options.filterExp })) {
    if (value !== undefined) throw new UsageError(`${name} needs filter expressions, which this version does not have`)
  }
  if (options.verify !== undefined) return await verify(io, options.verify, options.json === true)
  if (options.removeArtifacts === true) return await clear(io, options)
  const resumed = options.continue === undefined ? undefined : await BackupState.load(options.continue)
  const namespace = resumed?.choice.namespace ?? options.namespace
  if (namespace === undefined) throw new UsageError('--namespace is missing')
  const patience = durationOf('--retry-for', options.retryFor)
  const state = resumed ?? new BackupState(new Date().toISOString(), choiceOf(namespace, options), partitionsOf(options))
  return await withClient(options, async (client) => {
    if (!client.namespaces.includes(namespace)) throw new CommandError(`there is no namespace ${namespace}; there are: ${client.namespaces.join(', ')}`)
    if (options.estimate === true) return await estimate(io, client, state, options)
    const target = await targetOf(io, options, state, resumed !== undefined)
    const total = state.choice.recordsLeft ?? await objectsOf(client, state.choice)
    const toStdout = 'write' in target
    const progress = new Progress({ isTerminal: io.isErrTerminal, write: (text) => io.err(text) }, total, 'records')
    const interrupted = io.interrupted()
    const job = new Backup(client, state, target, {
      parallel: numberOf('--parallel', options.parallel, 1, 64),
      fileBytesMax: numberOf('--file-limit', options.fileLimit, 1, 1 << 20) * MEBIBYTE,
      recordsPerSecond: numberOf('--records-per-second', options.recordsPerSecond, 0, 0xffff_ffff),
      socketTimeoutMs: numberOf('--socket-timeout', options.socketTimeout, 100, 3_600_000),
      patienceMs: patience,
      signal: interrupted,
      onProgress: (records, bytes) => progress.update(records, bytes),
      onWarning: (text) => { if (options.verbose === true || !text.startsWith('tried again')) progress.line(`perigee: ${text}`) }
    })
    let outcome: BackupOutcome
    try {
      outcome = await job.run()
    } catch (error) {
      progress.end()
      const more = 'statePath' in target ? `; go on with --continue ${target.statePath}` : ''
      throw new CommandError(`${(error as Error).message}${more}`)
    }
    progress.end()
    if (!toStdout) report(io, outcome, target, options.json === true)
    else io.err(`${summary(outcome)}\n`)
    if (!outcome.complete) io.err(`perigee: stopped before the end; ${'statePath' in target ? `go on with --continue ${target.statePath}` : 'nothing is kept of a single file'}\n`)
    return outcome.complete && outcome.missing === 0 ? 0 : 1
  })
}

function choiceOf (namespace: string, options: BackupCommandOptions): BackupChoice {
  const most = numberOf('--max-records', options.maxRecords, 0, Number.MAX_SAFE_INTEGER)
  return {
    namespace,
    sets: [...new Set((options.set ?? []).flatMap((sets) => sets.split(',')))],
    bins: listOf(options.binList),
    noBins: !options.bins,
    noTtlOnly: !options.ttlOnly,
    compact: options.compact === true,
    prefix: options.outputFilePrefix ?? namespace,
    records: options.records,
    udfs: options.udfs,
    indexes: options.indexes,
    recordsLeft: most === 0 ? null : most
  }
}

function partitionsOf ({ partitionList, afterDigest }: BackupCommandOptions): PartitionCursors {
  if (partitionList !== undefined && afterDigest !== undefined) throw new UsageError('--partition-list and --after-digest exclude each other')
  try {
    if (partitionList !== undefined) return parsePartitions(partitionList)
    return afterDigest === undefined ? allPartitions() : partitionsAfter(afterDigest)
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

async function targetOf (io: Io, options: BackupCommandOptions, state: BackupState, resumed: boolean): Promise<BackupTarget> {
  const { outputFile } = options
  // The state lies in the directory of the backup, unless it was moved.
  const directory = options.directory ?? (outputFile === undefined && options.continue !== undefined ? dirname(options.continue) : undefined)
  if ((directory === undefined) === (outputFile === undefined)) throw new UsageError('either --directory or --output-file is needed')
  if (outputFile !== undefined) {
    if (resumed) throw new UsageError('only a backup into a directory can be continued')
    if (outputFile === '-') {
      if (options.json === true) throw new UsageError('--json and a backup to stdout exclude each other')
      return { write: (bytes) => io.outBytes(bytes) }
    }
    const there = await stat(outputFile).catch(() => undefined)
    if (there?.isDirectory() === true) throw new CommandError(`${outputFile} is a directory; --directory writes into one`)
    if (options.removeFiles !== true && there !== undefined) throw new CommandError(`${outputFile} is there already; --remove-files replaces it`)
    return { file: resolve(outputFile) }
  }
  const path = resolve(directory!)
  const there = await within(path)
  const statePath = options.continue === undefined ? join(path, `${state.choice.namespace}.asb.state`) : resolve(options.continue)
  if (!resumed) {
    if (there.length > 0 && options.removeFiles !== true) throw new CommandError(`${path} holds a backup already (${there.length} files); --remove-files replaces it, --continue goes on with one that was stopped`)
    await removeArtifacts(path)
  }
  return { directory: path, statePath }
}

/** What of a backup is in a directory, which is made if it is not there. */
async function within (path: string): Promise<string[]> {
  try {
    await makeDirectory(path)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new CommandError(code === 'EEXIST' || code === 'ENOTDIR' ? `${path} is not a directory` : `${path} cannot be made (${code})`)
  }
  try {
    return await artifactsOf(path)
  } catch (error) {
    throw new CommandError(`${path} cannot be read (${(error as NodeJS.ErrnoException).code})`)
  }
}

async function clear (io: Io, { directory, outputFile, json }: BackupCommandOptions): Promise<number> {
  if ((directory === undefined) === (outputFile === undefined)) throw new UsageError('either --directory or --output-file is needed')
  const files = directory === undefined ? await removed(outputFile!) : await removeArtifacts(directory).catch((error: NodeJS.ErrnoException) => {
    throw new CommandError(`${directory} cannot be read (${error.code})`)
  })
  io.out(json === true ? `${JSON.stringify({ removed: files })}\n` : `removed ${files} ${files === 1 ? 'file' : 'files'}\n`)
  return 0
}

/** How many files that were. */
async function removed (file: string): Promise<number> {
  return await rm(file).then(() => 1, (error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return 0
    throw new CommandError(`${file} cannot be removed (${error.code})`)
  })
}

async function verify (io: Io, directory: string, json: boolean): Promise<number> {
  const manifest = await readManifest(directory)
  if (manifest === undefined) throw new CommandError(`${directory} has no manifest, so its files cannot be verified; perigee restore --validate reads them`)
  await verifyFiles(directory, manifest)
  if (json) io.out(`${JSON.stringify({ files: manifest.files.length, records: manifest.records, bytes: manifest.bytes })}\n`)
  else io.out(`${manifest.files.length} files with ${manifest.records} records are as they were written\n`)
  return 0
}

/** What separates things in info commands: a set with such a name cannot be asked for there. */
const INFO_SEPARATOR = /[\n\t/:;]/

/** About how many records there are: the nodes' counts, copies counted once. 0 where nobody can tell. */
async function objectsOf (client: Client, { namespace, sets }: BackupChoice): Promise<number> {
  if (sets.some((set) => INFO_SEPARATOR.test(set))) return 0
  const counts = sets.length === 0
    ? [...(await client.infoAll(`namespace/${namespace}`)).values()].map((answer) => Number(parsePairs(answer).get('master_objects') ?? 0))
    : (await Promise.all(sets.map((set) => client.infoAll(`sets/${namespace}/${set}`)))).flatMap((answers) =>
        [...answers.values()].map((answer) => Number(parsePairs(answer.replace(/;$/, ''), ':').get('objects') ?? 0)))
  return counts.reduce((sum, count) => sum + (Number.isFinite(count) ? count : 0), 0)
}

async function estimate (io: Io, client: Client, { choice }: BackupState, options: BackupCommandOptions): Promise<number> {
  const samples = numberOf('--estimate-samples', options.estimateSamples, 1, 10_000_000)
  const writer = new AsbWriter({ namespace: Buffer.from(choice.namespace).toString('latin1'), compact: choice.compact })
  let [records, bytes, squares] = [0, 0, 0]
  for (const set of choice.sets.length === 0 ? [''] : choice.sets) {
    for await (const page of client.scanPages(choice.namespace, { set, bins: choice.bins, noBins: choice.noBins, recordsMax: samples })) {
      for (const record of page.records) {
        try {
          writer.record(record)
        } catch (error) {
          if (!(error instanceof UnwritableError)) throw error
          continue
        }
        const size = writer.take().length
        records++
        bytes += size
        squares += size * size
      }
    }
  }
  const objects = await objectsOf(client, choice)
  const mean = records === 0 ? 0 : bytes / records
  const deviation = records === 0 ? 0 : Math.sqrt(Math.max(0, squares / records - mean * mean))
  const result = { samples: records, records: objects, 'bytes-per-record': Math.round(mean), deviation: Math.round(deviation), bytes: Math.round(mean * objects) }
  if (options.json === true) io.out(`${JSON.stringify(result)}\n`)
  else io.out(`about ${objects} records of ${Math.round(mean)} bytes (deviation ${Math.round(deviation)}, from ${records} samples): ${sizeText(result.bytes)}\n`)
  return 0
}

function summary ({ records, bytes, modules, indexes, files, missing, keysLeftOut }: BackupOutcome): string {
  const keys = keysLeftOut === 0 ? '' : `; ${keysLeftOut} keys are left out`
  return `${records} records, ${modules} modules, ${indexes} indexes, ${sizeText(bytes)} in ${files} ${files === 1 ? 'file' : 'files'}${missing === 0 ? '' : `; ${missing} records are MISSING`}${keys}`
}

function report (io: Io, outcome: BackupOutcome, target: BackupTarget, json: boolean): void {
  if (json) io.out(`${JSON.stringify({ ...outcome, ...('directory' in target ? { directory: target.directory } : {}) })}\n`)
  else io.out(`${summary(outcome)}\n`)
}

// A backup: workers scan slices of the partitions, and each writes files of its own.
//
// A file is finished (synced and named) when it has its size, when its worker has nothing left, or when the backup is told to stop; only then do the
// cursors of what it holds move into the state. So the state never claims more than finished files hold, whenever the process ends.

import { readdir, rm } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { parseIndexes } from '../client/indexes.js'
import { infoError, parsePairs } from '../client/info.js'
import type { Client } from '../client/client.js'
import { partitionOf } from '../client/digest.js'
import type { RecordError } from '../client/errors.js'
import type { WireRecord } from '../client/query-frame.js'
import { indexLine } from './asb-index.js'
import { AsbWriter, EXPRESSIONS_VERSION_LINE, UnwritableError, VERSION_LINE } from './asb-writer.js'
import type { BackupState } from './backup-state.js'
import { syncDirectory } from '../files/replace-file.js'
import { FileInProgress, PART_SUFFIX } from './file-in-progress.js'
import { ASB_SUFFIX, MANIFEST_NAME, writeManifest, type Manifest } from './manifest.js'
import type { PartitionCursors } from './partitions.js'

export interface BackupOptions {
  readonly parallel: number
  /** A file is finished when it has grown to this. */
  readonly fileBytesMax: number
  readonly recordsPerSecond: number
  readonly socketTimeoutMs: number
  readonly patienceMs: number
  /** Aborted: finish the files at hand and end. */
  readonly signal: AbortSignal
  readonly onProgress: (records: number, bytes: number) => void
  readonly onWarning: (text: string) => void
}

/** Where a backup goes. */
export type BackupTarget =
  | { readonly directory: string, readonly statePath: string }
  | { readonly file: string }
  | { readonly write: (bytes: Buffer) => Promise<void> }

export interface BackupOutcome {
  readonly records: number
  readonly bytes: number
  readonly modules: number
  readonly indexes: number
  readonly missing: number
  /** Records without the key that they store. */
  readonly keysLeftOut: number
  readonly files: number
  /** False when it was stopped before its end. */
  readonly complete: boolean
}

/** Slices a worker; small ones keep the workers busy to the end. */
const SLICES_PER_WORKER = 8
/** Text that is collected before it is written. */
const WRITE_BYTES = 1 << 20

interface Slice {
  readonly set: string
  /** The cursors in the state that belong to it. */
  readonly partitions: PartitionCursors
  readonly ids: readonly number[]
}

interface Module { readonly name: string, readonly content: Buffer }

/** What a worker writes to. */
interface Sink {
  readonly bytes: number
  append (bytes: Uint8Array): Promise<void>
}

export class Backup {
  readonly #client: Client
  readonly #state: BackupState
  readonly #target: BackupTarget
  readonly #options: BackupOptions
  #records = 0
  #bytes = 0
  #modules: readonly Module[] = []
  /** Lines of `indexLine`. */
  #indexes: readonly string[] = []
  #hasExpressions = false
  #keyWarned = false
  readonly #failed = new AbortController()
  /** Records that may still be read; several workers take from it. */
  #left: number

  constructor (client: Client, state: BackupState, target: BackupTarget, options: BackupOptions) {
    this.#client = client
    this.#state = state
    this.#target = target
    this.#options = options
    this.#left = state.choice.recordsLeft ?? Infinity
  }

  /** Rejects with what stopped it; what was finished until then stays, and the state says where to go on. */
  async run (): Promise<BackupOutcome> {
    const { choice } = this.#state
    if (choice.udfs && !this.#state.firstDone) this.#modules = await fetchModules(this.#client)
    if (choice.indexes && !this.#state.firstDone) await this.#fetchIndexes()
    const unreadable = await this.#unreadable()
    const complete = 'directory' in this.#target ? await this.#intoDirectory(this.#target) : await this.#intoOne(this.#target)
    const lost = await this.#unreadable() - unreadable
    if (lost > 0) {
      this.#state.missing += lost
      this.#options.onWarning(`${lost} records could not be read by their node and are missing; its log says why`)
    }
    if ('directory' in this.#target) await (complete ? this.#conclude(this.#target) : this.#save(this.#target.statePath))
    const { files } = this.#state
    const whole = 'directory' in this.#target
    return {
      records: whole ? files.reduce((sum, file) => sum + file.records, 0) : this.#records,
      bytes: whole ? files.reduce((sum, file) => sum + file.bytes, 0) : this.#bytes,
      modules: this.#state.modules,
      indexes: this.#state.indexes,
      missing: this.#state.missing,
      keysLeftOut: this.#state.keysLeftOut,
      files: whole ? files.length : 1,
      complete
    }
  }

  async #intoDirectory ({ directory, statePath }: { directory: string, statePath: string }): Promise<boolean> {
    await removeUnfinished(directory, this.#state)
    await this.#state.save(statePath)
    const slices = this.#slices()
    const workers = Array.from({ length: Math.max(1, Math.min(this.#options.parallel, slices.length)) }, () => new Worker())
    let firstTaken = this.#state.firstDone
    const open = async (worker: Worker): Promise<void> => {
      const first = !firstTaken
      firstTaken = true
      const name = `${this.#state.choice.prefix}_${String(this.#state.nextFile++).padStart(5, '0')}${ASB_SUFFIX}`
      worker.file = await FileInProgress.create(join(directory, name))
      worker.first = first
      await this.#begin(worker.file, first)
    }
    const finish = async (worker: Worker): Promise<void> => {
      const { file } = worker
      if (file === undefined) return
      worker.file = undefined
      const { bytes } = file
      const sha256 = await file.finish().catch(async (error) => {
        await file.discard()
        throw error
      })
      const { tally } = worker
      worker.tally = new Tally()
      this.#state.files.push({ name: basename(file.path), bytes, records: tally.records, sha256 })
      tally.addTo(this.#state)
      if (worker.first) {
        this.#state.firstDone = true
        this.#noteGlobals()
      }
      worker.commit()
      if (this.#state.choice.recordsLeft !== null) this.#state.choice.recordsLeft -= tally.records
      await this.#save(statePath)
    }
    const work = async (worker: Worker): Promise<void> => {
      try {
        if (worker === workers[0] && !firstTaken) await open(worker)
        for (let slice = slices.shift(); slice !== undefined && !this.#isEnded; slice = slices.shift()) {
          for await (const page of this.#pages(slice)) {
            if (worker.file === undefined) await open(worker)
            worker.isWhole = false
            await this.#write(worker.file!, page.records, worker.tally)
            worker.isWhole = true
            worker.note(slice.partitions, page)
            if (worker.file!.bytes >= this.#options.fileBytesMax) await finish(worker)
          }
        }
        await finish(worker)
      } catch (error) {
        this.#fail(error)
        const { file } = worker
        if (file !== undefined && worker.isWhole) await finish(worker)
        else await file?.discard()
      }
    }
    for (const result of await Promise.allSettled(workers.map(work))) if (result.status === 'rejected') this.#fail(result.reason)
    if (this.#options.signal.aborted) return false
    if (this.#failed.signal.aborted) throw this.#failed.signal.reason
    return true
  }

  #saving: Promise<void> = Promise.resolve()

  /** One at a time: the last one written has everything. */
  #save (statePath: string): Promise<void> {
    this.#saving = this.#saving.then(() => this.#state.save(statePath))
    return this.#saving
  }

  /** Ends the other workers; the first failure is the one that counts. */
  #fail (error: unknown): void {
    this.#failed.abort(error)
  }

  get #isEnded (): boolean {
    return this.#failed.signal.aborted || this.#options.signal.aborted || this.#left <= 0
  }

  /** A single file, or a stream: all or nothing. */
  async #intoOne (target: Exclude<BackupTarget, { directory: string }>): Promise<boolean> {
    const file = 'file' in target ? await FileInProgress.create(target.file) : undefined
    let written = 0
    const sink: Sink = file ?? {
      get bytes () { return written },
      append: async (bytes) => {
        if (!('write' in target)) return
        await target.write(Buffer.from(bytes))
        written += bytes.length
      }
    }
    const slices = this.#slices()
    const tally = new Tally()
    let turn: Promise<unknown> = Promise.resolve()
    const work = async (): Promise<void> => {
      try {
        for (let slice = slices.shift(); slice !== undefined && !this.#isEnded; slice = slices.shift()) {
          for await (const { records } of this.#pages(slice)) {
            const written = turn.then(() => this.#write(sink, records, tally))
            turn = written.catch(() => {})
            await written
          }
        }
      } catch (error) {
        this.#fail(error)
      }
    }
    try {
      await this.#begin(sink, true)
      this.#noteGlobals()
      await Promise.all(Array.from({ length: this.#options.parallel }, work))
      this.#options.signal.throwIfAborted()
      this.#failed.signal.throwIfAborted()
      tally.addTo(this.#state)
      await file?.finish()
      return true
    } catch (error) {
      await file?.discard()
      if (this.#options.signal.aborted) return false
      throw error
    }
  }

  async #begin (sink: Sink, first: boolean): Promise<void> {
    const writer = this.#writer()
    writer.header(first, first && this.#hasExpressions ? EXPRESSIONS_VERSION_LINE : VERSION_LINE)
    if (first) for (const { name, content } of this.#modules) writer.module(name, content)
    if (first) for (const line of this.#indexes) writer.index(line)
    await this.#flush(sink, writer)
  }

  /** Those of the chosen sets; one of all sets belongs to each of them. */
  async #fetchIndexes (): Promise<void> {
    const { namespace, sets } = this.#state.choice
    const answer = await this.#client.info(`sindex-list:ns=${namespace};b64=true`)
    const error = infoError('sindex-list', answer)
    if (error !== undefined) {
      this.#options.onWarning(`secondary indexes are left out: ${error.message}`)
      return
    }
    const lines: string[] = []
    for (const index of parseIndexes(answer)) {
      if (index.set !== null && sets.length > 0 && !sets.includes(index.set)) continue
      const line = indexLine(index)
      if (line === undefined) this.#options.onWarning(`index ${index.name} is left out: the format has no words for an index of a whole set`)
      else lines.push(line)
      this.#hasExpressions ||= line !== undefined && index.expression !== null
    }
    this.#indexes = lines
  }

  #noteGlobals (): void {
    this.#state.modules = this.#modules.length
    this.#state.indexes = this.#indexes.length
  }

  async #write (sink: Sink, records: readonly WireRecord[], tally: Tally): Promise<void> {
    const writer = this.#writer()
    const before = tally.records
    for (const record of records) {
      if (this.#state.choice.noTtlOnly && record.voidTime !== 0) continue
      try {
        if (!writer.record(record)) this.#keyLeftOut(record, tally)
        tally.records++
      } catch (error) {
        if (!(error instanceof UnwritableError)) throw error
        tally.missing++
        this.#options.onWarning(`record ${record.digest.toString('hex')} is left out: ${error.message}`)
      }
      if (writer.length >= WRITE_BYTES) await this.#flush(sink, writer)
    }
    await this.#flush(sink, writer)
    this.#records += tally.records - before
    this.#options.onProgress(this.#records, this.#bytes)
  }

  #keyLeftOut ({ digest, key }: WireRecord, tally: Tally): void {
    tally.keysLeftOut++
    if (this.#keyWarned) return
    this.#keyWarned = true
    this.#options.onWarning(`record ${digest.toString('hex')} goes without its key, of particle type ${key![0]}, which the format does not know; further ones are counted only`)
  }

  async #flush (sink: Sink, writer: AsbWriter): Promise<void> {
    const bytes = writer.take()
    if (bytes.length === 0) return
    await sink.append(bytes)
    this.#bytes += bytes.length
  }

  #writer (): AsbWriter {
    return new AsbWriter({ namespace: Buffer.from(this.#state.choice.namespace).toString('latin1'), compact: this.#state.choice.compact })
  }

  #slices (): Slice[] {
    const slices: Slice[] = []
    for (const { set, partitions } of this.#state.open) {
      const ids = [...partitions.keys()].sort((a, b) => a - b)
      const size = Math.max(1, Math.ceil(ids.length / (this.#options.parallel * SLICES_PER_WORKER)))
      for (let at = 0; at < ids.length; at += size) slices.push({ set, partitions, ids: ids.slice(at, at + size) })
    }
    return slices
  }

  async * #pages ({ set, partitions, ids }: Slice): AsyncGenerator<Page, void> {
    const { choice } = this.#state
    const cursors = new Map(ids.map((id) => [id, partitions.get(id)]))
    const { parallel, recordsPerSecond, socketTimeoutMs, patienceMs, signal } = this.#options
    const pages = this.#client.scanPages(choice.namespace, {
      set,
      bins: choice.bins,
      noBins: choice.noBins,
      partitions: cursors,
      recordsPerSecond: Math.ceil(recordsPerSecond / parallel),
      socketTimeoutMs,
      patienceMs,
      ...Number.isFinite(this.#left) ? { recordsMax: this.#left } : {},
      signal: AbortSignal.any([signal, this.#failed.signal]),
      onRetry: (error: RecordError) => this.#options.onWarning(`tried again: ${error.message}`)
    })
    for await (const page of pages) {
      // Another worker may have used up what was left.
      const records = page.records.slice(0, this.#left)
      this.#left -= records.length
      yield { records, done: records.length < page.records.length ? [] : page.done }
      if (this.#left <= 0) return
    }
  }

  /** What nodes could not read so far, for queries of any kind. */
  async #unreadable (): Promise<number> {
    const answers = await this.#client.infoAll(`namespace/${this.#state.choice.namespace}`)
    return [...answers.values()].reduce((sum, answer) => sum + Number(parsePairs(answer).get('query_unreadable_records') ?? 0), 0)
  }

  async #conclude ({ directory, statePath }: { directory: string, statePath: string }): Promise<void> {
    const { choice, started, files, modules, indexes, missing, keysLeftOut } = this.#state
    const content: Manifest = {
      format: 1,
      namespace: choice.namespace,
      sets: choice.sets,
      started,
      ended: new Date().toISOString(),
      files: files.toSorted((a, b) => a.name < b.name ? -1 : 1),
      records: files.reduce((sum, file) => sum + file.records, 0),
      bytes: files.reduce((sum, file) => sum + file.bytes, 0),
      modules,
      indexes,
      missing,
      keysLeftOut
    }
    await writeManifest(directory, content)
    await rm(statePath, { force: true })
  }
}

interface Page { readonly records: readonly WireRecord[], readonly done: readonly number[] }

/** What a file holds, and what it does not. It counts when the file is finished: one that is not is written again. */
class Tally {
  records = 0
  missing = 0
  keysLeftOut = 0

  addTo (state: BackupState): void {
    state.missing += this.missing
    state.keysLeftOut += this.keysLeftOut
  }
}

class Worker {
  file: FileInProgress | undefined
  first = false
  /** Of the file at hand. */
  tally = new Tally()
  /** False while a page is being written: a file that ends in the middle of one is thrown away. */
  isWhole = true
  /** How far the file at hand goes: by partition the last digest, or null where it is done. */
  readonly #reached = new Map<PartitionCursors, Map<number, Buffer | null>>()

  note (partitions: PartitionCursors, { records, done }: Page): void {
    const reached = this.#reached.get(partitions) ?? new Map<number, Buffer | null>()
    this.#reached.set(partitions, reached)
    for (let i = 0; i < records.length; i++) {
      const partition = partitionOf(records[i]!.digest)
      const next = records[i + 1]
      // Only the last one of a partition counts; it is copied, so that the page can go.
      if (next === undefined || partitionOf(next.digest) !== partition) reached.set(partition, Buffer.from(records[i]!.digest))
    }
    for (const partition of done) reached.set(partition, null)
  }

  commit (): void {
    for (const [partitions, reached] of this.#reached) {
      for (const [partition, digest] of reached) {
        if (digest === null) partitions.delete(partition)
        else partitions.set(partition, digest)
      }
    }
    this.#reached.clear()
  }
}

/** The Lua modules of the cluster. */
export async function fetchModules (client: Client): Promise<Module[]> {
  const modules: Module[] = []
  for (const part of (await client.info('udf-list')).split(';').filter((entry) => entry !== '')) {
    const name = parsePairs(part, ',').get('filename') ?? ''
    const content = parsePairs(await client.info(`udf-get:filename=${name};`)).get('content')
    // It was removed in between.
    if (content !== undefined) modules.push({ name, content: Buffer.from(content, 'base64') })
  }
  return modules
}

/** Files that a backup leaves in a directory. */
export async function artifactsOf (directory: string): Promise<string[]> {
  const names = await readdir(directory)
  return names.filter((name) => name.endsWith(ASB_SUFFIX) || name.endsWith(ASB_SUFFIX + PART_SUFFIX) || name === MANIFEST_NAME)
}

export async function removeArtifacts (directory: string): Promise<number> {
  const names = await artifactsOf(directory)
  for (const name of names) await rm(join(directory, name), { force: true })
  if (names.length > 0) await syncDirectory(directory)
  return names.length
}

/** Removes what the state does not know of: it will be written again. A file may have got its name right before the process was killed. */
async function removeUnfinished (directory: string, { files }: BackupState): Promise<void> {
  const finished = new Set(files.map(({ name }) => name))
  for (const name of await artifactsOf(directory)) {
    if (!finished.has(name)) await rm(join(directory, name), { force: true })
  }
}

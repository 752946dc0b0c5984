// What a node has decided by command and has to know again after a restart: small values by module and key, in one file of the work directory. Each
// carries a generation and a time, and a removal leaves an empty value, so that the nodes of a cluster can tell which of two is newer.
//
// A lost file would undo decisions in silence (truncated records would come back), so one that is damaged is refused.

import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { replaceFile } from '../files/replace-file.js'

const VERSION = 1

/** Values that are kept, removed ones included. */
const ITEMS_MAX = 65_536

/** Removed values that are remembered; beyond them the one that was removed first is forgotten. */
const REMOVED_MAX = 4096

const itemSchema = z.strictObject({
  module: z.string(),
  key: z.string(),
  /** Null when it was removed. */
  value: z.string().nullable(),
  /** Counts the changes of this value, from 1. */
  generation: z.int().min(1),
  /** When it was changed last, in milliseconds since 1970. */
  timestamp: z.int().min(0)
})

const fileSchema = z.strictObject({ version: z.literal(VERSION), sha256: z.string(), items: z.array(itemSchema).max(ITEMS_MAX) })

export type MetadataItem = z.output<typeof itemSchema>

/** There is no room for another value. */
export class MetadataFullError extends Error {
  constructor (message: string) {
    super(message)
    this.name = 'MetadataFullError'
  }
}

export class SystemMetadata {
  readonly #path: string
  readonly #removedMax: number
  /** In the order of their changes. */
  #items: Map<string, MetadataItem>
  #writing: Promise<unknown> = Promise.resolve()

  private constructor (path: string, items: readonly MetadataItem[], removedMax: number) {
    this.#path = path
    this.#removedMax = removedMax
    this.#items = new Map(items.map((item) => [identity(item.module, item.key), item]))
  }

  /** Reads what is kept. Rejects when the file is there and cannot be read, or is damaged. */
  static async open (workDirectory: string, removedMax: number = REMOVED_MAX): Promise<SystemMetadata> {
    const path = join(workDirectory, 'system-metadata.json')
    let text: string
    try {
      text = await readFile(path, 'utf8')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      return new SystemMetadata(path, [], removedMax)
    }
    const file = fileSchema.safeParse(parseJson(text))
    if (!file.success || file.data.sha256 !== checksum(file.data.items)) {
      throw new Error(`${path} is damaged: it holds truncations, without which removed records come back, and definitions of secondary indexes. Restore it from a copy, or remove it to go on without them`)
    }
    return new SystemMetadata(path, file.data.items, removedMax)
  }

  get (module: string, key: string): string | undefined {
    return this.#items.get(identity(module, key))?.value ?? undefined
  }

  /** Every value of a module, by its key. */
  values (module: string): Map<string, string> {
    const values = new Map<string, string>()
    for (const item of this.#items.values()) if (item.module === module && item.value !== null) values.set(item.key, item.value)
    return values
  }

  /** Keeps a value, or removes it with null; it is durable when this resolves, and as before when it rejects. */
  set (module: string, key: string, value: string | null): Promise<void> {
    const change = this.#writing.then(() => this.#set(module, key, value))
    this.#writing = change.catch(() => {})
    return change
  }

  async #set (module: string, key: string, value: string | null): Promise<void> {
    const id = identity(module, key)
    const before = this.#items.get(id)
    if ((before?.value ?? null) === value) return
    if (before === undefined && this.#items.size >= ITEMS_MAX) throw new MetadataFullError(`system metadata holds ${ITEMS_MAX} values, the most that it may hold`)
    const item = { module, key, value, generation: (before?.generation ?? 0) + 1, timestamp: Date.now() }
    const items = withoutOldestRemoved([...this.#items.values()].filter((other) => other !== before).concat(item), this.#removedMax)
    await replaceFile(this.#path, `${JSON.stringify({ version: VERSION, sha256: checksum(items), items })}\n`)
    this.#items = new Map(items.map((kept) => [identity(kept.module, kept.key), kept]))
  }
}

/** Names that come and go do not fill the file: nobody is left who could bring back what was removed so long ago. */
function withoutOldestRemoved (items: MetadataItem[], removedMax: number): MetadataItem[] {
  const removed = items.filter(({ value }) => value === null)
  const forgotten = new Set(removed.slice(0, Math.max(0, removed.length - removedMax)))
  return items.filter((item) => !forgotten.has(item))
}

function identity (module: string, key: string): string {
  return JSON.stringify([module, key])
}

function parseJson (text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function checksum (items: readonly MetadataItem[]): string {
  return createHash('sha256').update(JSON.stringify(items)).digest('hex')
}

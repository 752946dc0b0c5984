// Where a backup into a directory is: which files are finished, and behind which record of each partition they end. It is written when a file is finished,
// so that a backup that was killed goes on behind what is safely on disk; what later files held is read again.

import { readFile } from 'node:fs/promises'
import { z } from 'zod'
import { replaceFile } from '../files/replace-file.js'
import { fileEntry } from './manifest.js'
import type { PartitionCursors } from './partitions.js'

/** What decides about the content of a backup; a backup goes on with what it began with. */
const choice = z.object({
  namespace: z.string(),
  sets: z.array(z.string()),
  bins: z.array(z.string()),
  noBins: z.boolean(),
  noTtlOnly: z.boolean(),
  compact: z.boolean(),
  prefix: z.string(),
  records: z.boolean(),
  udfs: z.boolean(),
  indexes: z.boolean().default(true),
  /** Records still to be read, or null for all. */
  recordsLeft: z.number().int().nonnegative().nullable()
})
export type BackupChoice = z.infer<typeof choice>

const cursor = z.tuple([z.number().int(), z.string().nullable()])
const state = z.object({
  format: z.literal(1),
  started: z.string(),
  choice,
  /** Of each set, the partitions that are not finished, each with the digest to go on behind. */
  open: z.array(z.object({ set: z.string(), partitions: z.array(cursor) })),
  files: z.array(fileEntry),
  /** The number of the next file. */
  nextFile: z.number().int().nonnegative(),
  /** The file that holds the modules and indexes is finished. */
  firstDone: z.boolean(),
  modules: z.number().int().nonnegative(),
  indexes: z.number().int().nonnegative().default(0),
  missing: z.number().int().nonnegative(),
  keysLeftOut: z.number().int().nonnegative().default(0)
})
type Stored = z.infer<typeof state>

export class StateError extends Error {
  readonly code = 'STATE'
}

/** Throws {@link StateError}. */
export async function readState (path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw new StateError(`there is no ${path}: what it was the state of is complete, or was elsewhere`)
    throw new StateError(`${path} cannot be read (${(error as NodeJS.ErrnoException).code})`)
  }
}

export class BackupState {
  started: string
  choice: BackupChoice
  readonly open: Array<{ set: string, partitions: PartitionCursors }>
  files: Stored['files'] = []
  nextFile = 0
  firstDone = false
  modules = 0
  indexes = 0
  missing = 0
  keysLeftOut = 0

  constructor (started: string, chosen: BackupChoice, partitions: PartitionCursors) {
    this.started = started
    this.choice = chosen
    // One scan of everything, or one for each set.
    this.open = (chosen.sets.length === 0 ? [''] : chosen.sets).map((set) => ({ set, partitions: new Map(chosen.records ? partitions : []) }))
  }

  async save (path: string): Promise<void> {
    const stored: Stored = {
      format: 1,
      started: this.started,
      choice: this.choice,
      open: this.open.map(({ set, partitions }) => ({ set, partitions: [...partitions].map(([partition, after]) => [partition, after?.toString('base64') ?? null]) })),
      files: this.files,
      nextFile: this.nextFile,
      firstDone: this.firstDone,
      modules: this.modules,
      indexes: this.indexes,
      missing: this.missing,
      keysLeftOut: this.keysLeftOut
    }
    await replaceFile(path, `${JSON.stringify(stored)}\n`)
  }

  /** Throws {@link StateError}. */
  static async load (path: string): Promise<BackupState> {
    const text = await readState(path)
    let stored: Stored
    try {
      stored = state.parse(JSON.parse(text))
    } catch (error) {
      throw new StateError(`${path} is not the state of a backup: ${(error as Error).message}`)
    }
    const loaded = new BackupState(stored.started, stored.choice, new Map())
    loaded.open.length = 0
    for (const { set, partitions } of stored.open) {
      loaded.open.push({ set, partitions: new Map(partitions.map(([partition, after]) => [partition, after === null ? undefined : Buffer.from(after, 'base64')])) })
    }
    loaded.files = stored.files
    loaded.nextFile = stored.nextFile
    loaded.firstDone = stored.firstDone
    loaded.modules = stored.modules
    loaded.indexes = stored.indexes
    loaded.missing = stored.missing
    loaded.keysLeftOut = stored.keysLeftOut
    return loaded
  }
}

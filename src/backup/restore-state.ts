// How far a restore is: of each file the place up to which everything was answered. A restore that was killed writes some records again, which comes to
// the same.

import { z } from 'zod'
import { StateError, readState } from './backup-state.js'
import { replaceFile } from '../files/replace-file.js'

const place = z.object({ offset: z.number().int().nonnegative(), line: z.number().int().positive(), done: z.boolean() })
const counts = z.object({
  read: z.number(), inserted: z.number(), existed: z.number(), fresher: z.number(), expired: z.number(), skipped: z.number(), tooBig: z.number(), errors: z.number(),
  modules: z.number(), indexes: z.number(), indexesRefused: z.number().default(0), retries: z.number()
})
const state = z.object({ format: z.literal(1), source: z.string(), files: z.record(z.string(), place), counts })

export type RestoreCounts = z.infer<typeof counts>
export type FilePlace = z.infer<typeof place>

export function noCounts (): RestoreCounts {
  return { read: 0, inserted: 0, existed: 0, fresher: 0, expired: 0, skipped: 0, tooBig: 0, errors: 0, modules: 0, indexes: 0, indexesRefused: 0, retries: 0 }
}

export class RestoreState {
  readonly source: string
  files: Record<string, FilePlace> = {}
  counts = noCounts()

  /** `source` is the directory or file that is restored. */
  constructor (source: string) {
    this.source = source
  }

  save (path: string): Promise<void> {
    return replaceFile(path, `${JSON.stringify({ format: 1, source: this.source, files: this.files, counts: this.counts })}\n`)
  }

  /** Throws {@link StateError}. */
  static async load (path: string, source: string): Promise<RestoreState> {
    const text = await readState(path)
    let stored: z.infer<typeof state>
    try {
      stored = state.parse(JSON.parse(text))
    } catch (error) {
      throw new StateError(`${path} is not the state of a restore: ${(error as Error).message}`)
    }
    if (stored.source !== source) throw new StateError(`${path} belongs to a restore of ${stored.source}, not of ${source}`)
    const loaded = new RestoreState(source)
    loaded.files = stored.files
    loaded.counts = stored.counts
    return loaded
  }
}

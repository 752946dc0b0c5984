// What a backup in a directory consists of, as JSON beside its files: other tools for the format pass it by. With it a file that is missing, cut or
// altered is noticed before anything is restored.

import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { replaceFile } from '../files/replace-file.js'

export const MANIFEST_NAME = 'perigee-backup.json'
export const ASB_SUFFIX = '.asb'

const count = z.number().int().nonnegative()
export const fileEntry = z.object({ name: z.string(), bytes: count, records: count, sha256: z.string().regex(/^[0-9a-f]{64}$/) })
export type FileEntry = z.infer<typeof fileEntry>

const manifest = z.object({
  format: z.literal(1),
  namespace: z.string(),
  /** Empty for all. */
  sets: z.array(z.string()),
  started: z.string(),
  ended: z.string(),
  files: z.array(fileEntry),
  records: count,
  bytes: count,
  modules: count,
  indexes: count.default(0),
  /** Records that nodes could not read, or that the format cannot hold: they are missing. */
  missing: count,
  /** Records without the key that they store, since the format has no letter for its type. */
  keysLeftOut: count.default(0)
})
export type Manifest = z.infer<typeof manifest>

/** A backup that is not what its manifest says. */
export class ManifestError extends Error {
  readonly code = 'MANIFEST'
}

export async function writeManifest (directory: string, content: Manifest): Promise<void> {
  await replaceFile(join(directory, MANIFEST_NAME), `${JSON.stringify(content, null, 2)}\n`)
}

/** undefined when there is none. Throws {@link ManifestError}. */
export async function readManifest (directory: string): Promise<Manifest | undefined> {
  const path = join(directory, MANIFEST_NAME)
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new ManifestError(`${path} cannot be read: ${(error as Error).message}`)
  }
  try {
    return manifest.parse(JSON.parse(text))
  } catch (error) {
    throw new ManifestError(`${path} is not a manifest: ${(error as Error).message}`)
  }
}

/** Names of the backup files of a directory, in order. */
export async function backupFiles (directory: string): Promise<string[]> {
  return (await readdir(directory)).filter((name) => name.endsWith(ASB_SUFFIX)).sort()
}

/** Reads every file of a backup and compares it with its manifest. Throws {@link ManifestError} that names each difference. */
export async function verifyFiles (directory: string, { files }: Manifest, onBytes: (bytes: number) => void = () => {}): Promise<void> {
  const wrong: string[] = []
  const there = new Set(await backupFiles(directory))
  for (const { name, bytes, sha256 } of files) {
    if (!there.delete(name)) {
      wrong.push(`${name} is missing`)
      continue
    }
    const hash = createHash('sha256')
    let length = 0
    for await (const chunk of createReadStream(join(directory, name), { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
      hash.update(chunk)
      length += chunk.length
      onBytes(chunk.length)
    }
    if (length !== bytes) wrong.push(`${name} has ${length} bytes, not ${bytes}`)
    else if (hash.digest('hex') !== sha256) wrong.push(`${name} is not what was written: its SHA-256 differs`)
  }
  for (const name of there) wrong.push(`${name} is no part of the backup`)
  if (wrong.length > 0) throw new ManifestError(`${directory}: ${wrong.join('; ')}`)
}

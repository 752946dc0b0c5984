// A file that is there as a whole or not at all, also after a crash.

import { open, rename, rm, type FileHandle } from 'node:fs/promises'
import { createHash, type Hash } from 'node:crypto'
import { dirname } from 'node:path'
import { syncDirectory } from '../files/replace-file.js'

/** A file that is being written bears this behind its name. */
export const PART_SUFFIX = '.part'

/** A file under construction; it gets its name when it is finished. */
export class FileInProgress {
  readonly path: string
  readonly #handle: FileHandle
  readonly #hash: Hash = createHash('sha256')
  #bytes = 0

  static async create (path: string): Promise<FileInProgress> {
    return new FileInProgress(path, await open(path + PART_SUFFIX, 'w'))
  }

  private constructor (path: string, handle: FileHandle) {
    this.path = path
    this.#handle = handle
  }

  get bytes (): number {
    return this.#bytes
  }

  async append (bytes: Uint8Array): Promise<void> {
    this.#hash.update(bytes)
    for (let at = 0; at < bytes.length;) {
      const { bytesWritten } = await this.#handle.write(bytes, at)
      at += bytesWritten
    }
    this.#bytes += bytes.length
  }

  /** Syncs it and gives it its name. Resolves to its SHA-256 in hexadecimal digits. */
  async finish (): Promise<string> {
    await this.#handle.sync()
    await this.#handle.close()
    await rename(this.path + PART_SUFFIX, this.path)
    await syncDirectory(dirname(this.path))
    return this.#hash.digest('hex')
  }

  async discard (): Promise<void> {
    await this.#handle.close()
    await rm(this.path + PART_SUFFIX, { force: true })
  }
}

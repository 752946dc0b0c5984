// Last-ship times of one datacenter and namespace on disk: `<work-directory>/xdr/<dc>.<namespace>.lst`, little endian.
//
//    0 [8] "PRGE-LST"   8 u32 version, 1   12 u32 partitions, 4096   16 [32] SHA-256 of all that follows   48 4096 x u64
//
// The file is replaced as a whole (temporary file, fsync, rename, fsync of the directory), so it is one saved state or the one before. An older
// state only ships again what was shipped; a damaged file is therefore read as zeros, which ship everything again.

import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Log } from '../../connectors/connector.js'
import { Limit } from '../engine/constants.js'
import { replaceFile } from '../files/replace-file.js'

const MAGIC = Buffer.from('PRGE-LST', 'latin1')
const VERSION = 1
const VERSION_OFFSET = MAGIC.length
const PARTITIONS_OFFSET = VERSION_OFFSET + 4
const CHECKSUM_OFFSET = PARTITIONS_OFFSET + 4
const TIMES_OFFSET = CHECKSUM_OFFSET + 32
export const TIMES_BYTES = Limit.PARTITIONS * 8
const FILE_BYTES = TIMES_OFFSET + TIMES_BYTES

export class ShipTimes {
  readonly #path: string
  readonly #log: Log
  #saved: Buffer | undefined

  constructor (workDirectory: string, dc: string, namespace: string, log: Log) {
    this.#path = join(workDirectory, 'xdr', `${fileName(dc)}.${fileName(namespace)}.lst`)
    this.#log = log
  }

  /** The saved times; zeros when there are none or they are damaged. Rejects only when the file exists and cannot be read. */
  async load (): Promise<Buffer> {
    const bytes = await readFile(this.#path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined
      throw error
    })
    const damage = bytes === undefined ? undefined : damageOf(bytes)
    if (bytes !== undefined && damage === undefined) {
      this.#saved = Buffer.from(bytes.subarray(TIMES_OFFSET))
      return Buffer.from(this.#saved)
    }
    if (bytes === undefined) this.#log.info({ path: this.#path }, 'xdr: no last-ship times yet, every record ships')
    else this.#log.warn({ path: this.#path, damage }, 'xdr: last-ship times are damaged, every record ships again')
    return Buffer.alloc(TIMES_BYTES)
  }

  /** Saves unless nothing changed since the last time. Not for two calls at once. */
  async save (times: Buffer): Promise<void> {
    if (this.#saved?.equals(times) === true) return
    const bytes = Buffer.alloc(FILE_BYTES)
    MAGIC.copy(bytes)
    bytes.writeUInt32LE(VERSION, VERSION_OFFSET)
    bytes.writeUInt32LE(Limit.PARTITIONS, PARTITIONS_OFFSET)
    times.copy(bytes, TIMES_OFFSET)
    checksum(bytes).copy(bytes, CHECKSUM_OFFSET)

    await replaceFile(this.#path, bytes)
    this.#saved = Buffer.from(times)
  }
}

function checksum (file: Buffer): Buffer {
  return createHash('sha256').update(file.subarray(TIMES_OFFSET)).digest()
}

function damageOf (file: Buffer): string | undefined {
  if (file.length !== FILE_BYTES) return `${file.length} bytes instead of ${FILE_BYTES}`
  if (!file.subarray(0, MAGIC.length).equals(MAGIC)) return 'no such file type'
  const version = file.readUInt32LE(VERSION_OFFSET)
  if (version !== VERSION) return `version ${version}`
  if (!file.subarray(CHECKSUM_OFFSET, TIMES_OFFSET).equals(checksum(file))) return 'checksum'
  return undefined
}

/** Escapes what would change the meaning of the path; the dot too, since it parts the two names. */
function fileName (name: string): string {
  return encodeURIComponent(name).replaceAll('.', '%2E')
}

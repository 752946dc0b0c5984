// Changes to a file, one line of JSON each. A change is shipped when its line is durable (fdatasync). The file is whole lines at all times
// but for the last one, which a crash can cut: `open` removes what follows the last line break, and since that change was never confirmed
// it comes again. A file that was moved away (log rotation) is noticed before the next batch and begun anew, and so is one that was cut in place
// (rotation by copy and truncate): writes go to the end of the file, wherever that is, and a batch counts only if the file then has the size it should.

import { open, stat, type FileHandle } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import type { FileDatacenterConfig } from '../../config/schema.js'
import { makeDirectory } from '../../src/files/make-directory.js'
import { syncDirectory } from '../../src/files/replace-file.js'
import { Backoff } from '../backoff.js'
import { describeChange, type Change } from '../change.js'
import { LimitedLog, type Connector, type ConnectorOutcome, type Log } from '../connector.js'
import { formatByName, type Format } from '../format/format.js'

export type FileOptions = FileDatacenterConfig['file']

const BACKOFF_MIN_MS = 100
const BACKOFF_MAX_MS = 5000
const TAIL_STEP_BYTES = 64 * 1024
/** A torn line is part of one record; more than this without a line break is no file of ours and is not cut. */
const TORN_BYTES_MAX = 64 * 1024 * 1024
const LINE_FEED = 0x0a
const OPEN_BRACE = 0x7b

/** The part of a file handle that is used here; tests put a failing one in its place. */
export type WritableHandle = Pick<FileHandle, 'stat' | 'read' | 'write' | 'truncate' | 'datasync' | 'close'>
export type OpenFile = (path: string) => Promise<WritableHandle>

export class FileConnector implements Connector {
  readonly #path: string
  readonly #format: Format
  readonly #log: Log
  readonly #faults: LimitedLog
  readonly #openFile: OpenFile
  readonly #backoff = new Backoff(BACKOFF_MIN_MS, BACKOFF_MAX_MS)
  #handle: WritableHandle | undefined
  #inode = 0
  /** Everything before this offset is durable and confirmed; the file is cut here after a write that failed. */
  #durableBytes = 0
  #closed = false
  #tail: Promise<void> = Promise.resolve()

  constructor (options: FileOptions, log: Log, openFile: OpenFile = openForAppend) {
    this.#path = resolve(options.path)
    this.#format = formatByName(options.format)
    this.#log = log
    this.#faults = new LimitedLog(log)
    this.#openFile = openFile
  }

  get nodes (): number {
    return this.#handle === undefined ? 0 : 1
  }

  async open (): Promise<void> {
    while (!this.#closed) {
      try {
        return await this.#reopen()
      } catch (error) {
        if (error instanceof ForeignFileError) throw error
        this.#faults.warn({ path: this.#path, err: error }, 'file: cannot open, trying again')
        await this.#backoff.wait()
      }
    }
    throw new Error('file: closed before it was open')
  }

  ship (changes: readonly Change[]): Promise<ConnectorOutcome[]> {
    const outcomes = new Array<ConnectorOutcome>(changes.length).fill('abandoned')
    const lines: string[] = []
    const placed: number[] = []
    for (const [index, change] of changes.entries()) {
      try {
        lines.push(this.#format.value(change), '\n')
        placed.push(index)
      } catch (error) {
        this.#faults.warn({ ...describeChange(change), err: error }, 'file: a change cannot be formatted, abandoned')
      }
    }
    const bytes = Buffer.from(lines.join(''))
    const shipped = this.#tail.then(async () => {
      const durable = await this.#append(bytes)
      for (const index of placed) outcomes[index] = durable ? 'shipped' : 'retry'
    })
    // One failure must not become that of every later batch, and of close.
    this.#tail = shipped.catch(() => {})
    return shipped.then(() => outcomes)
  }

  async close (): Promise<void> {
    this.#closed = true
    this.#backoff.cancel()
    await this.#tail
    await this.#drop()
  }

  /** True when the bytes are durable; false only on close. */
  async #append (bytes: Buffer): Promise<boolean> {
    while (!this.#closed) {
      try {
        if (await this.#isMoved()) await this.#drop()
        if (this.#handle === undefined) await this.#reopen()
        const handle = this.#handle!
        for (let at = 0; at < bytes.length;) {
          const { bytesWritten } = await handle.write(bytes, at, bytes.length - at, null)
          at += bytesWritten
        }
        await handle.datasync()
        const { size } = await handle.stat()
        const expected = this.#durableBytes + bytes.length
        // Cut while this batch was on its way: it may be gone with the rest, or have lost its first half.
        if (size !== expected) throw new Error(`somebody else changed the file: ${size} bytes instead of ${expected}`)
        this.#durableBytes = expected
        this.#backoff.reset()
        return true
      } catch (error) {
        this.#faults.warn({ path: this.#path, err: error }, 'file: cannot append, trying again')
        // After a failed fdatasync the kernel may have dropped the pages and would call the next one a success: write them again through a new handle.
        await this.#drop()
        await this.#backoff.wait()
      }
    }
    return false
  }

  async #isMoved (): Promise<boolean> {
    if (this.#handle === undefined) return false
    const there = await stat(this.#path).catch(() => undefined)
    return there?.ino !== this.#inode || there.size !== this.#durableBytes
  }

  async #reopen (): Promise<void> {
    await makeDirectory(dirname(this.#path))
    const handle = await this.#openFile(this.#path)
    try {
      const { size, ino } = await handle.stat()
      // Our own torn write ends at a known place; after a restart only the line breaks tell.
      const end = ino === this.#inode && size >= this.#durableBytes ? this.#durableBytes : await endOfLastLine(handle, size, this.#path)
      if (end < size) {
        await handle.truncate(end)
        this.#log.warn({ path: this.#path, bytes: size - end }, 'file: removed the torn end of the last line')
      }
      await handle.datasync()
      await syncDirectory(dirname(this.#path))
      this.#inode = ino
      this.#durableBytes = end
      this.#handle = handle
    } catch (error) {
      await handle.close().catch(() => {})
      throw error
    }
  }

  async #drop (): Promise<void> {
    const handle = this.#handle
    this.#handle = undefined
    await handle?.close().catch(() => {})
  }
}

/** The file exists and holds something else; appending to it or cutting it would do harm. */
export class ForeignFileError extends Error {
  readonly code = 'FILE_FOREIGN'
}

async function openForAppend (path: string): Promise<FileHandle> {
  // Appending, so that after a truncation by somebody else no write leaves a hole of zeros before it.
  return await open(path, 'a+')
}

async function endOfLastLine (handle: WritableHandle, size: number, path: string): Promise<number> {
  const step = Buffer.allocUnsafe(TAIL_STEP_BYTES)
  for (let end = size; end > 0 && size - end < TORN_BYTES_MAX;) {
    const start = Math.max(0, end - TAIL_STEP_BYTES)
    const { bytesRead } = await handle.read(step, 0, end - start, start)
    if (bytesRead !== end - start) throw new Error(`read ${bytesRead} of ${end - start} bytes at ${start}`)
    const lineFeed = step.subarray(0, bytesRead).lastIndexOf(LINE_FEED)
    if (lineFeed >= 0) return start + lineFeed + 1
    if (start === 0 && step[0] === OPEN_BRACE) return 0
    end = start
  }
  if (size === 0) return 0
  throw new ForeignFileError(`${path} does not look like lines of changes, and will not be touched`)
}

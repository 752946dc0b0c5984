// Batch requests and their replies as raw bytes, apart from src/client for the same reason as wire.ts.
//
// batch: u32 rows, u8 flags, rows
// row:   u32 number, digest, u8 what follows (1: as the row before, else 10 or 14), u8 info1, info2, info3, [u16 generation, u32 ttl,] u16 fields, u16 operations, fields, operations
import { queryField } from './wire-query.js'
import { INFO1_GET_ALL, INFO1_READ, INFO2_WRITE, MESSAGE_HEADER_BYTES, RawConnection, TYPE_MESSAGE, frame, inflated, type RawKey } from './wire.js'

const INFO1_BATCH = 8
const INFO2_DELETE = 2
export const INFO2_CREATE_ONLY = 32
const INFO3_LAST = 1
const FIELD_NAMESPACE = 0
const FIELD_SET = 1
const FIELD_UDF = [30, 31, 32] as const
const FIELD_BATCH = 41
const FIELD_FILTER = 43
const ROW_REPEATS = 1
/** info1 to info3, and ttl. */
const ROW_READ = 0x0a
const OPERATION_WRITE = 2
const PARTICLE_INTEGER = 1

/** Inline reads, and every row answered. */
export const RESPOND_ALL = 1 | 4

export type RawRow = { key: RawKey } & (
  | { do: 'get' | 'repeat' | 'delete' }
  | { do: 'put', bin: string, value: bigint, info2?: number }
  | { do: 'apply', module: string, function: string }
)

function row (row: RawRow, number: number): Buffer {
  const head = Buffer.alloc(4)
  head.writeUInt32BE(number)
  if (row.do === 'repeat') return Buffer.concat([head, row.key.digest, Buffer.from([ROW_REPEATS])])
  const info1 = row.do === 'get' ? INFO1_READ | INFO1_GET_ALL : 0
  const info2 = row.do === 'get' ? 0 : row.do === 'delete' ? INFO2_WRITE | INFO2_DELETE : INFO2_WRITE | (row.do === 'put' ? row.info2 ?? 0 : 0)
  const fields = [queryField(FIELD_NAMESPACE, Buffer.from(row.key.namespace)), queryField(FIELD_SET, Buffer.from(row.key.set))]
  const operations: Buffer[] = []
  if (row.do === 'apply') {
    const parts = [Buffer.from(row.module), Buffer.from(row.function), Buffer.from([0x90])]
    fields.push(...parts.map((part, at) => queryField(FIELD_UDF[at]!, part)))
  } else if (row.do === 'put') {
    const operation = Buffer.alloc(8 + row.bin.length + 8)
    operation.writeUInt32BE(operation.length - 4)
    operation.set([OPERATION_WRITE, PARTICLE_INTEGER, 0, row.bin.length], 4)
    operation.write(row.bin, 8)
    operation.writeBigInt64BE(row.value, 8 + row.bin.length)
    operations.push(operation)
  }
  const counts = Buffer.alloc(4)
  counts.writeUInt16BE(fields.length, 0)
  counts.writeUInt16BE(operations.length, 2)
  return Buffer.concat([head, row.key.digest, Buffer.from([ROW_READ, info1, info2, 0]), Buffer.alloc(4), counts, ...fields, ...operations])
}

export function batchFrame (rows: readonly RawRow[], { flags = RESPOND_ALL, claimedRows = rows.length, timeoutMs = 0, info1 = 0, filter }: { flags?: number, claimedRows?: number, timeoutMs?: number, info1?: number, filter?: Buffer } = {}): Buffer {
  const head = Buffer.alloc(5)
  head.writeUInt32BE(claimedRows)
  head.writeUInt8(flags, 4)
  const header = Buffer.alloc(MESSAGE_HEADER_BYTES)
  header.writeUInt8(MESSAGE_HEADER_BYTES, 0)
  header.writeUInt8(INFO1_BATCH | info1, 1)
  header.writeUInt32BE(timeoutMs, 14)
  header.writeUInt16BE(filter === undefined ? 1 : 2, 18)
  const filters = filter === undefined ? [] : [queryField(FIELD_FILTER, filter)]
  return frame(TYPE_MESSAGE, Buffer.concat([header, ...filters, queryField(FIELD_BATCH, Buffer.concat([head, ...rows.map(row)]))]))
}

export interface RowAnswer { result: number, bins: Map<string, Buffer> }

export interface BatchAnswer {
  /** By the row's number. */
  rows: Map<number, RowAnswer>
  /** In the order in which they came. */
  order: number[]
  result: number
  frames: number[]
}

/** Adds what a frame holds; true when it ends the reply. */
function takeFrame (answer: BatchAnswer, body: Buffer): boolean {
  answer.frames.push(body.length)
  for (let at = 0; at < body.length;) {
    const number = body.readUInt32BE(at + 14)
    const result = body.readUInt8(at + 5)
    const isLast = (body.readUInt8(at + 3) & INFO3_LAST) !== 0
    let next = at + body.readUInt8(at)
    for (let left = body.readUInt16BE(at + 18); left > 0; left--) next += 4 + body.readUInt32BE(next)
    const bins = new Map<string, Buffer>()
    for (let left = body.readUInt16BE(at + 20); left > 0; left--) {
      const end = next + 4 + body.readUInt32BE(next)
      const nameEnd = next + 8 + body.readUInt8(next + 7)
      bins.set(body.toString('utf8', next + 8, nameEnd), body.subarray(nameEnd, end))
      next = end
    }
    at = next
    if (isLast) {
      if (at !== body.length) throw new Error('something follows the last message')
      answer.result = result
      return true
    }
    if (answer.rows.has(number)) throw new Error(`row ${number} was answered twice`)
    answer.rows.set(number, { result, bins })
    answer.order.push(number)
  }
  return false
}

/** Reads the whole reply to a batch that was sent. */
export async function readBatch (connection: RawConnection): Promise<BatchAnswer> {
  const answer: BatchAnswer = { rows: new Map(), order: [], result: -1, frames: [] }
  while (!takeFrame(answer, inflated(await connection.receive(30_000)).body)) { /* The next frame. */ }
  return answer
}

export async function runBatch (connection: RawConnection, rows: readonly RawRow[], options: Parameters<typeof batchFrame>[1] = {}): Promise<BatchAnswer> {
  connection.send(batchFrame(rows, options))
  return await readBatch(connection)
}

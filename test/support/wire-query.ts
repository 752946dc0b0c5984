// Query requests and their streamed replies as raw bytes, apart from src/client for the same reason as wire.ts.
import { INFO1_READ, MESSAGE_HEADER_BYTES, RawConnection, TYPE_MESSAGE, frame, inflated } from './wire.js'

const INFO3_LAST = 1
const INFO3_PARTITION_DONE = 4
const PARTITIONS = 4096
const PAGES_MAX = 200

const FIELD_NAMESPACE = 0
const FIELD_SET = 1
const FIELD_DIGEST = 4
const FIELD_TASK = 7
const FIELD_SOCKET_TIMEOUT = 9
const FIELD_RECORDS_PER_SECOND = 10
const FIELD_PARTITIONS = 11
const FIELD_DIGESTS = 12
const FIELD_RECORDS_MAX = 13

export interface RawQuery {
  namespace?: string
  set?: string
  info1?: number
  info2?: number
  info3?: number
  task?: bigint
  socketTimeoutMs?: number
  recordsPerSecond?: number
  recordsMax?: bigint
  /** Absent: all of them, unless there are digests. */
  partitions?: number[]
  /** Resume behind these. */
  digests?: Buffer[]
  /** More fields, ready made. */
  extra?: Buffer[]
  operations?: Buffer[]
}

export function queryField (type: number, data: Buffer): Buffer {
  const head = Buffer.alloc(5)
  head.writeUInt32BE(data.length + 1, 0)
  head.writeUInt8(type, 4)
  return Buffer.concat([head, data])
}

function number (bytes: 4 | 8, value: bigint): Buffer {
  const buffer = Buffer.alloc(bytes)
  if (bytes === 4) buffer.writeUInt32BE(Number(value))
  else buffer.writeBigUInt64BE(value)
  return buffer
}

export function queryFrame (query: RawQuery = {}): Buffer {
  const partitions = query.partitions ?? (query.digests === undefined ? [...new Array(PARTITIONS).keys()] : [])
  const fields = [
    queryField(FIELD_NAMESPACE, Buffer.from(query.namespace ?? 'test')),
    queryField(FIELD_SET, Buffer.from(query.set ?? '')),
    queryField(FIELD_TASK, number(8, query.task ?? 7n)),
    ...query.socketTimeoutMs === undefined ? [] : [queryField(FIELD_SOCKET_TIMEOUT, number(4, BigInt(query.socketTimeoutMs)))],
    ...query.recordsPerSecond === undefined ? [] : [queryField(FIELD_RECORDS_PER_SECOND, number(4, BigInt(query.recordsPerSecond)))],
    ...query.recordsMax === undefined ? [] : [queryField(FIELD_RECORDS_MAX, number(8, query.recordsMax))],
    ...partitions.length === 0 ? [] : [queryField(FIELD_PARTITIONS, Buffer.from(Uint16Array.from(partitions).buffer))],
    ...query.digests === undefined ? [] : [queryField(FIELD_DIGESTS, Buffer.concat(query.digests))],
    ...query.extra ?? []
  ]
  const header = Buffer.alloc(MESSAGE_HEADER_BYTES)
  header.writeUInt8(MESSAGE_HEADER_BYTES, 0)
  header.writeUInt8(query.info1 ?? INFO1_READ, 1)
  header.writeUInt8(query.info2 ?? 0, 2)
  header.writeUInt8(query.info3 ?? INFO3_PARTITION_DONE, 3)
  const operations = query.operations ?? []
  header.writeUInt16BE(fields.length, 18)
  header.writeUInt16BE(operations.length, 20)
  return frame(TYPE_MESSAGE, Buffer.concat([header, ...fields, ...operations]))
}

export interface QueryAnswer {
  /** In the order in which they came. */
  records: Array<{ partition: number, digest: string, operations: number, bins: Map<string, { particle: number, value: Buffer }> }>
  /** Result by partition. */
  done: Map<number, number>
  result: number
  /** Sizes of the frames. */
  frames: number[]
}

export function partitionOfDigest (digest: Buffer): number {
  return digest.readUInt16LE(0) % PARTITIONS
}

/** Adds what a frame holds; true when it ends the reply. */
export function takeFrame (answer: QueryAnswer, body: Buffer): boolean {
  answer.frames.push(body.length)
  for (let at = 0; at < body.length;) {
    const result = body.readUInt8(at + 5)
    const info3 = body.readUInt8(at + 3)
    const generation = body.readUInt32BE(at + 6)
    let next = at + body.readUInt8(at)
    let digest: Buffer | undefined
    for (let left = body.readUInt16BE(at + 18); left > 0; left--) {
      const size = body.readUInt32BE(next)
      if (body.readUInt8(next + 4) === FIELD_DIGEST) digest = body.subarray(next + 5, next + 4 + size)
      next += 4 + size
    }
    const operations = body.readUInt16BE(at + 20)
    const bins = new Map<string, { particle: number, value: Buffer }>()
    for (let left = operations; left > 0; left--) {
      const nameEnd = next + 8 + body.readUInt8(next + 7)
      const end = next + 4 + body.readUInt32BE(next)
      bins.set(body.toString('utf8', next + 8, nameEnd), { particle: body.readUInt8(next + 5), value: body.subarray(nameEnd, end) })
      next = end
    }
    at = next
    if ((info3 & INFO3_LAST) !== 0) {
      if (at !== body.length) throw new Error('something follows the last message')
      answer.result = result
      return true
    }
    if ((info3 & INFO3_PARTITION_DONE) !== 0) {
      if (answer.done.has(generation)) throw new Error(`partition ${generation} was done twice`)
      answer.done.set(generation, result)
    } else {
      if (digest === undefined || result !== 0) throw new Error(`a record without digest, or with result ${result}`)
      answer.records.push({ partition: partitionOfDigest(digest), digest: digest.toString('hex'), operations, bins })
    }
  }
  return false
}

/** A query in pages of at most `recordsMax` records, each resumed behind the last digest of every partition; their records together. */
export async function runPages (connection: RawConnection, query: RawQuery, recordsMax: bigint, resume: (digests: Buffer[]) => Buffer[] = () => []): Promise<QueryAnswer['records']> {
  const found: QueryAnswer['records'] = []
  let digests: Buffer[] = []
  let open = [...new Array(PARTITIONS).keys()]
  for (let left = PAGES_MAX; open.length > 0 || digests.length > 0; left--) {
    if (left === 0) throw new Error(`the query does not end within ${PAGES_MAX} pages`)
    const answer = await runQuery(connection, { ...query, recordsMax, partitions: open, digests, extra: [...query.extra ?? [], ...resume(digests)] })
    if (answer.result !== 0) throw new Error(`a page ended with ${answer.result}`)
    if (answer.records.length > recordsMax) throw new Error(`${answer.records.length} records in a page of ${recordsMax}`)
    found.push(...answer.records)
    const last = new Map(digests.map((digest) => [partitionOfDigest(digest), digest]))
    for (const { partition, digest } of answer.records) last.set(partition, Buffer.from(digest, 'hex'))
    open = open.filter((partition) => !answer.done.has(partition) && !last.has(partition))
    digests = [...last].filter(([partition]) => !answer.done.has(partition)).map(([, digest]) => digest)
  }
  return found
}

/** Sends a query and reads its whole reply. */
export async function runQuery (connection: RawConnection, query: RawQuery = {}): Promise<QueryAnswer> {
  const answer: QueryAnswer = { records: [], done: new Map(), result: -1, frames: [] }
  connection.send(queryFrame(query))
  while (!takeFrame(answer, inflated(await connection.receive(30_000)).body)) { /* The next frame. */ }
  return answer
}

// Raw frames for tests that talk to a node's socket themselves. Written apart from src/client and native/wire on purpose:
// a mistake shared by both sides of a test would pass it.
//
// frame:   u8 version 2, u8 type (1 info, 3 message, 4 compressed), u48 body length, body
// compressed: u64 bytes of the frame within, zlib stream of that frame
// message: u8 header size 22, u8 info1, u8 info2, u8 info3, u8 info4, u8 result, u32 generation, u32 ttl,
//          u32 timeout ms (row number in a batch reply), u16 fields, u16 operations, fields, operations
// field:   u32 size of type and data, u8 type, data
// operation: u32 size of the rest, u8 operation, u8 particle type, u8 flags, u8 name length, name, value
import { connect, type Socket } from 'node:net'
import { deflateSync, inflateSync } from 'node:zlib'

export const FRAME_HEADER_BYTES = 8
export const MESSAGE_HEADER_BYTES = 22

export const TYPE_INFO = 1
export const TYPE_MESSAGE = 3
export const TYPE_COMPRESSED = 4

export const INFO1_READ = 1
export const INFO1_GET_ALL = 2
export const INFO1_COMPRESS = 128
export const INFO2_WRITE = 1

const FIELD_NAMESPACE = 0
const FIELD_SET = 1
const FIELD_DIGEST = 4
const OPERATION_WRITE = 2
const PARTICLE_INTEGER = 1
const PARTICLE_BLOB = 4

export function frame (type: number, body: Buffer, version = 2): Buffer {
  return Buffer.concat([frameHeader(type, body.length, version), body])
}

/** Eight bytes that promise `bodyBytes` more, whether they follow or not. */
export function frameHeader (type: number, bodyBytes: number, version = 2): Buffer {
  const header = Buffer.alloc(FRAME_HEADER_BYTES)
  header.writeUInt8(version, 0)
  header.writeUInt8(type, 1)
  header.writeUIntBE(bodyBytes, 2, 6)
  return header
}

/** The compressed form of a whole frame; `claimedBytes` is written instead of its size. */
export function compressed (within: Buffer, claimedBytes = within.length): Buffer {
  const size = Buffer.alloc(8)
  size.writeBigUInt64BE(BigInt(claimedBytes))
  return frame(TYPE_COMPRESSED, Buffer.concat([size, deflateSync(within)]))
}

/** The reply within a compressed one; any other as it is. */
export function inflated (reply: RawReply): RawReply {
  if (reply.type !== TYPE_COMPRESSED) return reply
  const within = inflateSync(reply.body.subarray(8))
  if (BigInt(within.length) !== reply.body.readBigUInt64BE(0)) throw new Error(`${within.length} bytes within a compressed reply that announces others`)
  return { type: within.readUInt8(1), body: within.subarray(FRAME_HEADER_BYTES) }
}

function field (type: number, data: Buffer): Buffer {
  const head = Buffer.alloc(5)
  head.writeUInt32BE(data.length + 1, 0)
  head.writeUInt8(type, 4)
  return Buffer.concat([head, data])
}

export function operation (code: number, particle: number, name: string, value: Buffer): Buffer {
  const nameBytes = Buffer.from(name)
  const head = Buffer.alloc(8)
  head.writeUInt32BE(4 + nameBytes.length + value.length, 0)
  head.writeUInt8(code, 4)
  head.writeUInt8(particle, 5)
  head.writeUInt8(0, 6)
  head.writeUInt8(nameBytes.length, 7)
  return Buffer.concat([head, nameBytes, value])
}

export interface RawKey { namespace: string, set: string, digest: Buffer }

export interface RawMessage {
  info1?: number
  info2?: number
  ttl?: number
  fields: Buffer[]
  operations?: Buffer[]
  /** Written into the header instead of the true numbers, for frames that lie. */
  claimedFields?: number
  claimedOperations?: number
}

export function message ({ info1 = 0, info2 = 0, ttl = 0, fields, operations = [], claimedFields, claimedOperations }: RawMessage): Buffer {
  const header = Buffer.alloc(MESSAGE_HEADER_BYTES)
  header.writeUInt8(MESSAGE_HEADER_BYTES, 0)
  header.writeUInt8(info1, 1)
  header.writeUInt8(info2, 2)
  header.writeUInt32BE(ttl >>> 0, 10)
  header.writeUInt32BE(1000, 14)
  header.writeUInt16BE(claimedFields ?? fields.length, 18)
  header.writeUInt16BE(claimedOperations ?? operations.length, 20)
  return frame(TYPE_MESSAGE, Buffer.concat([header, ...fields, ...operations]))
}

export function keyFields ({ namespace, set, digest }: RawKey): Buffer[] {
  return [field(FIELD_NAMESPACE, Buffer.from(namespace)), field(FIELD_SET, Buffer.from(set)), field(FIELD_DIGEST, digest)]
}

export function putInteger (key: RawKey, bin: string, value: bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigInt64BE(value)
  return message({ info2: INFO2_WRITE, fields: keyFields(key), operations: [operation(OPERATION_WRITE, PARTICLE_INTEGER, bin, bytes)] })
}

export function putBlob (key: RawKey, bin: string, value: Buffer): Buffer {
  return message({ info2: INFO2_WRITE, fields: keyFields(key), operations: [operation(OPERATION_WRITE, PARTICLE_BLOB, bin, value)] })
}

export function getAll (key: RawKey): Buffer {
  return message({ info1: INFO1_READ | INFO1_GET_ALL, fields: keyFields(key) })
}

export interface RawReply { type: number, body: Buffer }

export interface MessageReply { result: number, generation: number, bins: Map<string, { particle: number, value: Buffer }> }

/** Decodes a reply of one record. */
export function decodeMessage ({ type, body }: RawReply): MessageReply {
  if (type !== TYPE_MESSAGE) throw new Error(`expected a frame of type ${TYPE_MESSAGE}, got ${type}`)
  const bins = new Map<string, { particle: number, value: Buffer }>()
  let at = body.readUInt8(0)
  for (let left = body.readUInt16BE(18); left > 0; left--) at += 4 + body.readUInt32BE(at)
  for (let left = body.readUInt16BE(20); left > 0; left--) {
    const end = at + 4 + body.readUInt32BE(at)
    const nameEnd = at + 8 + body.readUInt8(at + 7)
    bins.set(body.toString('utf8', at + 8, nameEnd), { particle: body.readUInt8(at + 5), value: body.subarray(nameEnd, end) })
    at = end
  }
  return { result: body.readUInt8(5), generation: body.readUInt32BE(6), bins }
}

/** One socket to a node: writes raw bytes, yields reply frames in the order in which they come. */
export class RawConnection {
  #socket: Socket
  #buffered: Buffer = Buffer.alloc(0)
  #waiting: Array<{ resolve: (reply: RawReply) => void, reject: (error: Error) => void }> = []
  #replies: RawReply[] = []
  #ended = false
  #whenEnded: Promise<void>

  private constructor (socket: Socket) {
    this.#socket = socket
    socket.on('data', chunk => { this.#take(chunk) })
    socket.on('error', () => { /* A reset is an end like any other; `close` follows. */ })
    this.#whenEnded = new Promise(resolve => {
      socket.on('close', () => {
        this.#ended = true
        for (const { reject } of this.#waiting.splice(0)) reject(new Error('the node closed the connection'))
        resolve()
      })
    })
  }

  static open (port: number, host = '127.0.0.1', timeoutMs = 5_000): Promise<RawConnection> {
    return new Promise((resolve, reject) => {
      const socket = connect({ host, port, noDelay: true })
      const timer = setTimeout(() => socket.destroy(new Error(`no connection to ${host}:${port} in ${timeoutMs} ms`)), timeoutMs)
      socket.once('error', reject)
      socket.once('connect', () => {
        clearTimeout(timer)
        socket.off('error', reject)
        resolve(new RawConnection(socket))
      })
      socket.once('close', () => { clearTimeout(timer) })
    })
  }

  send (bytes: Buffer): void {
    this.#socket.write(bytes)
  }

  /** The next reply frame; rejects when the node closes the connection first or `timeoutMs` pass. */
  receive (timeoutMs = 10_000): Promise<RawReply> {
    const ready = this.#replies.shift()
    if (ready !== undefined) return Promise.resolve(ready)
    if (this.#ended) return Promise.reject(new Error('the node closed the connection'))
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting = this.#waiting.filter(one => one !== waiter)
        reject(new Error(`no reply in ${timeoutMs} ms`))
      }, timeoutMs)
      const waiter = {
        resolve: (reply: RawReply) => { clearTimeout(timer); resolve(reply) },
        reject: (error: Error) => { clearTimeout(timer); reject(error) }
      }
      this.#waiting.push(waiter)
    })
  }

  /** Resolves when the node has closed the connection; rejects when it has not after `timeoutMs`. */
  async closedByNode (timeoutMs = 10_000): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => { reject(new Error(`the node kept the connection open for ${timeoutMs} ms`)) }, timeoutMs)
    })
    try {
      await Promise.race([this.#whenEnded, late])
    } finally {
      clearTimeout(timer)
    }
  }

  /** Reads nothing more until `resume`: the peer is held back. */
  pause (): void {
    this.#socket.pause()
  }

  resume (): void {
    this.#socket.resume()
  }

  close (): void {
    this.#socket.destroy()
  }

  #take (chunk: Buffer): void {
    this.#buffered = this.#buffered.length === 0 ? chunk : Buffer.concat([this.#buffered, chunk])
    while (this.#buffered.length >= FRAME_HEADER_BYTES) {
      const end = FRAME_HEADER_BYTES + this.#buffered.readUIntBE(2, 6)
      if (this.#buffered.length < end) return
      const reply = { type: this.#buffered.readUInt8(1), body: this.#buffered.subarray(FRAME_HEADER_BYTES, end) }
      this.#buffered = this.#buffered.subarray(end)
      const waiter = this.#waiting.shift()
      if (waiter === undefined) this.#replies.push(reply)
      else waiter.resolve(reply)
    }
  }
}

/** One info command on a connection of its own; the value without the echoed command and the line end. */
export async function rawInfo (port: number, command: string, timeoutMs = 5_000): Promise<string> {
  const connection = await RawConnection.open(port, '127.0.0.1', timeoutMs)
  try {
    connection.send(frame(TYPE_INFO, Buffer.from(`${command}\n`)))
    const { body } = await connection.receive(timeoutMs)
    const text = body.toString('utf8')
    const tab = text.indexOf('\t')
    if (tab < 0) throw new Error(`info ${command} answered without a tab: ${JSON.stringify(text)}`)
    return text.slice(tab + 1).replace(/\n$/, '')
  } finally {
    connection.close()
  }
}

/** The `k=v;k=v` answers (statistics, namespace/NS, get-stats) as a map. */
export async function rawInfoPairs (port: number, command: string): Promise<Map<string, string>> {
  const pairs = new Map<string, string>()
  for (const pair of (await rawInfo(port, command)).split(';')) {
    const equals = pair.indexOf('=')
    if (equals > 0) pairs.set(pair.slice(0, equals), pair.slice(equals + 1))
  }
  return pairs
}

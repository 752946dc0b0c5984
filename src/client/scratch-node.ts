// A node for the client's own tests, in the same process; nothing else uses it.
//
// It models: a TCP endpoint on 127.0.0.1 that answers in request order; info answers of one node of a cluster; records kept as the bytes that were written
// (put, get, delete and apply, without generations, filters or bin deletion). Faults: answers cut into single bytes, requests swallowed, answers held
// back until released, queries answered by what the test gives, connections cut in the middle of an answer or before it, stray bytes, the listener gone and back on the same port.
// It does not model: time limits, info behind held answers (info is answered at once), several frames an answer, half-open sockets, a full receive window.

import { createServer, type Server, type Socket } from 'node:net'
import { FieldId, Info1, Info2, Info3, Limit, PROTO_HEADER_BYTES, ProtoType, ResultCode } from '../engine/constants.js'
import { FrameReader } from './frame-reader.js'
import { decodeMessage, encodeRequest, textField, writeProto, type Field, type Message, type WireOp } from './message.js'

/** What to do instead of answering: `swallow` never answers this request, `cut` ends the connection after half the answer, `drop` before it. */
export type Fault = 'swallow' | 'cut' | 'drop'

export interface ScratchNodeOptions {
  readonly name: string
  /** Namespaces it is master of everything in. */
  readonly namespaces?: readonly string[]
}

export class ScratchNode {
  readonly name: string
  readonly namespaces: readonly string[]
  /** Info answers that differ from the usual ones. */
  readonly info = new Map<string, string>()
  readonly records = new Map<string, { fields: Field[], ops: WireOp[], generation: number }>()
  /** Frames received, in order. */
  readonly received: Buffer[] = []
  /** Asked for each record request, in order of arrival. */
  fault: (frame: Buffer) => Fault | undefined = () => undefined
  /** The result code to answer with; undefined to do what was asked. */
  result: (frame: Buffer) => number | undefined = () => undefined
  /** Answers queries, frame by frame; without it they are swallowed. */
  query: (request: Message, socket: Socket) => void = () => {}
  dribble = false
  partitionGeneration = 1
  peersGeneration = 1
  /** Names and ports of the others. */
  peers: ReadonlyArray<readonly [name: string, port: number]> = []
  readonly #sockets = new Set<Socket>()
  #server: Server | undefined
  #port = 0
  #held: Array<() => void> | undefined
  #connections = 0

  constructor (options: ScratchNodeOptions) {
    this.name = options.name
    this.namespaces = options.namespaces ?? ['test']
  }

  get port (): number {
    return this.#port
  }

  /** Connections accepted so far. */
  get connections (): number {
    return this.#connections
  }

  async start (): Promise<this> {
    const server = createServer((socket) => this.#serve(socket))
    this.#server = server
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(this.#port, '127.0.0.1', resolve)
    })
    this.#port = (server.address() as { port: number }).port
    return this
  }

  /** Ends every connection and the listener; `start` brings it back on the same port. */
  async stop (): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await new Promise<void>((resolve) => {
      if (this.#server === undefined) resolve()
      else this.#server.close(() => resolve())
    })
    this.#server = undefined
  }

  /** Holds answers to record requests back until `release`. */
  hold (): void {
    this.#held ??= []
  }

  /** Sends the oldest `count` answers that are held; with all of them, holding ends. */
  release (count = Infinity): void {
    const held = this.#held ?? []
    if (count >= held.length) this.#held = undefined
    for (const answer of held.splice(0, count)) answer()
  }

  #serve (socket: Socket): void {
    this.#connections++
    this.#sockets.add(socket)
    const reader = new FrameReader()
    socket.setNoDelay(true)
    socket.on('data', (chunk) => {
      for (const frame of reader.push(chunk)) this.#handle(socket, Buffer.from(frame))
    })
    socket.on('error', () => {})
    socket.on('close', () => this.#sockets.delete(socket))
  }

  #handle (socket: Socket, frame: Buffer): void {
    if (frame[1] === ProtoType.INFO) return this.#write(socket, this.#answerInfo(frame))
    this.received.push(frame)
    const message = decodeMessage(frame)
    if (message.fields.has(FieldId.PARTITIONS) || message.fields.has(FieldId.DIGESTS_AFTER)) return this.query(message, socket)
    const fault = this.fault(frame)
    if (fault === 'swallow') return
    const answer = () => {
      const reply = this.#answerRecord(frame)
      if (fault === undefined) return this.#write(socket, reply)
      if (fault === 'cut') socket.write(reply.subarray(0, reply.length >> 1))
      socket.end()
    }
    if (this.#held === undefined) answer()
    else this.#held.push(answer)
  }

  #write (socket: Socket, bytes: Buffer): void {
    if (!this.dribble) {
      socket.write(bytes)
      return
    }
    for (let at = 0; at < bytes.length; at++) socket.write(bytes.subarray(at, at + 1))
  }

  #answerInfo (frame: Buffer): Buffer {
    const commands = frame.toString('utf8', PROTO_HEADER_BYTES).split('\n').filter((command) => command !== '')
    const body = Buffer.from(commands.map((command) => `${command}\t${this.#infoValue(command)}\n`).join(''))
    const reply = Buffer.concat([Buffer.alloc(PROTO_HEADER_BYTES), body])
    writeProto(reply, ProtoType.INFO)
    return reply
  }

  #infoValue (command: string): string {
    const given = this.info.get(command)
    if (given !== undefined) return given
    switch (command) {
      case 'node': return this.name
      case 'partition-generation': return String(this.partitionGeneration)
      case 'peers-generation': return String(this.peersGeneration)
      case 'peers-clear-std': return `${this.peersGeneration},3000,[${this.peers.map(([name, port]) => `[${name},,[127.0.0.1:${port}]]`).join(',')}]`
      case 'replicas': return this.namespaces.map((namespace) => `${namespace}:0,1,${Buffer.alloc(Limit.PARTITIONS / 8, 0xff).toString('base64')}`).join(';')
      default: return 'ERROR:4:unrecognized command'
    }
  }

  #answerRecord (frame: Buffer): Buffer {
    const message = decodeMessage(frame)
    const result = this.result(frame)
    if (result !== undefined) return reply({ result, generation: 0 })
    const id = message.fields.get(FieldId.DIGEST)!.toString('hex')
    const record = this.records.get(id)
    if (message.fields.has(FieldId.UDF_FUNCTION)) {
      return reply({ result: 0, generation: 0, ops: [{ op: 1, name: 'SUCCESS', type: 20, value: message.fields.get(FieldId.UDF_ARGS)! }] })
    }
    if ((message.info2 & Info2.DELETE) !== 0) {
      return reply({ result: this.records.delete(id) ? ResultCode.OK : ResultCode.NOT_FOUND, generation: 0 })
    }
    if ((message.info2 & Info2.WRITE) !== 0) {
      const generation = (record?.generation ?? 0) + 1
      const key = message.fields.get(FieldId.KEY)
      this.records.set(id, { fields: key === undefined ? [] : [{ id: FieldId.KEY, data: key }], ops: message.ops.map((op) => ({ ...op, op: 1 })), generation })
      return reply({ result: 0, generation })
    }
    if (record === undefined) return reply({ result: ResultCode.NOT_FOUND, generation: 0 })
    const wanted = new Set(message.ops.map(({ name }) => name))
    const ops = (message.info1 & Info1.GET_NO_BINS) !== 0 ? [] : record.ops.filter(({ name }) => wanted.size === 0 || wanted.has(name))
    return reply({ result: 0, generation: record.generation, fields: record.fields, ops })
  }
}

const RESULT_OFFSET = 13

function reply (answer: { result: number, generation: number, fields?: readonly Field[], ops?: readonly WireOp[] }): Buffer {
  const frame = encodeRequest({ info3: Info3.LAST, generation: answer.generation, fields: answer.fields ?? [], ops: answer.ops ?? [] })
  frame[RESULT_OFFSET] = answer.result
  return frame
}

/** A shipped write, as the engine makes it. */
export function shippedFrame (parts: { namespace: string, set: string, digest: Buffer, lut: bigint, deleted?: boolean, generation?: number, ttl?: number, ops?: readonly WireOp[] }): Buffer {
  const lut = Buffer.alloc(8)
  lut.writeBigUInt64BE(parts.lut)
  return encodeRequest({
    info1: Info1.XDR,
    info2: Info2.WRITE | (parts.deleted === true ? Info2.DELETE : 0),
    info3: parts.deleted === true ? 0 : Info3.CREATE_OR_REPLACE,
    generation: parts.generation ?? 1,
    ttl: parts.ttl ?? 0xffff_ffff,
    fields: [
      textField(FieldId.NAMESPACE, parts.namespace), textField(FieldId.SET, parts.set), { id: FieldId.DIGEST, data: parts.digest }, { id: FieldId.LUT, data: lut }
    ],
    ops: parts.ops ?? []
  })
}

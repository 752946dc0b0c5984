// Info messages (PROTOCOL 11): commands of text, one a line; the answer repeats each command, a tab and its value.

import { Limit, PROTO_HEADER_BYTES, ProtoType, ResultCode } from '../engine/constants.js'
import { Connection, type ConnectionOptions } from './connection.js'
import { InfoError } from './errors.js'
import { FrameError, writeProto } from './message.js'

export function encodeInfo (commands: readonly string[]): Buffer {
  for (const command of commands) {
    if (/[\n\t]/.test(command) || command === '') throw new TypeError(`${JSON.stringify(command)} is not an info command`)
  }
  const body = Buffer.from(`${commands.join('\n')}\n`)
  if (body.length > Limit.INFO_BODY_BYTES_MAX) throw new RangeError(`info commands of ${body.length} bytes; at most ${Limit.INFO_BODY_BYTES_MAX}`)
  const frame = Buffer.concat([Buffer.alloc(PROTO_HEADER_BYTES), body])
  writeProto(frame, ProtoType.INFO)
  return frame
}

/** The value of each command. Throws {@link FrameError} for something else than an info answer. */
export function decodeInfo (frame: Buffer): Map<string, string> {
  if (frame[1] !== ProtoType.INFO) throw new FrameError(`type ${frame[1]}: not an info answer`)
  const values = new Map<string, string>()
  for (const line of frame.toString('utf8', PROTO_HEADER_BYTES).split('\n')) {
    const tab = line.indexOf('\t')
    if (tab >= 0) values.set(line.slice(0, tab), line.slice(tab + 1))
  }
  return values
}

/** The error that a value stands for (`ERROR:4:message`, `FAIL:...`, `error=...`), or undefined for a proper answer. */
export function infoError (command: string, value: string): InfoError | undefined {
  const match = /^(?:ERROR|FAIL):(-?\d*):?(.*)$/is.exec(value)
  if (match !== null) return new InfoError(command, Number(match[1] || ResultCode.UNKNOWN), match[2] || value)
  if (!/^error=/i.test(value)) return undefined
  const parts = parsePairs(value)
  const message = parts.has('message') ? Buffer.from(parts.get('message')!, 'base64').toString('utf8') : undefined
  const place = [parts.get('file'), parts.get('line')].filter((part) => part !== undefined && part !== '').join(':')
  return new InfoError(command, ResultCode.UNKNOWN, [parts.get('error')!.replaceAll('_', ' '), place, message].filter(Boolean).join(': '))
}

/** `a=1;b=2` as a map; a part without `=` is left out. */
export function parsePairs (value: string, separator = ';'): Map<string, string> {
  const pairs = new Map<string, string>()
  for (const part of value.split(separator)) {
    const equals = part.indexOf('=')
    if (equals > 0) pairs.set(part.slice(0, equals), part.slice(equals + 1))
  }
  return pairs
}

/** Sends commands over a connection. A command that the answer leaves out has no entry. */
export async function requestInfo (connection: Connection, commands: readonly string[], timeoutMs: number): Promise<Map<string, string>> {
  return decodeInfo(await connection.request(encodeInfo(commands), timeoutMs))
}

/** Asks one node over a connection of its own. */
export async function infoOnce (target: ConnectionOptions, commands: readonly string[], timeoutMs: number): Promise<Map<string, string>> {
  const connection = await Connection.open(target)
  try {
    return await requestInfo(connection, commands, timeoutMs)
  } finally {
    connection.close()
  }
}

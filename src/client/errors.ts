// What a client reports. Codes of the server are positive (`ResultCode`), those of the client itself negative.

import { RESULT_CODES, ResultCode } from '../engine/constants.js'

export const ClientCode = {
  ABORTED: -5,
  NO_NODE: -8,
  /** A certificate or a version of TLS that one side does not accept, or a port that speaks TLS where the other side does not: trying again changes nothing. */
  TLS: -9,
  CONNECTION: -10,
  QUEUE_FULL: -11
} as const

const NAMES = new Map<number, { name: string, retriable: boolean }>([
  ...RESULT_CODES.map(({ code, name, retriable }) => [code, { name, retriable }] as const),
  [ClientCode.ABORTED, { name: 'CLIENT_ABORTED', retriable: false }],
  [ClientCode.NO_NODE, { name: 'CLIENT_NO_NODE', retriable: true }],
  [ClientCode.TLS, { name: 'CLIENT_TLS', retriable: false }],
  [ClientCode.CONNECTION, { name: 'CLIENT_CONNECTION', retriable: true }],
  [ClientCode.QUEUE_FULL, { name: 'CLIENT_QUEUE_FULL', retriable: true }]
])

export function resultName (result: number): string {
  return NAMES.get(result)?.name ?? `RESULT_${result}`
}

/** A request that was not carried out, or not for certain. */
export class RecordError extends Error {
  readonly result: number
  /** The result's name: `KEY_BUSY`, `CLIENT_CONNECTION`. */
  readonly code: string
  /** The same request may succeed a moment later. */
  readonly retriable: boolean
  /** Nobody knows whether it was carried out: it was sent and there was no answer. */
  readonly inDoubt: boolean

  constructor (result: number, detail?: string, inDoubt = result === ResultCode.TIMEOUT) {
    const code = resultName(result)
    super(detail === undefined ? code : `${code}: ${detail}`)
    this.name = 'RecordError'
    this.result = result
    this.code = code
    this.retriable = NAMES.get(result)?.retriable ?? false
    this.inDoubt = inDoubt
  }
}

/** An info command that was answered with an error. */
export class InfoError extends Error {
  readonly code = 'INFO'
  readonly command: string
  /** The code that the server gave. */
  readonly result: number

  constructor (command: string, result: number, message: string) {
    super(message)
    this.name = 'InfoError'
    this.command = command
    this.result = result
  }
}

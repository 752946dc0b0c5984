// The grammar of info requests (PROTOCOL section 11.3): the name ends at the first of `/` (an argument follows), `:` (arguments follow) or `;`.
// Parameters are `key=value` separated by `;`; a trailing `;` is tolerated.

import { ResultCode } from '../engine/constants.js'

/** A refusal, worded as the protocol has it: `ERROR:<code>:<message>`, the code left out when it is 1. */
export class InfoError extends Error {
  readonly code: number

  constructor (code: number, message: string) {
    super(message)
    this.name = 'InfoError'
    this.code = code
  }

  get text (): string {
    return `ERROR:${this.code === ResultCode.UNKNOWN ? '' : this.code}:${this.message}`
  }
}

/** One command of a request. */
export interface InfoCommandCall {
  /** As it was sent; it stands in front of the answer. */
  readonly sent: string
  readonly name: string
  /** What follows the name after `/`. */
  readonly path: readonly string[]
  readonly parameters: InfoParameters
}

export class InfoParameters {
  readonly #values: ReadonlyMap<string, string>

  constructor (values: ReadonlyMap<string, string>) {
    this.#values = values
  }

  /** The value of a parameter, by the first of its names that was sent. */
  get (...names: string[]): string | undefined {
    for (const name of names) {
      const value = this.#values.get(name)
      if (value !== undefined) return value
    }
    return undefined
  }

  /** Every parameter but those named. */
  others (...names: string[]): Map<string, string> {
    return new Map([...this.#values].filter(([name]) => !names.includes(name)))
  }

  /** As `get`, refusing a missing or an empty value with `code`. */
  need (name: string, options: { aliases?: string[], code?: number } = {}): string {
    const code = options.code ?? ResultCode.PARAMETER
    const value = this.get(name, ...(options.aliases ?? []))
    if (value === undefined) throw new InfoError(code, `missing '${name}'`)
    if (value === '') throw new InfoError(code, `missing '${name}' value`)
    return value
  }
}

/** The value of a parameter, refused when it is longer than `bytesMax`. */
export function bounded (name: string, value: string, bytesMax: number): string {
  if (Buffer.byteLength(value) > bytesMax) throw new InfoError(ResultCode.PARAMETER, `'${name}' is longer than ${bytesMax} bytes`)
  return value
}

export function parseInfoCommand (sent: string): InfoCommandCall {
  const end = sent.search(/[/:;]/)
  const name = end < 0 ? sent : sent.slice(0, end)
  const rest = end < 0 ? '' : sent.slice(end)
  const colon = rest.indexOf(':')
  const path = rest.startsWith('/') ? rest.slice(1, colon < 0 ? undefined : colon).split('/') : []
  const text = colon < 0 ? (rest.startsWith(';') ? rest.slice(1) : '') : rest.slice(colon + 1)
  const values = new Map<string, string>()
  for (const part of text.split(';')) {
    if (part === '') continue
    const equals = part.indexOf('=')
    values.set(equals < 0 ? part : part.slice(0, equals), equals < 0 ? '' : part.slice(equals + 1))
  }
  return { sent, name, path: path.map((part) => part.replace(/;$/, '')), parameters: new InfoParameters(values) }
}

/** A name within a list of pairs: what would separate pairs, entries or answers there is percent-encoded. */
export function listedName (name: string): string {
  return name.replace(/[%:;=,\u0000-\u001f\u007f]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`)
}

/** `a=1;b=2`, the layout of statistics and configuration. */
export function pairs (values: Iterable<readonly [string, unknown]>, separator = ';'): string {
  return [...values].map(([name, value]) => `${name}=${String(value)}`).join(separator)
}

import type { Change } from '../change.js'
import { flatJsonFormat } from './flat-json.js'
import { jsonFormat } from './json.js'

/** Text form of a change. Equal changes give equal text; no text holds a line break. */
export interface Format {
  readonly name: string
  /** Identifies the record. Without a user's key it is made of namespace, set and digest. */
  key (change: Change): string
  /** The change itself, self-contained: it names its record too. */
  value (change: Change): string
}

const FORMATS: Readonly<Record<string, Format>> = { json: jsonFormat, 'flat-json': flatJsonFormat }

/** @throws RangeError for a name that is not a format; the message lists those that are */
export function formatByName (name: string): Format {
  const format = Object.hasOwn(FORMATS, name) ? FORMATS[name] : undefined
  if (format === undefined) throw new RangeError(`format '${name}' is unknown; known: ${Object.keys(FORMATS).join(', ')}`)
  return format
}

// Secondary indexes as info commands tell of them (PROTOCOL 11.1).

import { parsePairs } from './info.js'

/** An index as `sindex-list` has it; null for what it does not have. */
export interface ListedIndex {
  readonly namespace: string
  readonly name: string
  readonly set: string | null
  readonly bin: string | null
  /** Base64, as the expression is. */
  readonly context: string | null
  readonly expression: string | null
  /** `numeric`, `string`, `blob` or `geo2dsphere`. */
  readonly type: string | null
  /** `default`, `list`, `mapkeys`, `mapvalues` or `set`. */
  readonly indexType: string
  /** `RW`, `WO` or `ERROR`; lists do not have it for indexes of whole sets. */
  readonly state: string | null
}

/** What a node encodes in names that stand in lists of pairs. */
const ENCODED = /%(?:2C|25|3A|3B|3D|7F|[01][0-9A-F])/g

function decoded (name: string | null): string | null {
  return name === null ? null : name.replace(ENCODED, (code) => String.fromCharCode(Number.parseInt(code.slice(1), 16)))
}

/** The answer to `sindex-list:...;b64=true`. */
export function parseIndexes (answer: string): ListedIndex[] {
  return answer.split(';').filter((part) => part !== '').map((part) => {
    const pairs = parsePairs(part, ':')
    const text = (key: string): string | null => {
      const value = pairs.get(key)
      return value === undefined || value === 'null' ? null : value
    }
    return {
      namespace: pairs.get('ns') ?? '', name: pairs.get('indexname') ?? '', set: decoded(text('set')), bin: decoded(text('bin')), context: text('context'), expression: text('exp'),
      type: text('type')?.toLowerCase() ?? null, indexType: text('indextype')?.toLowerCase() ?? 'default', state: text('state')
    }
  })
}

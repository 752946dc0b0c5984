// A record of every type of value and of key that clients have, and names that need escapes. The files in `src/backup/vectors` hold the same records.

import { Double, GeoJSON, type Bins, type Key, type UserKey, type Value } from '../../client/index.js'

const VALUES: readonly Value[] = [
  0, -1, 2n ** 63n - 1n, -(2n ** 63n), 1.5, new Double(-0), new Double(2), NaN, Infinity, -Infinity, 5e-324, Number.MAX_VALUE, new Double(1e21), 0.1,
  '', 'line\nfeed \\ \u00e4 \0', true, false, Buffer.alloc(0), Buffer.from([0, 10, 255]), [1, ['a', null]], [], {}, { a: 1, b: [2.5] },
  new Map<Value, Value>([[1, 'x'], ['y', Buffer.from('z')]]), new GeoJSON({ type: 'Point', coordinates: [8.5, 47.4] })
]

const KEYS: readonly UserKey[] = [
  7, -7n, 2n ** 63n - 1n, 'text key\n', ' lead', '', '\u00e4\\ "q"', Buffer.from([1, 2, 3]), Buffer.alloc(0), 2.5, new Double(2)
]

export interface TypedRecord { readonly key: Key, readonly bins: Bins, readonly sendKey: boolean }

/** In the namespace `test`; none expires. */
export const EVERY_TYPE: readonly TypedRecord[] = [
  ...VALUES.map((value, n) => ({ key: { namespace: 'test', set: 'types', key: n }, bins: { value, 'a b\\c': n, 'nl\nx': 1 }, sendKey: false })),
  ...KEYS.map((key, n) => ({ key: { namespace: 'test', set: 'my set\\\n!', key }, bins: { i: n }, sendKey: true })),
  { key: { namespace: 'test', key: 'no set' }, bins: { i: 1 }, sendKey: false }
]

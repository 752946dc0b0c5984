// Deep comparison of Lua values, with the differences in words.
//
// Types count: 1 is not 1.0, and bytes are no string. A Lua table stands for the list or map with the same elements, since that is shorter to write.

import type { Table, TValue } from '../fengari.js'
import { FLOAT, INTEGER, NIL, STRING, TABLE, tableEntries, textOf } from '../lua.js'
import { describe, LuaBytes, LuaGeoJson, LuaList, LuaMap, LuaOpaque } from '../values.js'

const DEPTH_MAX = 64
const DIFFERENCES_SHOWN_MAX = 12
const TEXT_CHARS_MAX = 160
/** A string key that can follow a dot. */
const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/

interface Pair {
  readonly key: TValue
  readonly value: TValue
}

/** What a container holds: by position, by key, or nothing, which is an empty list as well as an empty map. */
type Elements =
  | { readonly kind: 'list', readonly items: readonly TValue[] }
  | { readonly kind: 'map', readonly entries: ReadonlyMap<unknown, Pair> }
  | { readonly kind: 'empty table' }

function elementsOfTable (table: Table): Elements {
  const entries = new Map<unknown, Pair>()
  for (const [key, value] of tableEntries(table)) if (value.type !== NIL) entries.set(LuaMap.identity(key), { key, value })
  if (entries.size === 0) return { kind: 'empty table' }
  const items: TValue[] = []
  for (let position = 1; position <= entries.size; position++) {
    const entry = entries.get(position)
    if (entry === undefined) return { kind: 'map', entries }
    items.push(entry.value)
  }
  return { kind: 'list', items }
}

function elementsOf (value: TValue): Elements | undefined {
  const object: unknown = value.value
  if (value.type === TABLE) return elementsOfTable(object as Table)
  if (object instanceof LuaList) return { kind: 'list', items: object.items }
  if (object instanceof LuaMap) return { kind: 'map', entries: object.entries }
  return undefined
}

function textAt (value: TValue, depth: number): string {
  if (value.type !== TABLE) return value.type === STRING ? JSON.stringify(textOf(value)) : describe(value, 1)
  if (depth > 4) return '{...}'
  const elements = elementsOfTable(value.value)
  if (elements.kind === 'empty table') return '{}'
  if (elements.kind === 'list') return `{${elements.items.map(item => textAt(item, depth + 1)).join(', ')}}`
  return `{${[...elements.entries.values()].map(({ key, value }) => `${keyText(key)} = ${textAt(value, depth + 1)}`).join(', ')}}`
}

/** A value as it is shown in a message, shortened. */
export function valueText (value: TValue): string {
  const text = textAt(value, 0)
  return text.length > TEXT_CHARS_MAX ? `${text.slice(0, TEXT_CHARS_MAX)}...` : text
}

function keyText (key: TValue): string {
  const text = key.type === STRING ? textOf(key) : undefined
  return text !== undefined && NAME.test(text) ? text : `[${valueText(key)}]`
}

function stepText (key: TValue): string {
  const text = keyText(key)
  return text.startsWith('[') ? text : `.${text}`
}

function isSame (a: TValue, b: TValue): boolean {
  if (a.type !== b.type) return false
  if (a.type === FLOAT) return a.value === b.value || (Number.isNaN(a.value) && Number.isNaN(b.value))
  if (a.type === STRING) return Buffer.compare(a.value.realstring, b.value.realstring) === 0
  const [x, y]: [unknown, unknown] = [a.value, b.value]
  if (x instanceof LuaBytes && y instanceof LuaBytes) return x.particleType === y.particleType && Buffer.compare(x.content, y.content) === 0
  if (x instanceof LuaGeoJson && y instanceof LuaGeoJson) return Buffer.compare(x.json, y.json) === 0
  if (x instanceof LuaOpaque && y instanceof LuaOpaque) return x.particleType === y.particleType && Buffer.compare(x.raw, y.raw) === 0
  return x === y
}

function kindText (value: TValue): string {
  const object: unknown = value.value
  if (object instanceof LuaBytes) return 'bytes '
  if (value.type === INTEGER) return 'the integer '
  if (value.type === FLOAT) return 'the double '
  return ''
}

/** What differs, a line each, the first of them; none when the values are the same. */
export function differences (actual: TValue, expected: TValue): string[] {
  const lines: string[] = []
  let count = 0
  const differ = (path: string, wanted: string, found: string): void => {
    if (++count <= DIFFERENCES_SHOWN_MAX) lines.push(`${path === '' ? '' : `at ${path}: `}expected ${wanted}, got ${found}`)
  }
  const compareEntries = (a: ReadonlyMap<unknown, Pair>, b: ReadonlyMap<unknown, Pair>, path: string, depth: number): void => {
    for (const [identity, { key, value }] of b) {
      const found = a.get(identity)
      if (found === undefined) differ(path + stepText(key), valueText(value), 'nothing')
      else compare(found.value, value, path + stepText(key), depth + 1)
    }
    for (const [identity, { key, value }] of a) if (!b.has(identity)) differ(path + stepText(key), 'nothing', valueText(value))
  }
  const compareItems = (a: readonly TValue[], b: readonly TValue[], path: string, depth: number): void => {
    for (let i = 0; i < Math.max(a.length, b.length); i++) {
      const [found, wanted] = [a[i], b[i]]
      if (found === undefined) differ(`${path}[${i + 1}]`, valueText(wanted!), 'nothing')
      else if (wanted === undefined) differ(`${path}[${i + 1}]`, 'nothing', valueText(found))
      else compare(found, wanted, `${path}[${i + 1}]`, depth + 1)
    }
  }
  const compare = (a: TValue, b: TValue, path: string, depth: number): void => {
    const [found, wanted] = [elementsOf(a), elementsOf(b)]
    if (depth > DEPTH_MAX) return differ(path, valueText(b), 'something nested too deep to compare')
    if (found !== undefined && wanted !== undefined) {
      if (found.kind === 'empty table' || wanted.kind === 'empty table') {
        if (sizeOf(found) !== sizeOf(wanted)) differ(path, valueText(b), valueText(a))
        return
      }
      if (found.kind === 'list' && wanted.kind === 'list') return compareItems(found.items, wanted.items, path, depth)
      if (found.kind === 'map' && wanted.kind === 'map') return compareEntries(found.entries, wanted.entries, path, depth)
      return differ(path, `the ${wanted.kind} ${valueText(b)}`, `the ${found.kind} ${valueText(a)}`)
    }
    if (isSame(a, b)) return
    // 1 and 1.0, and bytes and text, may look the same.
    const looksSame = a.type !== b.type && valueText(a).replace(/\.0$/, '') === valueText(b).replace(/\.0$/, '')
    differ(path, `${looksSame ? kindText(b) : ''}${valueText(b)}`, `${looksSame ? kindText(a) : ''}${valueText(a)}`)
  }
  compare(actual, expected, '', 0)
  if (count > DIFFERENCES_SHOWN_MAX) lines.push(`... and ${count - DIFFERENCES_SHOWN_MAX} more`)
  return lines
}

function sizeOf (elements: Elements): number {
  return elements.kind === 'list' ? elements.items.length : elements.kind === 'map' ? elements.entries.size : 0
}

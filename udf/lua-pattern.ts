// string.find, match, gmatch and gsub. Every step of a match is counted, so that a pattern that backtracks without end meets the limits of
// the call like any other code.
//
// pattern = [ ^ ] { item } [ $ ]
// item    = single [ * | + | - | ? ] | ( pattern ) | ( ) | %1..%9 | %bxy | %f set
// single  = . | %a and other classes | %x for any other x | set | a character
// set     = [ [ ^ ] { single | x-y } ]

import type { LuaFunction, LuaState, TValue } from './fengari.js'
import { chargeBytes, spend } from './limits.js'
import {
  argument, badArgument, checkInteger, FLOAT, functionValue, INTEGER, isFalse, lapi, luaString, NIL, numberText, push, pushInteger, pushNil,
  pushTyped, raise, STRING, STRING_BYTES_MAX, TABLE, typeName, Value
} from './lua.js'
import { checkBytes } from './string-library.js'

const CAPTURES_MAX = 32
/** Nested calls of the matcher, as in Lua itself. */
const DEPTH_MAX = 200
const OPEN = -1
const POSITION = -2
const NO_MATCH = -1

const PERCENT = 0x25
const LEFT_PARENTHESIS = 0x28
const RIGHT_PARENTHESIS = 0x29
const STAR = 0x2a
const PLUS = 0x2b
const MINUS = 0x2d
const DOT = 0x2e
const ZERO = 0x30
const NINE = 0x39
const QUESTION = 0x3f
const LEFT_BRACKET = 0x5b
const RIGHT_BRACKET = 0x5d
const CARET = 0x5e
const LETTER_B = 0x62
const LETTER_F = 0x66
const DOLLAR = 0x24

const IS_SPECIAL = Uint8Array.from({ length: 256 }, (_, c) => '^$*+?.([%-'.includes(String.fromCharCode(c)) ? 1 : 0)

function isPlainText (pattern: Uint8Array): boolean {
  for (let i = 0; i < pattern.length; i++) if (IS_SPECIAL[pattern[i]!] === 1) return false
  return true
}

/** The classes of `%a` and so on in the C locale, by lower-case letter. */
const CLASSES: Record<string, (c: number) => boolean> = {
  a: c => (c >= 65 && c <= 90) || (c >= 97 && c <= 122),
  c: c => c < 32 || c === 127,
  d: c => c >= 48 && c <= 57,
  g: c => c > 32 && c < 127,
  l: c => c >= 97 && c <= 122,
  p: c => c > 32 && c < 127 && !CLASSES['w']!(c),
  s: c => c === 32 || (c >= 9 && c <= 13),
  u: c => c >= 65 && c <= 90,
  w: c => CLASSES['a']!(c) || CLASSES['d']!(c),
  x: c => CLASSES['d']!(c) || (c >= 65 && c <= 70) || (c >= 97 && c <= 102)
}
/** By letter: 256 marks, or undefined for a letter that is no class. */
const CLASS_TABLE: Array<Uint8Array | undefined> = []
for (const [letter, test] of Object.entries(CLASSES)) {
  CLASS_TABLE[letter.charCodeAt(0)] = Uint8Array.from({ length: 256 }, (_, c) => test(c) ? 1 : 0)
  CLASS_TABLE[letter.toUpperCase().charCodeAt(0)] = Uint8Array.from({ length: 256 }, (_, c) => test(c) ? 0 : 1)
}

function inClass (c: number, letter: number): boolean {
  const table = CLASS_TABLE[letter]
  return table === undefined ? letter === c : table[c] === 1
}

class Matcher {
  readonly #L: LuaState
  readonly subject: Uint8Array
  readonly #pattern: Uint8Array
  #depth = 0
  level = 0
  readonly #starts: number[] = []
  readonly #lengths: number[] = []

  constructor (L: LuaState, subject: Uint8Array, pattern: Uint8Array) {
    this.#L = L
    this.subject = subject
    this.#pattern = pattern
  }

  /** Where a match that starts at `s` ends, or NO_MATCH; `p` is where the pattern begins. */
  start (s: number, p: number): number {
    this.level = 0
    this.#depth = 0
    return this.#match(s, p)
  }

  #match (s: number, p: number): number {
    if (++this.#depth > DEPTH_MAX) raise(this.#L, 'pattern too complex')
    const end = this.#matchHere(s, p)
    this.#depth--
    return end
  }

  #matchHere (s: number, p: number): number {
    const pattern = this.#pattern
    for (;;) {
      spend(1)
      if (p === pattern.length) return s
      const head = pattern[p]!
      if (head === LEFT_PARENTHESIS) {
        return pattern[p + 1] === RIGHT_PARENTHESIS ? this.#openCapture(s, p + 2, POSITION) : this.#openCapture(s, p + 1, OPEN)
      }
      if (head === RIGHT_PARENTHESIS) return this.#closeCapture(s, p + 1)
      if (head === DOLLAR && p + 1 === pattern.length) return s === this.subject.length ? s : NO_MATCH
      if (head === PERCENT) {
        const kind = pattern[p + 1]
        if (kind === LETTER_B) {
          s = this.#balanced(s, p + 2)
          if (s === NO_MATCH) return NO_MATCH
          p += 4
          continue
        }
        if (kind === LETTER_F) {
          p += 2
          if (pattern[p] !== LEFT_BRACKET) raise(this.#L, "missing '[' after '%f' in pattern")
          const end = this.#singleEnd(p)
          const before = s === 0 ? 0 : this.subject[s - 1]!
          const here = s === this.subject.length ? 0 : this.subject[s]!
          if (this.#inSet(before, p, end - 1) || !this.#inSet(here, p, end - 1)) return NO_MATCH
          p = end
          continue
        }
        if (kind !== undefined && kind >= ZERO && kind <= NINE) {
          s = this.#again(s, kind)
          if (s === NO_MATCH) return NO_MATCH
          p += 2
          continue
        }
      }
      const end = this.#singleEnd(p)
      const suffix = pattern[end]
      if (suffix === STAR) return this.#longest(s, p, end)
      if (suffix === PLUS) return this.#isSingle(s, p, end) ? this.#longest(s + 1, p, end) : NO_MATCH
      if (suffix === MINUS) return this.#shortest(s, p, end)
      const isHere = this.#isSingle(s, p, end)
      if (suffix === QUESTION) {
        if (isHere) {
          const result = this.#match(s + 1, end + 1)
          if (result !== NO_MATCH) return result
        }
        p = end + 1
        continue
      }
      if (!isHere) return NO_MATCH
      s++
      p = end
    }
  }

  /** Where the single item at `p` ends. */
  #singleEnd (p: number): number {
    const pattern = this.#pattern
    const head = pattern[p++]!
    if (head === PERCENT) {
      if (p === pattern.length) raise(this.#L, "malformed pattern (ends with '%')")
      return p + 1
    }
    if (head !== LEFT_BRACKET) return p
    if (pattern[p] === CARET) p++
    // A bracket that comes first is one of the set.
    do {
      if (p >= pattern.length) raise(this.#L, "malformed pattern (missing ']')")
      if (pattern[p++] === PERCENT) p++
    } while (pattern[p] !== RIGHT_BRACKET)
    return p + 1
  }

  #isSingle (s: number, p: number, end: number): boolean {
    if (s >= this.subject.length) return false
    const c = this.subject[s]!
    const head = this.#pattern[p]!
    if (head === DOT) return true
    if (head === PERCENT) return inClass(c, this.#pattern[p + 1]!)
    if (head === LEFT_BRACKET) return this.#inSet(c, p, end - 1)
    return head === c
  }

  /** `p` is at the bracket that opens the set, `last` at the one that closes it. */
  #inSet (c: number, p: number, last: number): boolean {
    const pattern = this.#pattern
    spend((last - p) >> 3)
    const wanted = pattern[p + 1] !== CARET
    if (!wanted) p++
    while (++p < last) {
      const item = pattern[p]!
      if (item === PERCENT) {
        if (inClass(c, pattern[++p]!)) return wanted
      } else if (pattern[p + 1] === MINUS && p + 2 < last) {
        p += 2
        if (item <= c && c <= pattern[p]!) return wanted
      } else if (item === c) return wanted
    }
    return !wanted
  }

  #longest (s: number, p: number, end: number): number {
    let count = 0
    while (this.#isSingle(s + count, p, end)) {
      spend(1)
      count++
    }
    for (; count >= 0; count--) {
      const result = this.#match(s + count, end + 1)
      if (result !== NO_MATCH) return result
    }
    return NO_MATCH
  }

  #shortest (s: number, p: number, end: number): number {
    for (;;) {
      const result = this.#match(s, end + 1)
      if (result !== NO_MATCH) return result
      if (!this.#isSingle(s, p, end)) return NO_MATCH
      s++
    }
  }

  #balanced (s: number, p: number): number {
    const pattern = this.#pattern
    if (p + 1 >= pattern.length) raise(this.#L, "malformed pattern (missing arguments to '%b')")
    const { subject } = this
    if (s >= subject.length || subject[s] !== pattern[p]) return NO_MATCH
    const open = pattern[p]!
    const close = pattern[p + 1]!
    let nested = 1
    for (let at = s + 1; at < subject.length; at++) {
      spend(1)
      const c = subject[at]!
      if (c === close) {
        if (--nested === 0) return at + 1
      } else if (c === open) nested++
    }
    return NO_MATCH
  }

  #openCapture (s: number, p: number, length: number): number {
    if (this.level >= CAPTURES_MAX) raise(this.#L, 'too many captures')
    this.#starts[this.level] = s
    this.#lengths[this.level] = length
    this.level++
    const result = this.#match(s, p)
    if (result === NO_MATCH) this.level--
    return result
  }

  #closeCapture (s: number, p: number): number {
    let open = this.level - 1
    while (open >= 0 && this.#lengths[open] !== OPEN) open--
    if (open < 0) raise(this.#L, 'invalid pattern capture')
    this.#lengths[open] = s - this.#starts[open]!
    const result = this.#match(s, p)
    if (result === NO_MATCH) this.#lengths[open] = OPEN
    return result
  }

  /** What a capture matched, once more. */
  #again (s: number, digit: number): number {
    const index = digit - ZERO - 1
    if (index < 0 || index >= this.level || this.#lengths[index] === OPEN) raise(this.#L, `invalid capture index %${index + 1}`)
    const { subject } = this
    const from = this.#starts[index]!
    const length = this.#lengths[index]!
    // A position has no text to be met again.
    if (length === POSITION || subject.length - s < length) return NO_MATCH
    spend(length >> 3)
    for (let i = 0; i < length; i++) if (subject[from + i] !== subject[s + i]) return NO_MATCH
    return s + length
  }

  /** A capture as a value; the whole match where the pattern has no captures. */
  capture (index: number, from: number, to: number): TValue {
    if (index >= this.level) {
      if (index !== 0) raise(this.#L, `invalid capture index %${index + 1}`)
      return new Value(STRING, luaString(this.subject.slice(from, to)))
    }
    const length = this.#lengths[index]!
    if (length === OPEN) raise(this.#L, 'unfinished capture')
    const start = this.#starts[index]!
    return length === POSITION ? new Value(INTEGER, start + 1) : new Value(STRING, luaString(this.subject.slice(start, start + length)))
  }

  /** Pushes all captures, or the whole match when there are none and it is wanted. */
  pushCaptures (from: number, to: number, wholeToo: boolean): number {
    const count = this.level === 0 && wholeToo ? 1 : this.level
    lapi['lua_checkstack'](this.#L, count)
    for (let i = 0; i < count; i++) push(this.#L, this.capture(i, from, to))
    return count
  }
}

/** Needles up to this length are searched by the platform, whose worst case is their length for each byte. */
const SHORT_NEEDLE_BYTES = 64

/** The first place of the needle at or after `from`, or -1; takes time in proportion to both together (Knuth, Morris, Pratt). */
function searchPlain (subject: Uint8Array, needle: Uint8Array, from: number): number {
  spend((subject.length - from) >> 6)
  if (needle.length === 0) return from
  if (needle.length === 1) return subject.indexOf(needle[0]!, from)
  if (needle.length <= SHORT_NEEDLE_BYTES) return Buffer.prototype.indexOf.call(subject, needle, from)
  const fallback = new Int32Array(needle.length)
  for (let i = 1, k = 0; i < needle.length; i++) {
    while (k > 0 && needle[i] !== needle[k]) k = fallback[k - 1]!
    if (needle[i] === needle[k]) k++
    fallback[i] = k
  }
  for (let i = from, k = 0; i < subject.length; i++) {
    if ((i & 0xfff) === 0) spend(64)
    while (k > 0 && subject[i] !== needle[k]) k = fallback[k - 1]!
    if (subject[i] === needle[k]) k++
    if (k === needle.length) return i + 1 - k
  }
  return -1
}

/** Where a search begins, from 0; a start behind the end is beyond `length`. */
function startOf (L: LuaState, index: number, length: number): number {
  if (argument(L, index).type === NIL) return 0
  const given = Number(checkInteger(L, index))
  return given > 0 ? given - 1 : given === 0 ? 0 : Math.max(0, length + given)
}

function search (L: LuaState, isFind: boolean): number {
  const subject = checkBytes(L, 1)
  const pattern = checkBytes(L, 2)
  const from = startOf(L, 3, subject.length)
  if (from > subject.length) return pushNil(L)
  if (isFind && (!isFalse(argument(L, 4)) || isPlainText(pattern))) {
    const at = searchPlain(subject, pattern, from)
    if (at < 0) return pushNil(L)
    pushInteger(L, at + 1)
    pushInteger(L, at + pattern.length)
    return 2
  }
  const matcher = new Matcher(L, subject, pattern)
  const isAnchored = pattern[0] === CARET
  for (let s = from; s <= subject.length; s++) {
    const end = matcher.start(s, isAnchored ? 1 : 0)
    if (end !== NO_MATCH) {
      if (!isFind) return matcher.pushCaptures(s, end, true)
      pushInteger(L, s + 1)
      pushInteger(L, end)
      return 2 + matcher.pushCaptures(s, end, false)
    }
    if (isAnchored) break
  }
  return pushNil(L)
}

const allMatches: LuaFunction = L => {
  const subject = checkBytes(L, 1)
  const pattern = checkBytes(L, 2)
  let at = startOf(L, 3, subject.length)
  let last = NO_MATCH
  push(L, functionValue(L => {
    const matcher = new Matcher(L, subject, pattern)
    for (; at <= subject.length; at++) {
      const end = matcher.start(at, 0)
      // An empty match right behind the last one is the same place once more.
      if (end !== NO_MATCH && end !== last) {
        const from = at
        at = last = end
        return matcher.pushCaptures(from, end, true)
      }
    }
    return pushNil(L)
  }))
  return 1
}

/** Up to here bytes are copied one by one: cheaper than a view. */
const SHORT_BYTES = 32

/** Text that grows, up to what a string may have. */
class Output {
  readonly #L: LuaState
  #bytes: Uint8Array
  #length = 0

  constructor (L: LuaState, expected: number) {
    this.#L = L
    this.#bytes = new Uint8Array(Math.max(SHORT_BYTES, expected))
  }

  add (source: Uint8Array, from: number, to: number): void {
    const at = this.#length
    const end = at + to - from
    if (end > this.#bytes.length) {
      if (end > STRING_BYTES_MAX) raise(this.#L, `string longer than ${STRING_BYTES_MAX} bytes`)
      const larger = new Uint8Array(Math.max(end, this.#bytes.length * 2))
      chargeBytes(larger.length)
      larger.set(this.#bytes.subarray(0, at))
      this.#bytes = larger
    }
    const bytes = this.#bytes
    if (to - from <= SHORT_BYTES) for (let i = from, j = at; i < to; i++, j++) bytes[j] = source[i]!
    else bytes.set(source.subarray(from, to), at)
    this.#length = end
  }

  get taken (): Uint8Array {
    return this.#bytes.slice(0, this.#length)
  }
}

const substitute: LuaFunction = L => {
  const subject = checkBytes(L, 1)
  const pattern = checkBytes(L, 2)
  const replacement = new Value(argument(L, 3).type, argument(L, 3).value)
  const kind = typeName(replacement)
  if (kind !== 'string' && kind !== 'number' && kind !== 'table' && kind !== 'function') {
    badArgument(L, 3, `string/function/table expected, got ${L.top - L.ci.funcOff - 1 < 3 ? 'no value' : kind}`)
  }
  const template = replacement.type === STRING || (replacement.type & 15) === FLOAT ? checkBytes(L, 3) : null
  const countMax = argument(L, 4).type === NIL ? Infinity : Number(checkInteger(L, 4))
  const isAnchored = pattern[0] === CARET
  const matcher = new Matcher(L, subject, pattern)
  const output = new Output(L, subject.length)
  let copied = 0
  let last = NO_MATCH
  let count = 0
  let s = 0
  while (count < countMax) {
    const end = matcher.start(s, isAnchored ? 1 : 0)
    if (end !== NO_MATCH && end !== last) {
      count++
      output.add(subject, copied, s)
      if (template !== null) expand(L, matcher, template, s, end, output)
      else {
        const text = replaced(L, matcher, replacement, s, end)
        output.add(text, 0, text.length)
      }
      s = copied = last = end
    } else if (s < subject.length) s++
    else break
    if (isAnchored) break
  }
  if (count > 0) output.add(subject, copied, subject.length)
  pushTyped(L, STRING, luaString(count === 0 ? subject : output.taken))
  pushInteger(L, count)
  return 2
}

/** The replacement text with its captures put in. */
function expand (L: LuaState, matcher: Matcher, template: Uint8Array, from: number, to: number, output: Output): void {
  let at = 0
  for (let percent = template.indexOf(PERCENT); percent >= 0; percent = template.indexOf(PERCENT, at)) {
    output.add(template, at, percent)
    const next = template[percent + 1]
    at = percent + 2
    if (next === PERCENT) output.add(template, percent, percent + 1)
    else if (next === ZERO) output.add(matcher.subject, from, to)
    else if (next !== undefined && next > ZERO && next <= NINE) {
      const text = bytesOf(matcher.capture(next - ZERO - 1, from, to))
      output.add(text, 0, text.length)
    } else raise(L, "invalid use of '%' in replacement string")
  }
  output.add(template, at, template.length)
}

/** What a table or function says for a match: a string or number, or the match itself for nil and false. */
function replaced (L: LuaState, matcher: Matcher, replacement: TValue, from: number, to: number): Uint8Array {
  push(L, replacement)
  if ((replacement.type & 15) === TABLE) {
    push(L, matcher.capture(0, from, to))
    lapi['lua_gettable'](L, -2)
  } else {
    lapi['lua_call'](L, matcher.pushCaptures(from, to, true), 1)
  }
  const value: TValue = L.stack[L.top - 1]!
  const found = new Value(value.type, value.value)
  lapi['lua_pop'](L, (replacement.type & 15) === TABLE ? 2 : 1)
  if (isFalse(found)) return matcher.subject.subarray(from, to)
  if (found.type !== STRING && (found.type & 15) !== FLOAT) raise(L, `invalid replacement value (a ${typeName(found)})`)
  return bytesOf(found)
}

/** Of a string or a number. */
function bytesOf (value: TValue): Uint8Array {
  if (value.type === STRING) return value.value.realstring
  return Buffer.from(numberText(value))
}

export const patternFunctions: Record<string, LuaFunction> = {
  find: L => search(L, true),
  match: L => search(L, false),
  gmatch: allMatches,
  gsub: substitute
}

// Strings of the virtual machine. A Lua string is a sequence of bytes; it is held as a JavaScript string with one character per byte
// (latin1), as bytes, or both: each form is made from the other when it is first asked for. What scripts compute (numbers as text,
// concatenations, table keys) stays text, which V8 concatenates without copying and hashes once; what comes from records and goes to
// the published library functions is bytes.
//
// The memory of a call is charged by length whichever form a string has (limits.ts), a concatenation in full although V8 shares its
// parts: what keeps the charge below the limit bounds the text when it is flattened as well.

import { chargeBytes } from './limits.js'

/** A longer string is made as bytes, which lie outside the heap that the worker's limit is for. */
export const TEXT_CHARS_MAX = 1024
/** Up to here bytes are copied one by one: cheaper than a call into the runtime. */
const SHORT_CHARS = 24

const EMPTY = new Uint8Array(0)

function bytesOf (text: string): Uint8Array {
  const length = text.length
  if (length === 0) return EMPTY
  const bytes = new Uint8Array(length)
  if (length <= SHORT_CHARS) for (let i = 0; i < length; i++) bytes[i] = text.charCodeAt(i)
  else Buffer.from(bytes.buffer).write(text, 'latin1')
  return bytes
}

/** The text of bytes, one character each. */
export function latin1 (bytes: Uint8Array): string {
  return Buffer.prototype.latin1Slice.call(bytes, 0, bytes.length)
}

/** In place of fengari's TString; at least one of both forms is there. */
export class LuaString {
  text: string | null
  bytes: Uint8Array | null
  readonly length: number

  constructor (text: string | null, bytes: Uint8Array | null, length: number) {
    this.text = text
    this.bytes = bytes
    this.length = length
  }

  get realstring (): Uint8Array {
    return this.bytes ?? (this.bytes = bytesOf(this.text!))
  }

  getstr (): Uint8Array {
    return this.realstring
  }

  tsslen (): number {
    return this.length
  }
}

/** The key of a string in a table; compares as its bytes do. */
export function hashString (string: LuaString): string {
  return string.text ?? (string.text = latin1(string.bytes!))
}

export function sameString (a: LuaString, b: LuaString): boolean {
  if (a === b) return true
  if (a.length !== b.length) return false
  if (a.text === null && b.text === null && a.length > SHORT_CHARS) return Buffer.compare(a.bytes!, b.bytes!) === 0
  return hashString(a) === hashString(b)
}

/** Takes the bytes over: the caller must not change them afterwards. */
export function luaString (bytes: Uint8Array): LuaString {
  chargeBytes(bytes.length)
  return new LuaString(null, bytes, bytes.length)
}

/** A string of characters up to 255, one per byte. */
export function textString (text: string): LuaString {
  chargeBytes(text.length)
  return text.length <= TEXT_CHARS_MAX ? new LuaString(text, null, text.length) : new LuaString(null, bytesOf(text), text.length)
}

const CHARACTERS = Array.from({ length: 256 }, (_, byte) => new LuaString(String.fromCharCode(byte), Uint8Array.of(byte), 1))

/** Strings of one byte exist once. */
export function characterString (byte: number): LuaString {
  chargeBytes(1)
  return CHARACTERS[byte]!
}

// Text of short names: of modules, functions, bins, and short arguments. The same few come with every call, and making a string of bytes
// costs as much as comparing many. One character a byte (latin1).

/** Longer ones are made anew each time. */
const CHARS_MAX = 32
/** Names that are remembered; one takes the place of another with the same hash. A power of two. */
const SLOTS = 512

const remembered: string[] = new Array<string>(SLOTS).fill('')

/** The text of so many bytes from `at` on. */
export function shortText (bytes: Uint8Array, at: number, length: number): string {
  if (length > CHARS_MAX) return Buffer.prototype.latin1Slice.call(bytes, at, at + length)
  // FNV-1a
  let hash = 0x811c9dc5
  for (let i = at; i < at + length; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193)
  const slot = (hash ^ (hash >>> 16)) & (SLOTS - 1)
  const found = remembered[slot]!
  if (found.length === length) {
    let i = 0
    while (i < length && found.charCodeAt(i) === bytes[at + i]) i++
    if (i === length) return found
  }
  return remembered[slot] = Buffer.prototype.latin1Slice.call(bytes, at, at + length)
}

/** As `shortText` for bytes that are UTF-8. */
export function shortUtf8 (bytes: Uint8Array, at: number, length: number): string {
  for (let i = at; i < at + length; i++) if (bytes[i]! >= 0x80) return Buffer.prototype.utf8Slice.call(bytes, at, at + length)
  return shortText(bytes, at, length)
}

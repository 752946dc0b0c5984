// Text of numbers as C's printf writes them, which is what Lua scripts expect of tostring and string.format.

import type { LuaInteger } from './lua-integer.js'

function special (value: number): string | null {
  if (Number.isFinite(value)) return null
  return Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf'
}

// JavaScript rounds a tie away from zero, C to the even digit. A tie shows as a 5 and zeros in a longer text, which both
// JavaScript functions print exactly.
const TIE = /^50*$/
const DIGITS_MAX = 100
const TIE_DIGITS = 25

/** Rounds a tie to even: `rounded` is JavaScript's text, `longer` the same value with more digits; both without exponent. */
function tiesToEven (rounded: string, longer: string, precision: number): string {
  const kept = longer.indexOf('.') + 1 + precision
  if (!TIE.test(longer.slice(kept))) return rounded
  const cut = precision === 0 ? longer.slice(0, kept - 1) : longer.slice(0, kept)
  return Number(cut.at(-1)) % 2 === 0 ? cut : rounded
}

function longerPrecision (precision: number): number {
  return Math.min(DIGITS_MAX, precision + TIE_DIGITS)
}

function fixed (value: number, precision: number): string {
  if (Math.abs(value) < 1e21) {
    // What lies halfway between two texts of so many digits is a whole number of halves of their last binary place.
    const rounded = value.toFixed(precision)
    const text = Number.isInteger(value * 2 ** (precision + 1)) ? tiesToEven(rounded, value.toFixed(longerPrecision(precision)), precision) : rounded
    return value === 0 && Object.is(value, -0) ? '-' + text : text
  }
  // toFixed falls back to an exponent here; such a float is an integer, so its digits are those of a bigint.
  return BigInt(value).toString() + (precision > 0 ? '.' + '0'.repeat(precision) : '')
}

/** `toExponential` with ties to even. */
function scientific (value: number, precision: number): string {
  const text = value.toExponential(precision)
  const longer = value.toExponential(longerPrecision(precision))
  const at = text.indexOf('e')
  const even = tiesToEven(text.slice(0, at), longer.slice(0, longer.indexOf('e')), precision)
  // When the digits were cut, not rounded up, the exponent is the one of the longer text.
  return even === text.slice(0, at) ? text : even + longer.slice(longer.indexOf('e'))
}

function exponential (value: number, precision: number): string {
  const text = scientific(value, precision)
  const at = text.indexOf('e')
  const exponent = text.slice(at + 2)
  const sign = Object.is(value, -0) ? '-' : ''
  return `${sign}${text.slice(0, at)}e${text[at + 1]}${exponent.length < 2 ? '0' + exponent : exponent}`
}

function general (value: number, precision: number, alternate: boolean): string {
  const digits = precision === 0 ? 1 : precision
  const rounded = scientific(value, digits - 1)
  const exponent = Number(rounded.slice(rounded.indexOf('e') + 1))
  const useExponent = exponent < -4 || exponent >= digits
  const text = useExponent ? exponential(value, digits - 1) : fixed(value, digits - 1 - exponent)
  if (alternate || !text.includes('.')) return text
  if (!useExponent) return text.replace(/\.?0+$/, '')
  return text.replace(/\.?0*e/, 'e')
}

function hexadecimal (value: number, precision: number | null): string {
  if (value === 0) return `${Object.is(value, -0) ? '-' : ''}0x0p+0`
  const view = new DataView(new ArrayBuffer(8))
  view.setFloat64(0, Math.abs(value))
  const bits = view.getBigUint64(0)
  let exponent = Number(bits >> 52n)
  let mantissa = bits & 0xfffffffffffffn
  let lead = 1n
  if (exponent === 0) {
    lead = 0n
    exponent = 1
  }
  if (precision !== null && precision < 13) {
    const drop = BigInt(4 * (13 - precision))
    const whole = (lead << 52n) | mantissa
    const rest = whole & ((1n << drop) - 1n)
    const half = 1n << (drop - 1n)
    let rounded = whole >> drop
    if (rest > half || (rest === half && (rounded & 1n) === 1n)) rounded += 1n
    lead = rounded >> BigInt(4 * precision)
    mantissa = (rounded & ((1n << BigInt(4 * precision)) - 1n)) << drop
  }
  let digits = mantissa.toString(16).padStart(13, '0')
  digits = precision === null ? digits.replace(/0+$/, '') : digits.padEnd(precision, '0').slice(0, precision)
  const power = exponent - 1023
  return `${value < 0 ? '-' : ''}0x${lead}${digits === '' ? '' : '.' + digits}p${power < 0 ? '-' : '+'}${Math.abs(power)}`
}

/** `tostring` of a float: 14 significant digits, and always recognisable as a float. */
export function floatText (value: number): string {
  const odd = special(value)
  if (odd !== null) return odd === 'nan' ? '-nan' : odd
  const text = general(value, 14, false)
  return /^-?[0-9]+$/.test(text) ? text + '.0' : text
}

export interface FormatSpec {
  left: boolean
  plus: boolean
  space: boolean
  alternate: boolean
  zero: boolean
  width: number
  precision: number | null
  conversion: string
}

function pad (text: string, spec: FormatSpec, zeroAllowed: boolean): string {
  if (text.length >= spec.width) return text
  if (spec.left) return text.padEnd(spec.width)
  if (spec.zero && zeroAllowed) {
    const head = /^[+\- ]?(0[xX])?/.exec(text)![0]
    return head + text.slice(head.length).padStart(spec.width - head.length, '0')
  }
  return text.padStart(spec.width)
}

function signed (text: string, spec: FormatSpec): string {
  if (text.startsWith('-')) return text
  return spec.plus ? '+' + text : spec.space ? ' ' + text : text
}

export function formatInteger (value: LuaInteger, spec: FormatSpec): string {
  const digitsOf = (text: string): string => {
    if (spec.precision === 0 && text === '0') return ''
    return text.padStart(spec.precision ?? 0, '0')
  }
  if (spec.conversion === 'd' || spec.conversion === 'i') {
    const text = String(value)
    const negative = text.startsWith('-')
    return pad(signed((negative ? '-' : '') + digitsOf(negative ? text.slice(1) : text), spec), spec, spec.precision === null)
  }
  const unsigned = BigInt.asUintN(64, BigInt(value))
  if (spec.conversion === 'u') return pad(digitsOf(unsigned.toString()), spec, spec.precision === null)
  const octal = spec.conversion === 'o'
  let text = digitsOf(unsigned.toString(octal ? 8 : 16))
  if (spec.alternate && unsigned !== 0n) text = (octal ? '0' : '0x') + text
  return pad(spec.conversion === 'X' ? text.toUpperCase() : text, spec, spec.precision === null)
}

export function formatFloat (value: number, spec: FormatSpec): string {
  const kind = spec.conversion.toLowerCase()
  const precision = spec.precision ?? 6
  const odd = special(value)
  const text = odd ?? (kind === 'f'
    ? fixed(value, precision)
    : kind === 'e'
      ? exponential(value, precision)
      : kind === 'a' ? hexadecimal(value, spec.precision) : general(value, precision, spec.alternate))
  const padded = pad(signed(text, spec), spec, odd === null)
  return spec.conversion === kind ? padded : padded.toUpperCase()
}

const HEXADECIMAL_FLOAT = /^[ \t\n\v\f\r]*([+-]?)0[xX]([0-9a-fA-F]*)(?:\.([0-9a-fA-F]*))?(?:[pP]([+-]?[0-9]+))?[ \t\n\v\f\r]*$/
const HEXADECIMAL_DIGITS_MAX = 30
const DECIMAL_FLOAT = /^[ \t\n\v\f\r]*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[ \t\n\v\f\r]*$/

/** Reads a Lua float numeral, or null. 'inf' and 'nan' are no numerals. */
export function parseFloatText (text: string): number | null {
  if (DECIMAL_FLOAT.test(text)) return Number(text)
  const match = HEXADECIMAL_FLOAT.exec(text)
  if (match === null) return null
  const [, sign, whole = '', fraction = '', power = '0'] = match
  if (whole === '' && fraction === '') return null
  // More digits than a double holds only move the exponent.
  const digits = (whole + fraction).replace(/^0+/, '')
  const kept = digits.slice(0, HEXADECIMAL_DIGITS_MAX)
  const exponent = Number(power) + 4 * (digits.length - kept.length - fraction.length)
  // In two steps: 2 ** exponent alone may be beyond the range where the product is not.
  const half = Math.trunc(exponent / 2)
  const magnitude = Number(BigInt('0x0' + kept)) * 2 ** half * 2 ** (exponent - half)
  return sign === '-' ? -magnitude : magnitude
}

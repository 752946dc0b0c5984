// Lua integers are 64-bit two's complement. fengari keeps them in 32 bits; Perigee keeps them exactly, in one of two forms:
//
//   a JavaScript number   when |n| <= 2^53 - 1 (every such integer has this form and no other; never -0)
//   a bigint              beyond, down to -2^63 and up to 2^63 - 1
//
// One integer has one form, so `===` compares integers and a Map finds them. Results wrap at 64 bits as in Lua 5.3 and 5.4.

export type LuaInteger = number | bigint

const SAFE_MAX = Number.MAX_SAFE_INTEGER
const SAFE_MIN = Number.MIN_SAFE_INTEGER
const SAFE_MAX_BIG = BigInt(SAFE_MAX)
const SAFE_MIN_BIG = BigInt(SAFE_MIN)
const TWO_32 = 4294967296

export const INTEGER_MAX: bigint = 2n ** 63n - 1n
export const INTEGER_MIN: bigint = -(2n ** 63n)
const TWO_63 = 2 ** 63

/** The one form of an integer that is known to fit 64 bits. */
export function canonical (value: bigint): LuaInteger {
  return value <= SAFE_MAX_BIG && value >= SAFE_MIN_BIG ? Number(value) : value
}

/** The low 64 bits of an integer of any size, in its one form. */
export function wrap (value: bigint): LuaInteger {
  return canonical(BigInt.asIntN(64, value))
}

function isSafe (value: number): boolean {
  return value <= SAFE_MAX && value >= SAFE_MIN
}

// A sum, difference or product of two safe integers that rounds into the safe range is exact: were the true result beyond
// 2^53 - 1, its rounding would be at least 2^53. That is what lets the number form skip bigint.

export function add (a: LuaInteger, b: LuaInteger): LuaInteger {
  if (typeof a === 'number' && typeof b === 'number') {
    const sum = a + b
    if (isSafe(sum)) return sum
  }
  return wrap(BigInt(a) + BigInt(b))
}

/** Like `add`, but without wrapping: for loop counters, which stop at the end of the range instead. */
export function addUnbounded (a: LuaInteger, b: LuaInteger): LuaInteger {
  if (typeof a === 'number' && typeof b === 'number') {
    const sum = a + b
    if (isSafe(sum)) return sum
  }
  return canonical(BigInt(a) + BigInt(b))
}

export function subtract (a: LuaInteger, b: LuaInteger): LuaInteger {
  if (typeof a === 'number' && typeof b === 'number') {
    const difference = a - b
    if (isSafe(difference)) return difference
  }
  return wrap(BigInt(a) - BigInt(b))
}

export function multiply (a: LuaInteger, b: LuaInteger): LuaInteger {
  if (typeof a === 'number' && typeof b === 'number') {
    const product = a * b
    if (isSafe(product)) return product + 0 // 0 * -1 is -0
  }
  return wrap(BigInt(a) * BigInt(b))
}

export function negate (a: LuaInteger): LuaInteger {
  return typeof a === 'number' ? 0 - a : wrap(-a)
}

/** Floor division; the caller has refused a zero divisor. */
export function floorDivide (a: LuaInteger, b: LuaInteger): LuaInteger {
  // Exact for safe integers: a quotient that is no integer is at least 1/b away from one, more than half a unit in the last place.
  if (typeof a === 'number' && typeof b === 'number') return Math.floor(a / b) + 0
  const x = BigInt(a)
  const y = BigInt(b)
  const quotient = x / y
  return wrap(x % y !== 0n && (x < 0n) !== (y < 0n) ? quotient - 1n : quotient)
}

/** Floor modulus, with the sign of the divisor; the caller has refused a zero divisor. */
export function modulo (a: LuaInteger, b: LuaInteger): LuaInteger {
  if (typeof a === 'number' && typeof b === 'number') {
    const rest = a % b
    return rest !== 0 && (rest < 0) !== (b < 0) ? rest + b : rest + 0
  }
  const y = BigInt(b)
  const rest = BigInt(a) % y
  return canonical(rest !== 0n && (rest < 0n) !== (y < 0n) ? rest + y : rest)
}

function isInt32 (value: LuaInteger): value is number {
  return typeof value === 'number' && (value | 0) === value
}

export function bitAnd (a: LuaInteger, b: LuaInteger): LuaInteger {
  return isInt32(a) && isInt32(b) ? a & b : canonical(BigInt(a) & BigInt(b))
}

export function bitOr (a: LuaInteger, b: LuaInteger): LuaInteger {
  return isInt32(a) && isInt32(b) ? a | b : canonical(BigInt(a) | BigInt(b))
}

export function bitXor (a: LuaInteger, b: LuaInteger): LuaInteger {
  return isInt32(a) && isInt32(b) ? a ^ b : canonical(BigInt(a) ^ BigInt(b))
}

export function bitNot (a: LuaInteger): LuaInteger {
  return typeof a === 'number' ? -1 - a : canonical(~a)
}

/** Logical shift; a negative distance shifts right. */
export function shiftLeft (a: LuaInteger, distance: LuaInteger): LuaInteger {
  if (distance >= 64 || distance <= -64) return 0
  const bits = BigInt(distance)
  return bits >= 0n ? wrap(BigInt(a) << bits) : wrap(BigInt.asUintN(64, BigInt(a)) >> -bits)
}

export function shiftRight (a: LuaInteger, distance: LuaInteger): LuaInteger {
  return shiftLeft(a, negate(distance))
}

/** The integer of the same value, or false when there is none in 64 bits. */
export function fromFloat (value: number): LuaInteger | false {
  if (!Number.isInteger(value) || value < -TWO_63 || value >= TWO_63) return false
  return isSafe(value) ? value + 0 : BigInt(value)
}

/** Reads 8 bytes, most significant first. */
export function readInt64 (view: DataView, offset: number): LuaInteger {
  const high = view.getInt32(offset)
  if (high >= -2097152 && high < 2097152) {
    const value = high * TWO_32 + view.getUint32(offset + 4)
    if (value >= SAFE_MIN) return value
  }
  return view.getBigInt64(offset)
}

/** Writes 8 bytes, most significant first. */
export function writeInt64 (view: DataView, offset: number, value: LuaInteger): void {
  if (typeof value === 'bigint') {
    view.setBigInt64(offset, value)
    return
  }
  view.setInt32(offset, Math.floor(value / TWO_32))
  view.setUint32(offset + 4, value >>> 0)
}

const INTEGER_TEXT = /^[ \t\n\v\f\r]*([+-]?)(?:0[xX]([0-9a-fA-F]+)|([0-9]+))[ \t\n\v\f\r]*$/

/** Reads a Lua integer numeral; a decimal one beyond 64 bits is not an integer (it reads as a float), a hexadecimal one wraps. */
export function parseInteger (text: string): LuaInteger | null {
  const match = INTEGER_TEXT.exec(text)
  if (match === null) return null
  const [, sign, hexadecimal, decimal] = match
  if (hexadecimal !== undefined) {
    const value = BigInt('0x' + hexadecimal)
    return wrap(sign === '-' ? -value : value)
  }
  if (decimal!.length <= 15) {
    const value = Number(decimal)
    return sign === '-' ? 0 - value : value
  }
  const digits = decimal!.replace(/^0+/, '')
  if (digits.length > 19) return null
  const magnitude = BigInt(digits)
  const value = sign === '-' ? -magnitude : magnitude
  return value > INTEGER_MAX || value < INTEGER_MIN ? null : canonical(value)
}

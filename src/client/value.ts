// Values as JavaScript holds them. Whatever the wire tells apart stays apart here, so that a value read and written back is the same value:
//
//   integer  number while safe, bigint beyond      double  number; Double where a number would be taken for an integer
//   string   string      bytes  Buffer             boolean  boolean      nil  null
//   list     array       map    object if every key is a string, else Map
//   GeoJSON, HyperLogLog, RawString, Extension, OpaqueParticle: the classes below

export type Value =
  | null | boolean | number | bigint | string | Uint8Array
  | Double | GeoJSON | HyperLogLog | RawString | Extension | OpaqueParticle
  | readonly Value[] | ReadonlyMap<Value, Value> | { readonly [key: string]: Value }

export type Bins = Record<string, Value>

/** A double whose value is integral: the number `2` is written as an integer, `new Double(2)` as the double 2.0. */
export class Double {
  readonly value: number

  constructor (value: number) {
    this.value = value
  }

  valueOf (): number {
    return this.value
  }

  toJSON (): number {
    return this.value
  }
}

/** GeoJSON as text; never parsed here. */
export class GeoJSON {
  readonly text: string

  constructor (value: string | object) {
    this.text = typeof value === 'string' ? value : JSON.stringify(value)
  }

  toJSON (): unknown {
    return JSON.parse(this.text)
  }
}

/** A HyperLogLog as the server keeps it; opaque to clients. */
export class HyperLogLog {
  readonly bytes: Buffer

  constructor (bytes: Buffer) {
    this.bytes = bytes
  }
}

/** A msgpack string without a particle type byte: bin, set and variable names in expressions. */
export class RawString {
  readonly bytes: Buffer

  constructor (value: string | Buffer) {
    this.bytes = typeof value === 'string' ? Buffer.from(value) : value
  }
}

/** A msgpack extension that is a value of its own. */
export class Extension {
  readonly type: number
  readonly data: Buffer

  constructor (type: number, data: Buffer) {
    this.type = type
    this.data = data
  }
}

/** Compares equal to every value. */
export const WILDCARD = new Extension(0xff, Buffer.of(0))
/** Sorts after every value. */
export const INFINITY = new Extension(0xff, Buffer.of(1))

/** A bin of a type that has no JavaScript form. Written back, it is what it was. */
export class OpaqueParticle {
  readonly type: number
  readonly bytes: Buffer

  constructor (type: number, bytes: Buffer) {
    this.type = type
    this.bytes = bytes
  }
}

export const INT64_MIN = -(2n ** 63n)
export const INT64_MAX = 2n ** 63n - 1n
export const UINT64_MAX = 2n ** 64n - 1n

/** Whether a number is written as an integer. -0 is not: an integer has no sign to keep. */
export function isInteger (value: number): boolean {
  return Number.isSafeInteger(value) && !Object.is(value, -0)
}

/** A decoded double: bare when it would be written as a double again. */
export function fromDouble (value: number): number | Double {
  return isInteger(value) ? new Double(value) : value
}

/** A decoded integer: a number while that is exact. */
export function fromBigInt (value: bigint): number | bigint {
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value
}

/** Sets a property even if it is called `__proto__`. */
export function setOwn (target: Record<string, Value>, key: string, value: Value): void {
  if (key === '__proto__') Object.defineProperty(target, key, { value, enumerable: true, configurable: true, writable: true })
  else target[key] = value
}

export function isPlainObject (value: object): value is Record<string, Value> {
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

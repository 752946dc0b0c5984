// The Lua table `test` that a test file finds, and an `assert` that says where it stands.

import type { LuaState, Table, TValue } from '../fengari.js'
import {
  argument, argumentCount, badArgument, checkCount, functionValue, getInteger, INTEGER, isFalse, lapi, newTable, NIL, push, pushInteger,
  raise, rawSet, STRING, stringValue, TABLE, tableEntries, tableValue, textOf, typeName, Value
} from '../lua.js'
import { isObject, pushObject } from '../host-object.js'
import { expect, kindOf } from '../collections-api.js'
import { ByteWriter } from '../byte-writer.js'
import { canonical } from '../lua-integer.js'
import { encodeParticle } from '../particle.js'
import type { BinParticle } from '../lane.js'
import { SCRIPT_BINS_MAX } from '../record-api.js'
import { LuaList, storageProblem } from '../values.js'
import { Limit, ParticleType } from '../../src/engine/constants.js'
import { digestOfKey } from '../../src/client/digest.js'
import { differences } from './compare.js'
import type { Applied, LocalNode } from './local-node.js'
import { SampleRecord } from './sample-record.js'
import type { TestClock } from './test-clock.js'

const TTL_SECONDS_MAX = 0x7fffffff
const GENERATION_MAX = 65535
const MILLISECONDS_MAX = 8.64e15

const FIELDS = ['key', 'set', 'ttl', 'generation', 'bins']

function particleOf (value: TValue): { type: number, value: Uint8Array } {
  const writer = new ByteWriter(64)
  const type = encodeParticle(writer, value)
  return { type, value: writer.copyFrom(0) }
}

function binsOf (L: LuaState, value: TValue | undefined): BinParticle[] {
  if (value === undefined) return []
  if (value.type !== TABLE) badArgument(L, 1, `bins: table expected, got ${kindOf(value)}`)
  const bins: BinParticle[] = []
  for (const [key, held] of tableEntries(value.value as Table)) {
    if (held.type === NIL) continue
    if (key.type !== STRING) badArgument(L, 1, `bins: a name is a string, not a ${typeName(key)}`)
    const name = textOf(key)
    if (name === '' || Buffer.byteLength(name) > Limit.BIN_NAME_BYTES_MAX) badArgument(L, 1, `bins: a name has 1 to ${Limit.BIN_NAME_BYTES_MAX} bytes: '${name}'`)
    const problem = storageProblem(held)
    if (problem !== null) badArgument(L, 1, `bins: '${name}': ${problem}`)
    bins.push({ name, ...particleOf(held) })
  }
  if (bins.length > SCRIPT_BINS_MAX) badArgument(L, 1, `bins: more than ${SCRIPT_BINS_MAX}`)
  return bins
}

function keyParticle (L: LuaState, value: TValue | undefined, unnamed: number): Uint8Array {
  const key = value ?? stringValue(`sample-${unnamed}`)
  const { type, value: bytes } = particleOf(key)
  if (type !== ParticleType.INTEGER && type !== ParticleType.FLOAT && type !== ParticleType.STRING && type !== ParticleType.BLOB) {
    badArgument(L, 1, `key: an integer, number, string or bytes expected, got ${kindOf(key)}`)
  }
  return Uint8Array.of(type, ...bytes)
}

function within (L: LuaState, field: string, value: TValue | undefined, min: number, max: number): number | undefined {
  if (value === undefined) return undefined
  if (value.type !== INTEGER || typeof value.value !== 'number' || value.value < min || value.value > max) badArgument(L, 1, `${field}: an integer from ${min} to ${max} expected`)
  return value.value
}

function recordsOf (L: LuaState): SampleRecord[] {
  const given = argument(L, 1)
  if (given.type !== TABLE) badArgument(L, 1, `table of sample records expected, got ${kindOf(given)}`)
  const records: SampleRecord[] = []
  for (let position = 1; ; position++) {
    const value = getInteger(given.value as Table, position)
    if (value === undefined) return records
    if (!isObject(value, SampleRecord)) badArgument(L, 1, `element ${position}: sample record expected, got ${kindOf(value)}`)
    records.push(value.value)
  }
}

/** `test` and `assert` of one test. */
export function installTestLibrary (environment: Table, node: LocalNode, clock: TestClock): void {
  let unnamed = 0

  const makeRecord = (L: LuaState): number => {
    const given = argument(L, 1)
    if (given.type !== TABLE && given.type !== NIL) badArgument(L, 1, `table expected, got ${kindOf(given)}`)
    const fields = new Map<string, TValue>()
    for (const [key, value] of given.type === NIL ? [] : tableEntries(given.value as Table)) {
      if (value.type === NIL) continue
      const name = key.type === STRING ? textOf(key) : ''
      if (!FIELDS.includes(name)) badArgument(L, 1, `a record has ${FIELDS.join(', ')}; '${name}' is none of them`)
      fields.set(name, value)
    }
    const set = fields.get('set')
    if (set !== undefined && set.type !== STRING) badArgument(L, 1, `set: string expected, got ${kindOf(set)}`)
    const key = keyParticle(L, fields.get('key'), ++unnamed)
    const setName = set === undefined ? '' : textOf(set)
    const ttl = within(L, 'ttl', fields.get('ttl'), -1, TTL_SECONDS_MAX)
    return pushObject(L, new SampleRecord({
      set: setName,
      key,
      digest: digestOfKey(setName, key[0]!, key.subarray(1)),
      bins: binsOf(L, fields.get('bins')),
      generation: within(L, 'generation', fields.get('generation'), 1, GENERATION_MAX) ?? 1,
      ttlSeconds: ttl === undefined || ttl <= 0 ? undefined : ttl
    }, clock.now))
  }

  /** The function that the arguments from the second on name: module, function, and its own arguments. */
  const called = (L: LuaState): [module: string, name: string, args: TValue[]] => {
    const [module, name] = [2, 3].map(index => {
      const value = argument(L, index)
      if (value.type !== STRING) badArgument(L, index, `string expected, got ${kindOf(value)}`)
      return textOf(value)
    }) as [string, string]
    const args: TValue[] = []
    for (let index = 4; index <= argumentCount(L); index++) {
      const value = argument(L, index)
      const problem = storageProblem(value)
      if (problem !== null) badArgument(L, index, problem)
      args.push(new Value(value.type, value.value))
    }
    return [module, name, args]
  }
  const call = (L: LuaState): Applied => node.apply(expect(L, 1, SampleRecord, 'sample record (from test.record)'), ...called(L))

  const library = newTable()
  rawSet(library, 'record', functionValue(makeRecord))
  rawSet(library, 'apply', functionValue(L => {
    const applied = call(L)
    if (!applied.ok) raise(L, applied.message)
    push(L, applied.value)
    return 1
  }))
  rawSet(library, 'fails', functionValue(L => {
    const applied = call(L)
    if (applied.ok) raise(L, `${textOf(argument(L, 2))}.${textOf(argument(L, 3))} was to fail and did not`)
    push(L, stringValue(applied.message))
    pushInteger(L, applied.code)
    return 2
  }))
  rawSet(library, 'aggregate', functionValue(L => {
    const records = recordsOf(L)
    const aggregated = node.aggregate(records, ...called(L))
    if (!aggregated.ok) raise(L, aggregated.message)
    return pushObject(L, LuaList.of(aggregated.values))
  }))
  rawSet(library, 'equal', functionValue(L => {
    const what = argument(L, 3)
    const lines = differences(argument(L, 1), argument(L, 2))
    if (lines.length > 0) raise(L, `${what.type === STRING ? `${textOf(what)}: ` : ''}${lines.join('\n')}`)
    return 0
  }))
  rawSet(library, 'time', functionValue(L => {
    if (argument(L, 1).type !== NIL) {
      const milliseconds = checkCount(L, 1)
      if (milliseconds < 0 || milliseconds > MILLISECONDS_MAX) badArgument(L, 1, 'milliseconds since 1970 expected')
      clock.set(milliseconds)
    }
    return pushInteger(L, canonical(BigInt(Math.floor(clock.now()))))
  }))
  rawSet(library, 'advance', functionValue(L => {
    clock.set(Math.min(MILLISECONDS_MAX, Math.max(0, Math.floor(clock.now()) + checkCount(L, 1))))
    return pushInteger(L, clock.now())
  }))
  rawSet(environment, 'test', tableValue(library))

  // Lua's own does not say where it was called.
  rawSet(environment, 'assert', functionValue(L => {
    if (argumentCount(L) === 0) badArgument(L, 1, 'value expected')
    // The arguments are what it returns.
    if (!isFalse(argument(L, 1))) return argumentCount(L)
    const message = argument(L, 2)
    if (message.type === STRING || message.type === NIL) raise(L, message.type === NIL ? 'assertion failed!' : textOf(message))
    push(L, message)
    return lapi['lua_error'](L)
  }))
}

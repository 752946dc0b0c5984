// The text format: files written by hand from its public description, and records that go there and back.

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { ParticleType } from '../engine/constants.js'
import { digestOfKey } from '../client/request.js'
import { encodeKey } from '../client/digest.js'
import { encodeParticle } from '../client/particle.js'
import type { WireBin, WireRecord } from '../client/query-frame.js'
import { packageRoot } from '../engine/addon.js'
import { AsbReader, type AsbItem } from './asb-reader.js'
import { AsbWriter, BYTES_LETTERS, UnwritableError } from './asb-writer.js'
import { EVERY_TYPE } from './testing/every-type.js'

async function * pieces (bytes: Buffer, size = bytes.length): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield Buffer.from(bytes.subarray(at, at + size))
}

async function read (text: string | Buffer, size?: number): Promise<{ items: AsbItem[], reader: AsbReader }> {
  const reader = new AsbReader('a.asb')
  const items: AsbItem[] = []
  for await (const batch of reader.items(pieces(Buffer.isBuffer(text) ? text : Buffer.from(text, 'latin1'), size))) items.push(...batch)
  return { items, reader }
}

const digest = createHash('ripemd160').update('x').digest()
const base64 = digest.toString('base64')
const int = (value: bigint): Buffer => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigInt64BE(value)
  return bytes
}
const double = (value: number): Buffer => {
  const bytes = Buffer.alloc(8)
  bytes.writeDoubleBE(value)
  return bytes
}

const GOLDEN = `Version 3.1
# namespace a\\ b
# first-file
* i a\\ b set i\\\\1 N 1 bin N
* u L two lines.lua 6 -- a
b
+ k S 3 a
b
+ n a\\ b
+ d ${base64}
+ s my\\ set
+ g 65535
+ t 4294967295
+ b 15
- N gone
- Z yes T
- Z no F
- I min -9223372036854775808
- I b\\\\s 9223372036854775807
- D third 0.3333333333333333
- D zero -0
- D nan nan
- D up +inf
- D down -inf
- S text 4 \u00fc\n\\ 
- B blob 4 AAEC
- M map 4 gQEC
- L li\\
st 0 
- G geo 2 {}
`.replace('two lines', 'two\\ lines')

const GOLDEN_BINS: WireBin[] = [
  { name: 'gone', type: ParticleType.NULL, value: Buffer.alloc(0) },
  { name: 'yes', type: ParticleType.BOOL, value: Buffer.of(1) },
  { name: 'no', type: ParticleType.BOOL, value: Buffer.of(0) },
  { name: 'min', type: ParticleType.INTEGER, value: int(-(2n ** 63n)) },
  { name: 'b\\s', type: ParticleType.INTEGER, value: int(2n ** 63n - 1n) },
  { name: 'third', type: ParticleType.FLOAT, value: double(1 / 3) },
  { name: 'zero', type: ParticleType.FLOAT, value: double(-0) },
  { name: 'nan', type: ParticleType.FLOAT, value: double(NaN) },
  { name: 'up', type: ParticleType.FLOAT, value: double(Infinity) },
  { name: 'down', type: ParticleType.FLOAT, value: double(-Infinity) },
  { name: 'text', type: ParticleType.STRING, value: Buffer.from('\u00fc\n\\ ', 'latin1') },
  { name: 'blob', type: ParticleType.BLOB, value: Buffer.of(0, 1, 2) },
  { name: 'map', type: ParticleType.MAP, value: Buffer.of(0x81, 1, 2) },
  { name: 'li\nst', type: ParticleType.LIST, value: Buffer.alloc(0) },
  { name: 'geo', type: ParticleType.GEOJSON, value: Buffer.from('\0\0\0{}') }
]

const GOLDEN_RECORD: WireRecord = {
  digest, set: 'my set', key: Buffer.from('\x03a\nb'), generation: 65_535, voidTime: 4_294_967_295, bins: GOLDEN_BINS
}

test('a file written by hand is read as the description says, in pieces of any size', async () => {
  for (const size of [undefined, 1, 2, 3, 7, 64]) {
    const { items, reader } = await read(GOLDEN, size)
    assert.equal(reader.namespace, 'a b')
    assert.equal(reader.isFirst, true)
    assert.deepEqual(items.map(({ kind, place }) => [kind, place.line]), [['index', 4], ['module', 5], ['record', 7]])
    assert.deepEqual(items[0], { ...items[0], text: '* i a\\ b set i\\\\1 N 1 bin N' })
    assert.deepEqual(items[1], { ...items[1], name: 'two lines.lua', content: Buffer.from('-- a\nb') })
    assert.deepEqual(items[2], { ...items[2], namespace: 'a b', record: GOLDEN_RECORD })
    assert.equal(items[2]!.place.end, Buffer.byteLength(GOLDEN, 'latin1'))
  }
})

test('what is written is byte for byte the file written by hand', () => {
  const writer = new AsbWriter({ namespace: 'a b', compact: false })
  writer.header(true)
  writer.module('two lines.lua', Buffer.from('-- a\nb'))
  writer.record(GOLDEN_RECORD)
  assert.equal(writer.take().toString('latin1'), GOLDEN.replace(/\* i .*\n/, ''))
})

const vector = (name: string): Buffer => readFileSync(join(packageRoot, 'src/backup/vectors', name))

/** Bins in the order of their names; the other implementation has them in none. */
const ordered = ({ bins, ...rest }: WireRecord): WireRecord => ({ ...rest, bins: bins.toSorted((a, b) => a.name < b.name ? -1 : 1) })

/** What the files of the vectors hold, by digest. */
function everyType (): Map<string, WireRecord> {
  return new Map(EVERY_TYPE.map(({ key, bins, sendKey }) => {
    const digest = digestOfKey(key)
    const particle = encodeKey(key.key!)
    const userKey = sendKey ? Buffer.from([particle.type, ...particle.bytes]) : undefined
    const wire = Object.entries(bins).map(([name, value]): WireBin => {
      const { type, bytes } = encodeParticle(value)
      return { name, type, value: bytes }
    })
    return [digest.toString('hex'), ordered({
      digest, set: key.set ?? '', key: userKey, generation: 1, voidTime: 0, bins: wire
    })]
  }))
}

for (const [name, compact] of [['official.asb', false], ['official-compact.asb', true]] as const) {
  test(`the official library's file of every type is read, and written the same: ${name}`, async () => {
    const { items, reader } = await read(vector(name))
    assert.deepEqual([reader.namespace, reader.isFirst], ['test', false])
    const expected = everyType()
    const writer = new AsbWriter({ namespace: 'test', compact })
    writer.header(false)
    for (const item of items) {
      assert.ok(item.kind === 'record')
      const wanted = expected.get(item.record.digest.toString('hex'))
      assert.deepEqual(ordered(item.record), wanted)
      expected.delete(item.record.digest.toString('hex'))
      writer.record(item.record)
    }
    assert.equal(expected.size, 0)
    // Doubles that are no numbers are spelled as one likes.
    assert.equal(writer.take().toString('latin1'), vector(name).toString('latin1').replaceAll('Inf\n', 'inf\n').replaceAll('NaN\n', 'nan\n'))
  })
}

test('the official library\'s modules and indexes are read, those of expressions and with odd names too', async () => {
  const { items } = await read(vector('official-globals.asb'))
  assert.deepEqual(items.map((item) => [item.place.line, item.kind === 'index' ? item.text : item.kind === 'module' ? item.name : '']), [
    [4, 'adder.lua'],
    [9, '* i test types plain N 1 n N'],
    [10, '* i test my\\ set\\\\\\\n! odd\\\nna\\ me L 1 a\\ b\\\\c S khAB'],
    [13, '* e test types expr N 1  N kxGRUQGRUQI=']
  ])
  for (const size of [1, 2, 5]) assert.deepEqual((await read(vector('official-globals.asb'), size)).items, items)
})

test('texts in base64 are read, as keys and as bins', async () => {
  const { items } = await read(`Version 3.1\n# namespace n\n+ k X 4 YQo=\n+ n n\n+ d ${base64}\n+ g 1\n+ t 0\n+ b 1\n- X b 4 Ygo=\n`)
  const record = { digest, set: '', key: Buffer.from('\x03a\n'), generation: 1, voidTime: 0, bins: [{ name: 'b', type: ParticleType.STRING, value: Buffer.from('b\n') }] }
  assert.deepEqual(items.map((item) => item.kind === 'record' && item.record), [record])
})

test('the compact form keeps bytes of bins as they are, and both forms of a key of bytes are read', async () => {
  const writer = new AsbWriter({ namespace: 'n', compact: true })
  writer.header(false)
  writer.record({ digest, set: '', key: Buffer.of(4, 10, 0), generation: 1, voidTime: 0, bins: [{ name: 'b', type: ParticleType.HLL, value: Buffer.from('\n- ') }] })
  const text = writer.take().toString('latin1')
  assert.equal(text, `Version 3.1\n# namespace n\n+ k B 4 CgA=\n+ n n\n+ d ${base64}\n+ g 1\n+ t 0\n+ b 1\n- Y! b 3 \n- \n`)
  const { items } = await read(text)
  const { items: encoded } = await read(text.replace('B 4 CgA=', 'B! 2 \n\0'))
  assert.deepEqual(items.map((item) => item.kind === 'record' && item.record), encoded.map((item) => item.kind === 'record' && item.record))
})

const bytes = fc.uint8Array({ maxLength: 40 }).map((value) => Buffer.from(value))
const name = (max: number) => fc.uint8Array({ minLength: 1, maxLength: max }).map((value) => Buffer.from(value).toString('latin1'))
const anyDouble = fc.double().map(double)
const anyInt = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(int)
const value = fc.oneof(
  fc.record({ type: fc.constant(ParticleType.INTEGER), value: anyInt }),
  fc.record({ type: fc.constant(ParticleType.FLOAT), value: anyDouble }),
  fc.record({ type: fc.constant(ParticleType.BOOL), value: fc.boolean().map((on) => Buffer.of(on ? 1 : 0)) }),
  fc.record({ type: fc.constant(ParticleType.GEOJSON), value: bytes.map((text) => Buffer.concat([Buffer.alloc(3), text])) }),
  fc.record({ type: fc.constantFrom(ParticleType.STRING, ...BYTES_LETTERS.keys()), value: bytes })
)
const key = fc.oneof(
  anyInt.map((particle) => Buffer.concat([Buffer.of(ParticleType.INTEGER), particle])),
  anyDouble.map((particle) => Buffer.concat([Buffer.of(ParticleType.FLOAT), particle])),
  fc.tuple(fc.constantFrom(ParticleType.STRING, ParticleType.BLOB), bytes).map(([type, particle]) => Buffer.concat([Buffer.of(type), particle]))
)
const anyRecord: fc.Arbitrary<WireRecord> = fc.record({
  digest: fc.uint8Array({ minLength: 20, maxLength: 20 }).map((value) => Buffer.from(value)),
  set: fc.oneof(fc.constant(''), name(63)),
  key: fc.option(key, { nil: undefined }),
  generation: fc.integer({ min: 0, max: 65_535 }),
  voidTime: fc.integer({ min: 0, max: 0xffff_ffff }),
  bins: fc.array(fc.tuple(name(15), value).map(([binName, particle]): WireBin => ({ name: binName, ...particle })), { maxLength: 6 })
}, { noNullPrototype: true })

test('records come back as they were, whatever they hold and however the file is cut', async () => {
  await fc.assert(fc.asyncProperty(fc.array(anyRecord, { maxLength: 5 }), fc.boolean(), name(31), fc.integer({ min: 1, max: 60 }), async (records, compact, namespace, size) => {
    const writer = new AsbWriter({ namespace, compact })
    writer.header(true)
    for (const record of records) writer.record(record)
    const { items, reader } = await read(Buffer.from(writer.take()), size)
    assert.equal(reader.namespace, namespace)
    assert.deepEqual(items.map((item) => item.kind === 'record' ? { namespace: item.namespace, record: item.record } : item), records.map((record) => ({ namespace, record })))
  }), { numRuns: 200 })
})

test('an item that begins at the end of another is where reading can go on', async () => {
  const { items } = await read(GOLDEN + GOLDEN.slice(GOLDEN.indexOf('+ k')))
  assert.equal(items.length, 4)
  const last = items[3]!
  const reader = new AsbReader('a.asb')
  const text = Buffer.from(GOLDEN + GOLDEN.slice(GOLDEN.indexOf('+ k')), 'latin1')
  const again: AsbItem[] = []
  for await (const batch of reader.items(pieces(text.subarray(last.place.offset), 5), last.place)) again.push(...batch)
  assert.deepEqual(again, [last])
})

const record = (bins: string): string => `Version 3.1\n# namespace n\n+ n n\n+ d ${base64}\n+ g 1\n+ t 0\n${bins}`

test('a malformed file is refused with its line, and gives nothing of the record that it is in', async () => {
  const cases: Array<[string, number, RegExp]> = [
    ['', 1, /ends inside its header/],
    ['Version 4.0\n', 1, /"Version 4.0" is not/],
    ['Version 3.1\n# colour red\n', 2, /not known/],
    ['Version 3.1\n# namespace n\nhello\n', 3, /begins with/],
    ['Version 3.1\n# namespace n\n* x 1\n', 3, /global line/],
    ['Version 3.1\n# namespace n\n* u P a 1 x\n', 3, /module of type/],
    [record('+ b 1\n'), 3, /ends here/],
    [record('+ b 1\n- I a 5'), 3, /ends here/],
    [record('+ b 1\n- I a 9223372036854775808\n'), 8, /integer of 64 bits/],
    [record('+ b 1\n- I a 1.5\n'), 8, /integer of 64 bits/],
    [record('+ b 1\n- D a 0x10\n'), 8, /not a double/],
    [record('+ b 1\n- Z a t\n'), 8, /neither T nor F/],
    [record('+ b 1\n- B a 4 A*==\n'), 8, /not base64/],
    [record('+ b 1\n- B a 3 AAA\n'), 8, /not base64/],
    [record('+ b 1\n- S a 2 abc\n'), 8, /no line feed/],
    [record('+ b 1\n- S a 4294967295 abc\n'), 8, /number from 0/],
    [record('+ b 1\n- Q a 1 x\n'), 8, /bin of kind "Q"/],
    [record('+ b 1\n- I abcdefghijklmnop 1\n'), 8, /longer than 15/],
    [record('+ b 1\n+ n n\n'), 8, /"- " is due/],
    [record('+ b x\n'), 7, /number from 0 to 65535/],
    [record('+ g 1\n'), 7, /where "\+ b" is due/],
    ['Version 3.1\n# namespace n\n+ n n\n+ d AAAA\n', 4, /digest of 3 bytes/],
    ['Version 3.1\n# namespace n\n+ k Q 1\n', 3, /key of kind/],
    [record('+ b 1\n- U a 1 x\n'), 8, /bin of kind "U": large data types/],
    [`Version 3.1\n# namespace n\n${'+'.repeat(70_000)}`, 3, /"\+ " is due/]
  ]
  for (const [text, line, reason] of cases) {
    const reader = new AsbReader('a.asb')
    const items: AsbItem[] = []
    await assert.rejects(async () => {
      for await (const batch of reader.items(pieces(Buffer.from(text)))) items.push(...batch)
    }, (error: Error) => {
      assert.match(error.message, reason)
      assert.ok(error.message.startsWith(`a.asb:${line}: `), `${error.message}, not in line ${line}`)
      return true
    }, text.slice(0, 80))
    assert.deepEqual(items, [])
  }
})

test('a record with a value that the format has no letter for is refused and leaves nothing behind', () => {
  const writer = new AsbWriter({ namespace: 'n', compact: false })
  const bins = [{ name: 'a', type: ParticleType.INTEGER, value: int(1n) }, { name: 'v', type: 99, value: Buffer.of(1) }]
  assert.throws(() => writer.record({ digest, set: '', key: undefined, generation: 1, voidTime: 0, bins }), UnwritableError)
  assert.equal(writer.length, 0)
})

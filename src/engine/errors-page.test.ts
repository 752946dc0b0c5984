// docs/reference/errors.md says what the code says. What is in its tables is compared with the code tables, and with the places that answer a code.

import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { UDF_ERRORS } from '../../udf/errors.js'
import { packageRoot } from './addon.js'
import { RESULT_CODES, ResultCode } from './constants.js'
import { EngineError } from './engine.js'

const page = readFileSync(join(packageRoot, 'docs/reference/errors.md'), 'utf8')

/** The text under a heading, up to the next one of any level. */
function section (heading: string): string {
  const parts = page.split(`\n${heading}\n`)
  assert.equal(parts.length, 2, `the page has "${heading}" ${parts.length - 1} times`)
  return parts[1]!.split(/\n#+ /)[0]!
}

interface Row { code: number, name: string, retriable: string }

function codeRows (text: string): Row[] {
  return [...text.matchAll(/^\| (\d+) \| (\S+) \| (\S+) \| .+ \|$/gm)].map(([, code, name, retriable]) => {
    return { code: Number(code), name: name!, retriable: retriable! }
  })
}

function firstColumn (text: string): string[] {
  return [...text.matchAll(/^\| `([^`]+)` \|/gm)].map(([, name]) => name!)
}

const answered = codeRows(section('### Answered by this version'))
const unanswered = codeRows(section('### Known to the protocol, not answered by this version'))

/** Sources of a folder and those below it, without tests. */
function sources (folder: string, extension: string): string[] {
  return readdirSync(join(packageRoot, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(extension) && !/[._]tests?\.|\/testing|^testing/.test(name))
    .map((name) => join(packageRoot, folder, name))
}

function matchesIn (files: string[], pattern: RegExp): Set<string> {
  // Unit tests stand at the end of a Rust file.
  return new Set(files.flatMap((file) => [...readFileSync(file, 'utf8').split('#[cfg(test)]')[0]!.matchAll(pattern)].map(([, name]) => name!)))
}

test('every result code is on the page once, with its name and whether it is retriable', () => {
  const rows = [...answered, ...unanswered].sort((a, b) => a.code - b.code)
  const expected = RESULT_CODES.map(({ code, name, retriable }) => ({ code, name, retriable: retriable ? 'yes' : 'no' }))
  assert.deepEqual(rows, expected)
  // No other table may state a code again.
  assert.equal(codeRows(page).length, RESULT_CODES.length)
})

test('both tables are in the order of their codes', () => {
  for (const rows of [answered, unanswered]) assert.deepEqual(rows, rows.toSorted((a, b) => a.code - b.code))
})

test('the codes listed as answered are those that some code answers', () => {
  const rust = [
    ...sources('native/engine/src', '.rs'), ...sources('native/service/src', '.rs'),
    ...['message', 'particle'].map((name) => join(packageRoot, `native/wire/src/${name}.rs`))
  ]
  const variants = matchesIn(rust, /\bResultCode::([A-Z][a-z]\w*)/g)
  const names = new Set([...variants].map((variant) => variant.replace(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase()))
  for (const name of matchesIn([...sources('src/info', '.ts'), ...sources('udf', '.ts')], /\bResultCode\.([A-Z_]+)/g)) names.add(name)
  assert.ok(names.size > 10, `only ${names.size} codes found`)
  for (const name of names) assert.ok(name in ResultCode, `${name} is no result code`)
  assert.deepEqual(answered.map(({ name }) => name).sort(), [...names].sort())
})

test('every engine error code is on the page', () => {
  const pattern = /\b(PERIGEE_(?:[A-Z]+))(?=")/g
  const codes = matchesIn(sources('native/binding/src', '.rs'), pattern)
  assert.ok(codes.size > 3, `only ${codes.size} codes found`)
  for (const code of matchesIn([join(packageRoot, 'src/engine/engine.ts')], /'(PERIGEE_[A-Z]+)'/g)) codes.add(code)
  assert.deepEqual(firstColumn(section('## Engine errors')).sort(), [...codes].sort())
})

test('every reason of the UDF info commands is on the page', () => {
  const source = readFileSync(join(packageRoot, 'src/info/udf.ts'), 'utf8')
  const renamed = new Map([...source.matchAll(/'(udf-[a-z-]+)': '([a-z_]+)'/g)].map(([, code, reason]) => [code!, reason!]))
  const literal = [...source.matchAll(/[`']error=([a-z0-9_]+)/g)].map(([, reason]) => reason!)
  assert.ok(literal.length > 3, `only ${literal.length} reasons found`)
  const own = Object.keys(UDF_ERRORS).filter((code) => code !== 'udf-compile').map((code) => renamed.get(code) ?? code)
  assert.deepEqual(firstColumn(section('## UDF info errors')).sort(), [...new Set([...literal, ...own])].sort())
})

test('an engine error is taken apart into code and message', () => {
  const error = EngineError.from(new Error('PERIGEE_LISTEN: cannot listen on 127.0.0.1:1:\npermission denied'))
  assert.ok(error instanceof EngineError)
  assert.equal(error.code, 'PERIGEE_LISTEN')
  assert.equal(error.message, 'cannot listen on 127.0.0.1:1:\npermission denied')
})

test('an error without a code stays what it is, and what is no error becomes an internal one', () => {
  const plain = new TypeError('value is not a number')
  assert.equal(EngineError.from(plain), plain)
  const odd = EngineError.from('odd')
  assert.ok(odd instanceof EngineError)
  assert.deepEqual([odd.code, odd.message], ['PERIGEE_INTERNAL', 'odd'])
})

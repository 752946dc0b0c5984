import assert from 'node:assert/strict'
import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { removeTempDirectory, tempDirectory } from '../support/temp.js'
import { SHOWN_BYTES_MAX, failure, fileOfHex, row, shown, type FoundInput, type TargetResult } from './fuzz.js'

const NUMBERS = { runs: 10, coverage: 1, features: 1, corpus: 1, perSecond: 10, seed: 77 }

function failed (input?: FoundInput): TargetResult {
  return { target: 'values', numbers: NUMBERS, seconds: 1, finding: { reason: 'values.rs:7:9: not canonical\n  left: 1', ...input === undefined ? {} : { input } } }
}

describe('what a failure shows', () => {
  const directory = tempDirectory('fuzz-shown')
  after(() => { removeTempDirectory(directory) })

  /** In place of the program that libFuzzer drives, when it makes an input smaller: it leaves the first bytes, or finds nothing. */
  function shortener (bytes: number | null): string {
    const path = join(directory, `shortener-${bytes ?? 'none'}`)
    writeFileSync(path, `#!${process.execPath}
const { readFileSync, writeFileSync } = require('node:fs')
const to = process.argv.find(arg => arg.startsWith('-exact_artifact_path='))?.split('=')[1]
if (!process.argv.includes('-minimize_crash=1') || to === undefined) process.exit(2)
if (${bytes} !== null) writeFileSync(to, readFileSync(process.argv.at(-1)).subarray(0, ${bytes}))
`)
    chmodSync(path, 0o755)
    return path
  }

  function artifact (name: string, length: number): string {
    const path = join(directory, name)
    writeFileSync(path, Buffer.alloc(length, 0xc7))
    return path
  }

  test('a_small_input_is_shown_whole_with_the_command_that_runs_it_again', async () => {
    const input = await shown('/no/program/is/needed', 'values', artifact('values-crash-01', 3))
    assert.match(failure(failed(input)), /^values\.rs:7:9: not canonical\n {2}left: 1\nlibFuzzer seed 77; input of 3 bytes; .*values-crash-01\nnpm run fuzz -- --reproduce values --hex c7c7c7$/)
    const path = fileOfHex('c7c7c7', directory)
    assert.deepEqual(readFileSync(path), input.bytes)
    assert.match(failure(failed(await shown('', 'values', artifact('values-crash-00', 0)))), /--hex ''$/)
  })

  test('a_large_input_is_made_smaller_first', async () => {
    const input = await shown(shortener(20), 'values', artifact('values-crash-02', 3000))
    const text = failure(failed(input))
    assert.match(text, /input of 20 bytes, made smaller from 3000;/)
    assert.ok(text.endsWith(`--reproduce values --hex ${'c7'.repeat(20)}`), text)
  })

  test('an_input_that_stays_large_is_cut_with_its_length_told', async () => {
    for (const [name, program] of [['values-crash-03', shortener(null)], ['values-timeout-04', '/no/program/is/needed']] as const) {
      const text = failure(failed(await shown(program, 'values', artifact(name, 3000))))
      assert.match(text, /input of 3000 bytes;/)
      assert.ok(text.endsWith(`its first ${SHOWN_BYTES_MAX} bytes: ${'c7'.repeat(SHOWN_BYTES_MAX)}`), text)
      assert.doesNotMatch(text, /--hex/)
    }
  })

  test('without_an_input_the_seed_is_what_repeats_it', () => {
    assert.match(failure(failed()), /npm run fuzz -- --seed 77 values$/)
    const { finding, ...kept } = failed()
    assert.ok(finding !== undefined)
    assert.equal(failure(kept), '')
    assert.doesNotMatch(row(kept), /FAILED/)
    assert.match(row(failed()), /FAILED\n {4}values\.rs:7:9: not canonical\n {6}left: 1\n {4}npm run fuzz/)
  })

  test('what_is_not_hexadecimal_is_refused', () => {
    for (const digits of ['0', '0g', '00 11', '0x00']) assert.throws(() => fileOfHex(digits, directory), /hexadecimal/)
  })
})

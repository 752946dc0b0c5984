import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { makeDirectory } from './make-directory.js'

describe('a directory that is made', () => {
  const scratch = mkdtempSync(join(tmpdir(), 'perigee-make-directory-'))
  after(() => { rmSync(scratch, { recursive: true }) })

  test('is there with all above it, also when two make it at once and when it was there before', async () => {
    const path = join(scratch, 'a', 'b', 'c')
    await Promise.all([makeDirectory(path), makeDirectory(path), makeDirectory(join(scratch, 'a', 'b', 'd'))])
    await makeDirectory(path)
    assert.ok(statSync(path).isDirectory() && existsSync(join(scratch, 'a', 'b', 'd')))
    await makeDirectory('/')
  })

  // Node.js's own `mkdir` never ended here.
  test('is refused where the file system takes none', { skip: existsSync('/proc/self') ? false : 'there is no /proc' }, async () => {
    await assert.rejects(makeDirectory('/proc/nope'), { code: 'ENOENT' })
    await assert.rejects(makeDirectory('/proc/nope/deeper/still'), { code: 'ENOENT' })
  })

  test('is refused where a file is', async () => {
    const file = join(scratch, 'file')
    writeFileSync(file, '')
    await assert.rejects(makeDirectory(file), { code: 'EEXIST' })
    await assert.rejects(makeDirectory(join(file, 'below')), { code: 'ENOTDIR' })
  })
})

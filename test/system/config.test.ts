// A configuration that cannot work ends `perigee serve` at once, with a message that leads to the line.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { packageRoot, perigeeProgram } from '../support/package-root.js'
import { tempDirectory } from '../support/temp.js'

const GOOD_START = ['namespaces:', '  - name: test', '    storage-engine:', '      type: memory']

interface BadFile {
  lines: string[]
  /** 1-based, of the line that is wrong. */
  line: number
  says: RegExp
}

const BAD_FILES: Record<string, BadFile> = {
  'unknown key': { lines: [...GOOD_START, '      data-size: 64M', 'servise:', '  node-id: a1'], line: 6, says: /servise/ },
  'value out of range': {
    lines: ['network:', '  service:', '    port: 70000', ...GOOD_START, '      data-size: 64M'],
    line: 3,
    says: /network.*service.*port[\s\S]*70000[\s\S]*65535/
  },
  'not a size': { lines: [...GOOD_START, '      data-size: plenty'], line: 5, says: /data-size[\s\S]*plenty/ },
  'not a choice': { lines: ['namespaces:', '  - name: test', '    storage-engine:', '      type: tape', '      data-size: 64M'], line: 4, says: /type/ },
  'missing key': { lines: GOOD_START, line: 3, says: /data-size/ },
  'not YAML': { lines: ['namespaces: [', '  : }'], line: 2, says: /./ }
}

function serve (path: string): { status: number | null, stderr: string, stdout: string } {
  return spawnSync(process.execPath, [perigeeProgram, 'serve', '--config', path], { cwd: packageRoot, encoding: 'utf8', timeout: 30_000 })
}

describe('configuration', () => {
  for (const [name, { lines, line, says }] of Object.entries(BAD_FILES)) {
    test(`a_bad_file_is_refused_with_file_and_line: ${name}`, () => {
      const path = join(tempDirectory('config'), 'bad.yaml')
      writeFileSync(path, lines.join('\n') + '\n')
      const { status, stderr } = serve(path)
      assert.ok(status === 1 || status === 2, `exit ${status}\n${stderr}`)
      const at = /bad\.yaml:(\d+)/.exec(stderr)
      assert.notEqual(at, null, stderr)
      // What is missing has no line of its own; the line of what it is missing from, or one next to it, leads there.
      assert.ok(Math.abs(Number(at?.[1]) - line) <= (name === 'missing key' || name === 'not YAML' ? 1 : 0), `line ${at?.[1]}, not ${line}\n${stderr}`)
      assert.match(stderr, says)
      assert.doesNotMatch(stderr, /^\s+at .*\.js:\d+/m, 'a stack trace is no message')
    })
  }

  test('a_file_that_does_not_exist_is_named', () => {
    const path = join(tempDirectory('config'), 'nowhere.yaml')
    const { status, stderr } = serve(path)
    assert.ok(status === 1 || status === 2, `exit ${status}`)
    assert.match(stderr, /nowhere\.yaml/)
  })
})

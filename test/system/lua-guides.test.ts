// The pages of docs/guides/lua are followed to the letter on a real node: every command in a `console` block, every `js` block that a `text` block
// follows, and what they print. The tests of the gallery's modules run as well.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { NodeProcess } from '../support/node-process.js'
import { ensureInstalled, officialClientDirectory } from '../support/official-client.js'
import { packageRoot, perigeeProgram } from '../support/package-root.js'
import { tempDirectory } from '../support/temp.js'

const EXAMPLES = join(packageRoot, 'udf/examples')
const GUIDES = join(packageRoot, 'docs/guides/lua')

const modules = readdirSync(EXAMPLES).filter(name => name.endsWith('.lua') && !name.endsWith('.test.lua')).map(name => basename(name, '.lua'))

let node: NodeProcess
let directory: string

before(async () => {
  ensureInstalled()
  directory = tempDirectory('lua-guides')
  node = await NodeProcess.start({ name: 'lua-guides' })
})

after(async () => { await node?.dispose() })

/** What a command printed, on both outputs. */
function printed (command: string, args: readonly string[], input?: string): Promise<string> {
  const child = spawn(command, args, {
    cwd: packageRoot,
    env: { ...process.env, NODE_TEST_CONTEXT: undefined, NODE_PATH: join(officialClientDirectory, 'node_modules'), PERIGEE_PORT: String(node.port) },
    stdio: ['pipe', 'pipe', 'pipe']
  })
  let text = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (part: string) => { text += part })
  child.stdin.end(input)
  return new Promise(resolve => { child.once('close', () => { resolve(text) }) })
}

interface Step { command: string, expected: string }

/** Commands of `console` blocks, each with what follows it. */
function steps (page: string): Step[] {
  return [...page.matchAll(/^```console\n(.*?)^```$/gms)].flatMap(([, block]) => block!.split(/^\$ /m).slice(1).map(step => {
    const [command, ...lines] = step.split('\n')
    return { command: command!, expected: lines.join('\n') }
  }))
}

/** Numbers that depend on when a command runs. */
function withoutTimes (text: string): string {
  return text.replace(/"(retry_ms|seconds)":[1-9]\d*|"(seconds)":0/g, (_, first?: string, second?: string) => `"${first ?? second}":N`)
}

/** The windows of fraud_counters are those of the clock: not all commands of its page fall into one minute if they begin at its end. */
async function earlyInTheMinute (): Promise<void> {
  const second = Date.now() / 1000 % 60
  if (second > 40) await sleep((60 - second) * 1000)
}

test('each_module_of_the_gallery_has_tests_and_a_page_and_the_index_names_it', () => {
  const index = readFileSync(join(GUIDES, 'README.md'), 'utf8')
  for (const name of modules) {
    assert.ok(readdirSync(EXAMPLES).includes(`${name}.test.lua`), `${name} has no tests`)
    assert.ok(readdirSync(GUIDES).includes(`${name}.md`), `${name} has no page`)
    assert.ok(index.includes(`(${name}.md)`), `the index does not name ${name}`)
  }
})

test('the_tests_of_the_gallery_pass', async () => {
  const { failed, passed } = JSON.parse(await printed(process.execPath, [perigeeProgram, 'udf', 'test', EXAMPLES, '--json'])) as { failed: number, passed: number }
  assert.equal(failed, 0)
  assert.ok(passed >= 3 * modules.length, `${passed} tests of ${modules.length} modules`)
})

test('the_first_test_of_the_page_on_testing_passes_with_the_module_of_the_guide', async () => {
  const blockOf = (page: string, name: string): string => {
    const [, block] = new RegExp(`^\`\`\`lua\\n(-- ${name}\\n.*?)^\`\`\`$`, 'ms').exec(readFileSync(join(GUIDES, page), 'utf8')) ?? []
    assert.ok(block !== undefined, `${page} has no ${name}`)
    return block
  }
  const folder = tempDirectory('lua-testing')
  writeFileSync(join(folder, 'counters.lua'), blockOf('README.md', 'counters.lua'))
  writeFileSync(join(folder, 'counters.test.lua'), blockOf('testing.md', 'counters.test.lua'))
  const text = await printed(process.execPath, [perigeeProgram, 'udf', 'test', join(folder, 'counters.lua')])
  const shown = text.replace(`${folder}/`, '').replace(/\d+\.\d ms/g, 'N ms')
  assert.ok(readFileSync(join(GUIDES, 'testing.md'), 'utf8').replace(/\d+\.\d ms/g, 'N ms').includes(`\n${shown}\`\`\``), text)
})

describe('pages', () => {
  for (const name of modules) {
    const page = readFileSync(join(GUIDES, `${name}.md`), 'utf8')

    test(`the_commands_of_the_page_print_what_it_says: ${name}`, async () => {
      if (name === 'fraud_counters') await earlyInTheMinute()
      const all = steps(page)
      assert.ok(all.length >= 4, `${all.length} commands`)
      for (const { command, expected } of all) {
        const text = await printed('bash', ['-c', `perigee() { '${process.execPath}' '${perigeeProgram}' "$@"; }\n${command}`])
        assert.equal(withoutTimes(text), withoutTimes(expected), command)
      }
    })

    test(`the_program_of_the_page_prints_what_it_says: ${name}`, async () => {
      if (name === 'fraud_counters') await earlyInTheMinute()
      const [, program, expected] = /^```js\n(.*?)^```\n\n```text\n(.*?)^```$/ms.exec(page) ?? []
      assert.ok(program !== undefined && program.includes('127.0.0.1:3000'))
      const path = join(directory, `${name}.cjs`)
      writeFileSync(path, program.replace('127.0.0.1:3000', `127.0.0.1:${node.port}`))
      assert.equal(await printed(process.execPath, [path]), expected)
    })
  }
})

// The load generator is a program of its own behind `perigee bench` and `perigee act`: it must not go on when the command is gone.
import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { eventually } from '../support/eventually.js'
import { packageRoot, perigeeProgram } from '../support/package-root.js'
import { freePort } from '../support/ports.js'

const ATTEMPTS_MAX = 5

/** Processes that a process started. */
function childrenOf (pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter((child) => child !== '').map(Number)
}

/** The command with its program running; again with another port where somebody else took the one that was free. */
async function start (): Promise<{ command: ChildProcess, program: number }> {
  for (let attempt = 1; ; attempt++) {
    const command = spawn(process.execPath, [perigeeProgram, 'bench', 'echo', '--write-frame-bytes', '200', '--port', String(await freePort())], {
      cwd: packageRoot, env: { ...process.env, NODE_TEST_CONTEXT: undefined }, stdio: ['ignore', 'ignore', 'pipe']
    })
    let said = ''
    command.stderr!.setEncoding('utf8').on('data', (text: string) => { said += text })
    const children = await eventually('the program runs, or the command has ended', () => command.exitCode === null ? childrenOf(command.pid!) : [],
      (found) => command.exitCode !== null || (found.length === 1 && isProgram(found[0]!)))
    if (command.exitCode === null) return { command, program: children[0]! }
    assert.ok(attempt < ATTEMPTS_MAX, `the command ended with ${command.exitCode}: ${said}`)
  }
}

test('the_load_generator_ends_when_the_command_is_killed', async () => {
  const { command, program } = await start()
  command.kill('SIGKILL')
  await eventually('it is gone', () => existsSync(`/proc/${program}`) && isProgram(program), (there) => !there)
})

function isProgram (pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('perigee-bench')
  } catch {
    return false
  }
}

// The load generator is a program of its own behind `perigee bench` and `perigee act`: it must not go on when the command is gone.
import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { eventually } from '../support/eventually.js'
import { packageRoot, perigeeProgram } from '../support/package-root.js'

/** Processes that a process started. */
function childrenOf (pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter((child) => child !== '').map(Number)
}

test('the_load_generator_ends_when_the_command_is_killed', async () => {
  // It serves until its standard input ends. This end of the pipe is ours and stays open, so that only the command's end can end it.
  const command = spawn(process.execPath, [perigeeProgram, 'bench', 'echo', '--write-frame-bytes', '200'], {
    cwd: packageRoot, env: { ...process.env, NODE_TEST_CONTEXT: undefined }, stdio: ['pipe', 'ignore', 'ignore']
  })
  const [program] = await eventually('the program runs', () => childrenOf(command.pid!), (children) => children.length === 1 && isProgram(children[0]!))
  command.kill('SIGKILL')
  await eventually('it is gone', () => existsSync(`/proc/${program}`) && isProgram(program!), (there) => !there)
})

function isProgram (pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('perigee-bench')
  } catch {
    return false
  }
}

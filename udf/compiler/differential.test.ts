import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Double, ModuleUnderTest } from '../testing.js'
import type { Plain } from '../testing.js'
import { RandomProgram } from './random-program.js'
import { settings } from './unit.js'

const PROGRAMS = Number(process.env['PERIGEE_LUA_PROGRAMS'] ?? 60)
const FIRST_SEED = Number(process.env['PERIGEE_LUA_SEED'] ?? 1)

const ARGUMENTS: Plain[][] = [[1, 2], [3, 4], [new Double(0.5), 7], [10, new Double(-2.5)], ['text', 1], [null, true], [9007199254740991n, 2], [1, 2], [5, 6], [2 ** 31, -1]]

interface Run {
  outcomes: unknown[]
  logged: unknown[]
}

/** Everything that can be seen of a program: values, errors with their positions, what it printed, in order. */
function run (text: string, compileAfter: number): Run {
  const module = new ModuleUnderTest(text, { compileAfter })
  const outcomes = ARGUMENTS.map(args => {
    const { success, code, message, value } = module.call('run', args)
    return { success, code, message, value }
  })
  return { outcomes, logged: module.logged }
}

describe('compiled Lua', () => {
  it('random_programs_do_what_the_interpreter_does', () => {
    for (let seed = FIRST_SEED; seed < FIRST_SEED + PROGRAMS; seed++) {
      const text = new RandomProgram(seed).text()
      let expected: Run
      try {
        expected = run(text, Infinity)
      } catch (error) {
        throw new Error(`seed ${seed} makes no program: ${String(error)}\n${text}`)
      }
      for (const after of [1, 3]) assert.deepEqual(run(text, after), expected, `seed ${seed}, compiled after ${after}\n${text}`)
      assert.equal(settings.defects, 0, `seed ${seed} makes code that is no JavaScript\n${text}`)
    }
  })

  it('a_loop_whose_limit_is_beyond_the_safe_integers_reaches_it', () => {
    const text = `function run(rec)
      local up, down = 0, 0
      for i = 9007199254740991 - 400, 9007199254740995, 4 do up = i end
      for i = 400 - 9007199254740991, -9007199254740995, -4 do down = i end
      return up .. ' ' .. down
    end`
    const expected = run(text, Infinity)
    assert.equal((expected.outcomes[0] as { value: Plain }).value, '9007199254740995 -9007199254740995')
    assert.deepEqual(run(text, 1), expected)
  })

  it('both_operands_may_be_one_constant', () => {
    const text = `function run(rec)
      return tostring(pcall(function() return 0 % 0 end)) .. tostring(pcall(function() return 0 // 0 end)) .. 0.0 // 0.0
    end`
    assert.deepEqual(run(text, 1), run(text, Infinity))
    assert.equal(settings.defects, 0)
  })
})

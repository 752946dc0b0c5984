import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Proto } from '../fengari.js'
import { fromLua, toLua } from '../testing.js'
import type { Plain } from '../testing.js'
import { LuaVm } from '../vm.js'

const TIME_LIMIT_MS = 10_000

class Compiled {
  readonly #vm: LuaVm
  readonly #module

  constructor (text: string, compileAfter = 2) {
    this.#vm = new LuaVm({ compileAfter })
    this.#module = this.#vm.load('m.lua', new Uint8Array(Buffer.from(text)))
  }

  call (name: string, ...args: Plain[]): Plain {
    const outcome = this.#vm.call(this.#module, this.#module.function(name)!, null, args.map(toLua), TIME_LIMIT_MS)
    return outcome.ok ? fromLua(outcome.value) : outcome.message
  }

  proto (name: string): Proto {
    return this.#module.function(name)!.value.p
  }

  isCompiled (name: string): boolean {
    return this.proto(name).tier?.entry != null
  }
}

describe('the compiler', () => {
  it('compiles_a_function_at_the_call_that_was_asked_for_and_not_before', () => {
    const text = 'function f(n) return n + 1 end'
    const module = new Compiled(text, 3)
    for (const expected of [false, false, true]) {
      assert.equal(module.call('f', 1), 2)
      assert.equal(module.isCompiled('f'), expected)
    }
    const never = new Compiled(text, Infinity)
    for (let i = 0; i < 50; i++) never.call('f', 1)
    assert.equal(never.isCompiled('f'), false)
  })

  it('hands_the_frame_back_where_an_integer_leaves_the_exact_numbers_of_javascript', () => {
    const module = new Compiled('function f(x, n) for i = 1, n do x = x * 3 + i end return x end function g(x) return x + 1, x // 1, x % 7 end')
    let expected = 5n
    for (let i = 1n; i <= 40n; i++) expected = BigInt.asIntN(64, expected * 3n + i)
    for (let i = 0; i < 5; i++) assert.equal(module.call('f', 5, 40), expected)
    assert.equal(module.isCompiled('f'), true)
    for (let i = 0; i < 5; i++) assert.equal(module.call('g', 9007199254740991), 9007199254740992n)
  })

  it('takes_a_long_loop_over_while_it_runs', () => {
    const module = new Compiled('function f(n) local s = 0 for i = 1, n do s = s + i end return s end', 4)
    assert.equal(module.call('f', 1000), 500500)
    const { tier } = module.proto('f')
    assert.equal(tier!.entry, null)
    // It counts the turns that it interprets; the others are compiled.
    assert.ok(tier!.jumps < 100 && tier!.entries === 1, `${tier!.jumps} turns were interpreted`)
  })

  it('interprets_a_function_that_hands_back_at_every_call', () => {
    const module = new Compiled(`local m = setmetatable({}, {__add = function(a, b) return b end}) function f(n) return m + n end`)
    for (let i = 0; i < 100; i++) assert.equal(module.call('f', i), i)
    assert.equal(module.proto('f').tier!.givenUp, true)
  })

  it('makes_a_unit_for_all_types_when_arguments_change_theirs', () => {
    const module = new Compiled('function f(a, b) if a == nil then return b end return a .. b end')
    for (let i = 0; i < 40; i++) assert.equal(module.call('f', ...(i % 2 === 0 ? [1, 2] : ['x', 'y'])), i % 2 === 0 ? '12' : 'xy')
    assert.equal(module.isCompiled('f'), true)
    assert.equal(module.proto('f').tier!.givenUp, false)
  })

  it('leaves_functions_beyond_its_bounds_and_coroutines_to_the_interpreter', () => {
    const many = Array.from({ length: 190 }, (_, i) => `local v${i} = ${i}`).join(' ')
    const sums = Array.from({ length: 180 }, (_, i) => `v${i} = v${i} + v${i + 1} * a`).join(' ')
    const long = Array.from({ length: 800 }, (_, i) => `x = x + a * ${i}`).join(' ')
    const module = new Compiled(`
      function wide(a) ${many} ${sums} return v0 + v179 end
      function long(a) local x = 0 ${long} return x end
      local function generator(n) for i = 1, n do coroutine.yield(i) end end
      function turns(n) local s = 0 for v in coroutine.wrap(function() generator(n) end) do s = s + v end return s end`)
    for (let i = 0; i < 5; i++) {
      assert.equal(module.call('wide', 2), 2 + 179 + 360)
      assert.equal(module.call('long', 1), 319600)
      assert.equal(module.call('turns', 100), 5050)
    }
    assert.deepEqual(['wide', 'long', 'turns'].map(name => module.isCompiled(name)), [false, false, true])
  })

  it('puts_no_text_of_a_script_into_code', () => {
    const module = new Compiled(`function f(t) local name = "'];hostile(\\\\n" return rec["*/ hostile()"] or name .. hostile end rec = {} hostile = '\${hostile}'`)
    for (let i = 0; i < 3; i++) assert.match(String(module.call('f')), /^'\];hostile/)
    const unit = module.proto('f').tier!.entry!
    assert.doesNotMatch(unit.toString(), /hostile|rec\b|name/)
  })

  it('counts_steps_as_the_interpreter_does_where_loops_and_calls_do_nothing', () => {
    const vm = new LuaVm({ compileAfter: 1 })
    const module = vm.load('m.lua', new Uint8Array(Buffer.from(`
      function loop() while true do end end
      function turns() for i = 1, math.huge do end end
      local function nothing() end
      function calls() local function again() nothing() return again() end return again() end`)))
    for (const name of ['loop', 'turns', 'calls']) {
      for (let i = 0; i < 2; i++) {
        const outcome = vm.call(module, module.function(name)!, null, [], 20)
        assert.match(outcome.ok ? 'ended' : outcome.message, /time limit of 20 ms exceeded$/, name)
      }
    }
  })
})

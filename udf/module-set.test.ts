import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { LuaModule, ModuleError } from './lua-module.js'
import { ModuleVersions } from './module-versions.js'
import { fromLua, ModuleUnderTest } from './testing.js'
import type { Plain } from './testing.js'
import { LuaVm } from './vm.js'

const content = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))

/** A worker's modules, with the host's part done here. */
class Modules {
  readonly vm = new LuaVm()
  readonly #active = new Int32Array(1)
  readonly versions: ModuleVersions
  #version = 0

  constructor (sources: Record<string, string> = {}) {
    const modules = Object.entries(sources).map(([name, text]) => ({ name, content: content(text) }))
    this.versions = new ModuleVersions(this.vm, this.#active, 0, modules)
  }

  /** Undefined when the change came into force, else who spoke against it and why. */
  change (name: string, text: string | undefined): string | undefined {
    const { refused } = this.versions.prepare(++this.#version, { name, source: text === undefined ? undefined : { name, content: content(text) } })
    if (refused !== undefined) return `${refused.name}:${refused.error.line}: ${refused.error.message}`
    Atomics.store(this.#active, 0, this.#version)
    return undefined
  }

  call (name: string, fn: string): Plain | string {
    const module = this.versions.find(name)
    if (module === undefined) return 'absent'
    if (module instanceof ModuleError) return `not usable: ${module.message}`
    const outcome = this.vm.call(module, module.function(fn)!, null, [], 1000)
    return outcome.ok ? fromLua(outcome.value) : outcome.message
  }

  get waiting (): string[] {
    return this.versions.failures.filter(({ error }) => error.waiting).map(({ name }) => name)
  }
}

describe('require', () => {
  it('gives_what_the_main_chunk_returned_else_the_globals_of_the_module', () => {
    const module = new ModuleUnderTest(`
      local returned, globals = require 'returned', require('globals.lua')
      function f() return list{returned.twice(4), globals.thrice(4), globals.LIMIT, tostring(returned == require 'returned.lua'), tostring(globals.require), tostring(globals.print)} end
      function write() globals.LIMIT = 1 end
      function own() local names = list() for name in pairs(globals) do list.append(names, name) end return names end`, {}, {
      'returned.lua': 'local M = {} function M.twice(n) return 2 * n end return M',
      'globals.lua': 'LIMIT = 7 function thrice(n) return 3 * n end'
    })
    assert.deepEqual(module.value('f'), [8, 12, 7, 'true', 'nil', 'nil'])
    assert.match(module.failure('write'), /read-only/)
    assert.deepEqual([...module.value('own') as string[]].sort(), ['LIMIT', 'thrice'])
  })

  it('globals_of_a_module_that_returned_nothing_are_globals_of_the_one_that_requires_it_unless_it_has_its_own', () => {
    const module = new ModuleUnderTest(`
      own = 'mine'
      require 'lib' require 'quiet'
      later = 'mine too'
      function f() return list{own, later, shared, tostring(hidden), through, helper()} end`, {}, {
      'lib.lua': 'require "deep" own, later, shared = "lib", "lib", "lib" function helper() return own end',
      'deep.lua': 'through = "deep"',
      'quiet.lua': 'hidden = 1 return {}'
    })
    assert.deepEqual(module.value('f'), ['mine', 'mine too', 'lib', null, 'deep', 'lib'].map(value => value ?? 'nil'))
  })

  it('a_call_sees_no_globals_that_another_left_in_a_required_module', () => {
    const module = new ModuleUnderTest(`
      local lib = require 'lib'
      function set() return lib.remember(5) end
      function get() return list{tostring(lib.recall()), tostring(seen)} end
      function late() return list{tostring(rawget(_G, 'LATE')), require('late').f(), LATE, tostring(rawget(_G, 'LATE'))} end`, {}, {
      'lib.lua': 'function remember(value) kept = value; seen = value; return recall() end function recall() return kept end',
      'late.lua': 'LATE = "there" function f() LEFT = (LEFT or 0) + 1 return LEFT end'
    })
    assert.equal(module.value('set'), 5)
    assert.deepEqual(module.value('get'), ['nil', 'nil'])
    // Required within a call: for this call alone, also the second time.
    for (let i = 0; i < 2; i++) assert.deepEqual(module.value('late'), ['nil', 1, 'there', 'there'])
  })

  it('nothing_else_can_be_required', () => {
    const module = new ModuleUnderTest('function f(rec, name) return require(name) end function g() return require() end function p() return package.loaded end')
    for (const name of ['os', 'io', 'debug', 'string', 'lfs', '/etc/passwd', '../m', './m.so', '']) {
      assert.equal(module.failure('f', [name]), `m.lua:1: module '${name}' is not registered: 'require' finds modules that were put on this node, nothing else`)
    }
    assert.match(module.failure('f', [new Map()]), /bad argument #1 to 'require'/)
    assert.match(module.failure('g'), /bad argument #1 to 'require'/)
    assert.match(module.failure('p'), /global 'package'/)
  })

  it('the_order_of_loading_does_not_matter', () => {
    const sources = { 'a.lua': 'local b = require "b" function f() return b.f() + 1 end', 'b.lua': 'local c = require "c" function f() return c.f() + 1 end', 'c.lua': 'function f() return 1 end' }
    assert.equal(new Modules(sources).call('a', 'f'), 3)
    assert.equal(new Modules(Object.fromEntries(Object.entries(sources).reverse())).call('a', 'f'), 3)
    const modules = new Modules()
    for (const [name, text] of Object.entries(sources)) assert.equal(modules.change(name, text), undefined, name)
    assert.equal(modules.call('a', 'f'), 3)
  })

  it('a_module_waits_for_one_that_is_not_there_and_says_so', () => {
    const modules = new Modules()
    assert.equal(modules.change('a.lua', 'local b = require "b" function f() return b.f() end'), undefined)
    assert.equal(modules.call('a', 'f'), "not usable: module 'b' is not registered: 'require' finds modules that were put on this node, nothing else")
    assert.equal(modules.change('z.lua', 'require "a" function f() return f2() end'), undefined)
    assert.match(modules.call('z', 'f') as string, /^not usable: module 'a' failed to load: a\.lua:1: module 'b' is not registered/)
    assert.equal(modules.change('b.lua', 'function f() return 1 end'), undefined)
    assert.equal(modules.call('a', 'f'), 1)
    assert.equal(modules.change('b.lua', undefined), undefined)
    assert.match(modules.call('a', 'f') as string, /not registered/)
    assert.equal(modules.change('b.lua', 'function f() return 2 end'), undefined)
    assert.equal(modules.call('a', 'f'), 2)
  })

  it('replacing_a_module_loads_those_that_require_it_anew_and_no_others', () => {
    const modules = new Modules({
      'a.lua': 'local b = require "b" local n = 0 function f() n = n + 1 return list{b.VALUE, b.value(), n} end',
      'b.lua': 'VALUE = 1 function value() return require("c").VALUE end',
      'c.lua': 'VALUE = 1',
      'other.lua': 'local n = 0 function f() n = n + 1 return n end',
      'lazy.lua': 'local c function f() c = c or require "c" return c.VALUE end'
    })
    assert.deepEqual([modules.call('a', 'f'), modules.call('a', 'f'), modules.call('other', 'f'), modules.call('lazy', 'f')], [[1, 1, 1], [1, 1, 2], 1, 1])
    assert.equal(modules.change('c.lua', 'VALUE = 2'), undefined)
    // What a module required within a call, and may have kept, counts too.
    assert.deepEqual([modules.call('a', 'f'), modules.call('other', 'f'), modules.call('lazy', 'f')], [[1, 2, 1], 2, 2])
  })

  it('a_change_with_which_something_does_not_load_that_did_before_is_refused_and_changes_nothing', () => {
    const modules = new Modules({ 'a.lua': 'local b = require "b" b.init() function f() return b.VALUE end', 'b.lua': 'VALUE = 1 function init() end' })
    assert.equal(modules.change('b.lua', 'VALUE = 2'), "a.lua:1: attempt to call a nil value (field 'init')")
    assert.equal(modules.change('b.lua', '\nerror("no")'), 'b.lua:2: no')
    assert.equal(modules.change('b.lua', 'while true do end'), 'b.lua:1: time limit of 1000 ms exceeded')
    assert.equal(modules.call('a', 'f'), 1)
    assert.equal(modules.change('b.lua', 'VALUE = 3 function init() end'), undefined)
    assert.equal(modules.call('a', 'f'), 3)
  })

  it('modules_that_require_each_other_are_an_error_that_names_the_chain', () => {
    const modules = new Modules({ 'a.lua': 'require "b"', 'self.lua': 'require "self.lua"' })
    assert.deepEqual(modules.waiting, ['a.lua'])
    assert.equal(modules.change('b.lua', 'require "c"'), undefined)
    assert.match(modules.change('c.lua', 'require "a"')!, /modules require each other while they load: c -> a -> b -> c$/)
    assert.match(modules.call('self', 'f') as string, /while they load: self -> self$/)
    // Within a call it is fine.
    assert.equal(modules.change('c.lua', 'function f() return require("a") and 1 end'), undefined)
    assert.equal(modules.call('c', 'f'), 1)
  })

  it('a_protected_require_of_a_module_that_is_not_there_lets_the_module_load_and_load_anew_when_it_comes', () => {
    const modules = new Modules({ 'a.lua': 'local there, b = pcall(require, "b") function f() return there and b.VALUE or "without" end' })
    assert.equal(modules.call('a', 'f'), 'without')
    modules.change('b.lua', 'VALUE = 1')
    assert.equal(modules.call('a', 'f'), 1)
  })

  it('require_works_in_coroutines_and_deep_chains_and_each_load_has_its_own_time', () => {
    const chain = Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`m${i}.lua`, i === 59 ? 'VALUE = 59' : `local next = require "m${i + 1}" VALUE = next.VALUE`]))
    const modules = new Modules({
      ...chain,
      'co.lua': 'local m = coroutine.wrap(function() coroutine.yield() return require "m0" end) m() local M = m() function f() return M.VALUE end',
      'bad.lua': 'pcall(require, "endless") function f() return 1 end',
      'endless.lua': 'while true do end'
    })
    assert.ok(modules.versions.find('m0') instanceof LuaModule)
    assert.equal(modules.call('co', 'f'), 59)
    assert.equal(modules.call('bad', 'f'), 1)
    assert.match(modules.call('endless', 'f') as string, /time limit of 1000 ms/)
  })

  it('load_compiles_in_the_environment_of_the_module_that_calls_it', () => {
    const module = new ModuleUnderTest('where = "m" local lib = require "lib" function f() return list{load("return where")(), lib.f()} end', {}, {
      'lib.lua': 'where = "lib" local M = {} function M.f() return load("return where")() end return M'
    })
    assert.deepEqual(module.value('f'), ['m', 'lib'])
  })
})

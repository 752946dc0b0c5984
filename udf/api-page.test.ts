// docs/guides/lua/api.md has every function of the API, and none that is not there.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { packageRoot } from '../src/engine/addon.js'
import { ModuleUnderTest } from './testing.js'

const PAGE = readFileSync(join(packageRoot, 'docs/guides/lua/api.md'), 'utf8')
const TABLES = ['aerospike', 'record', 'list', 'map', 'bytes', 'geojson', 'iterator', 'stream']

describe('reference of the Lua API', () => {
  const module = new ModuleUnderTest(`
    local tables = {aerospike = aerospike, record = record, list = list, map = map, bytes = bytes, geojson = geojson, iterator = iterator, stream = stream}
    function names() local found = list() for name, t in pairs(tables) do for fn in pairs(t) do list.append(found, name .. '.' .. fn) end end return found end
    function refusal(rec, name, fn)
      -- What is no record, list and so on is refused by every function that takes one.
      local ok, message = pcall(tables[name][fn], name == 'aerospike' and tables[name] or {}, {}, {})
      return ok and 'accepted' or tostring(message)
    end`)
  const functions = (module.value('names') as string[]).sort()

  it('has_every_function_and_no_other', () => {
    const documented = new Set([...PAGE.matchAll(new RegExp(`\\b(${TABLES.join('|')})[.:]([a-z_0-9]+)\\(`, 'g'))].map(match => `${match[1]}.${match[2]}`))
    assert.deepEqual([...documented].sort(), functions)
  })

  it('every_function_refuses_what_it_is_not_for_and_says_so', () => {
    const takesAnything = ['aerospike.get_current_time', 'list.create', 'map.create', 'bytes.create']
    for (const name of functions.filter(name => !takesAnything.includes(name))) {
      const message = module.value('refusal', name.split('.')) as string
      assert.match(message, /bad argument #\d+ to '[\w.]+' \(.* expected, got .*\)|worked on by filter|number expected/, name)
    }
  })
})

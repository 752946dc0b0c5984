// Speed of Lua itself: small programs in Perigee's virtual machine and, when `lua5.4` is installed, in PUC Lua, with the ratio of both in
// the same run. `--json` prints the figures alone; names given as arguments select programs; `--interpreter` leaves the compiler out.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const { LuaVm } = await import(join(root, 'dist/udf/vm.js'))
const ROUNDS = 3
const CALL_LIMIT_MS = 60_000

/** Each defines `run()`. Those with `own` use Perigee's API, which PUC Lua has not. */
const programs = {
  'numeric loop': { text: 'function run() local s = 0 for i = 1, 10000000 do s = s + i % 7 end return s end' },
  'while loop': { text: 'function run() local i, s = 0, 0 while i < 5000000 do i = i + 1 if i & 1 == 0 then s = s + 1 else s = s - 2 end end return s end' },
  'fib recursion': { text: 'local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end function run() return fib(27) end' },
  'float arithmetic': {
    text: `function run()
      local bodies = {}
      for i = 1, 5 do bodies[i] = {x = i * 1.5, y = i * 0.3, z = i * -0.7, vx = 0.01 * i, vy = 0.0, vz = 0.02, mass = 1.0 / i} end
      for _ = 1, 20000 do
        for i = 1, 5 do
          local a = bodies[i]
          for j = i + 1, 5 do
            local b = bodies[j]
            local dx, dy, dz = a.x - b.x, a.y - b.y, a.z - b.z
            local d = dx * dx + dy * dy + dz * dz
            local m = 0.001 / (d * d ^ 0.5)
            a.vx = a.vx - dx * b.mass * m  a.vy = a.vy - dy * b.mass * m  a.vz = a.vz - dz * b.mass * m
            b.vx = b.vx + dx * a.mass * m  b.vy = b.vy + dy * a.mass * m  b.vz = b.vz + dz * a.mass * m
          end
        end
        for i = 1, 5 do local a = bodies[i] a.x = a.x + 0.001 * a.vx a.y = a.y + 0.001 * a.vy a.z = a.z + 0.001 * a.vz end
      end
      return bodies[1].x
    end`
  },
  'array fill and sum': { text: 'function run() local s = 0 for r = 1, 10 do local t = {} for i = 1, 100000 do t[i] = i end for i = 1, #t do s = s + t[i] end end return s end' },
  'field access': { text: 'function run() local t = {a = 1, b = 2, c = 3} for i = 1, 1000000 do t.a = t.b + i t.b = t.c t.c = t.a - i end return t.a end' },
  'methods and closures': {
    text: `local C = {} C.__index = C
      function C:add(n) self.v = self.v + n return self end
      function run()
        local o = setmetatable({v = 0}, C)
        local function twice(f) return function(x) return f(f(x)) end end
        local g = twice(function(x) return x + 1 end)
        for i = 1, 300000 do o:add(i) o.v = g(o.v) end
        return o.v
      end`
  },
  'global functions': { text: 'local floor = math.floor function run() local s = 0 for i = 1, 1000000 do s = s + math.max(i, 5) + floor(i / 3) end return s end' },
  'generic for': { text: 'function run() local t = {} for i = 1, 1000 do t[i] = i end local s = 0 for r = 1, 300 do for i, v in ipairs(t) do s = s + v end for k, v in pairs(t) do s = s + k end end return s end' },
  'tostring and concat': { text: "function run() local n = 0 for i = 1, 300000 do local s = tostring(i) .. ':' .. i n = n + #s end return n end" },
  'string keys': { text: "function run() local t = {} for i = 1, 200000 do local k = 'k' .. i % 1000 t[k] = (t[k] or 0) + 1 end return t.k7 end" },
  'string.format': { text: "function run() local n = 0 for i = 1, 100000 do n = n + #string.format('%d:%s:%5.2f', i, 'abc', i / 3) end return n end" },
  'table.concat': { text: "function run() local n = 0 for r = 1, 10 do local t = {} for i = 1, 20000 do t[#t + 1] = 'part' .. i end n = n + #table.concat(t, ',') end return n end" },
  'pattern matching': {
    text: `function run()
      local s = ('key=value; other=thing; '):rep(20)
      local n = 0
      for i = 1, 200 do
        for k, v in s:gmatch('(%w+)=(%w+)') do n = n + #k + #v end
        n = n + select(2, s:gsub('%w+', '<%0>')) + (s:find('thin.; $') or 0)
      end
      return n
    end`
  },
  'string methods': { text: "function run() local n = 0 for i = 1, 200000 do local s = 'The quick brown fox' n = n + s:sub(5, 9):upper():byte(1) + #s:lower() end return n end" },
  'sort': { text: 'function run() local t = {} local x = 42 for i = 1, 60000 do x = (x * 1103515245 + 12345) % 2147483648 t[i] = x end table.sort(t) table.sort(t, function(a, b) return a > b end) return t[1] end' },
  'pcall': { text: "function run() local n = 0 for i = 1, 100000 do local ok, v = pcall(function(x) if x % 10 == 0 then error('no') end return x end, i) if ok then n = n + v end end return n end" },
  'list and map': {
    own: true,
    text: `function run()
      local l, m = list(), map()
      for i = 1, 100000 do list.append(l, i) m['k' .. i % 100] = i end
      local s = 0
      for v in list.iterator(l) do s = s + v end
      for i = 1, #l do s = s + l[i] end
      for k, v in map.pairs(m) do s = s + v end
      return s
    end`
  }
}

function inPerigee (text, interpreter) {
  const vm = new LuaVm(interpreter ? { compileAfter: Infinity } : {})
  const module = vm.load('bench.lua', new Uint8Array(Buffer.from(text)))
  const times = []
  let value
  for (let round = 0; round < ROUNDS; round++) {
    // Time of the processor, all threads of the runtime included: as os.clock() has it in PUC Lua.
    const started = process.cpuUsage()
    const outcome = vm.call(module, module.function('run'), null, [], CALL_LIMIT_MS)
    const { user, system } = process.cpuUsage(started)
    times.push((user + system) / 1000)
    if (!outcome.ok) throw new Error(outcome.message)
    value = outcome.value.value
  }
  return { ms: times.sort((a, b) => a - b)[ROUNDS >> 1], value: Number(value) }
}

const scratch = mkdtempSync(join(tmpdir(), 'perigee-lua-'))
const hasLua = spawnSync('lua5.4', ['-v']).status === 0

function inLua (text) {
  const file = join(scratch, 'program.lua')
  writeFileSync(file, `${text}\nlocal t = {} local v for r = 1, ${ROUNDS} do local c = os.clock() v = run() t[r] = os.clock() - c end table.sort(t) print(t[${(ROUNDS >> 1) + 1}] * 1000, v)\n`)
  const { status, stdout, stderr } = spawnSync('lua5.4', [file], { encoding: 'utf8' })
  if (status !== 0) throw new Error(stderr)
  const [ms, value] = stdout.trim().split('\t').map(Number)
  return { ms, value }
}

const options = process.argv.slice(2)
const selected = options.filter(option => !option.startsWith('--'))
const results = []
try {
  for (const [name, { text, own }] of Object.entries(programs)) {
    if (selected.length > 0 && !selected.some(part => name.includes(part))) continue
    const ours = inPerigee(text, options.includes('--interpreter'))
    const lua = hasLua && !own ? inLua(text) : null
    if (lua !== null && Math.abs(lua.value - ours.value) > 1e-9 * Math.abs(lua.value)) throw new Error(`${name}: ${ours.value}, but PUC Lua has ${lua.value}`)
    results.push({ name, perigeeMs: ours.ms, luaMs: lua?.ms ?? null, ratio: lua === null ? null : ours.ms / lua.ms })
  }
} finally {
  rmSync(scratch, { recursive: true })
}

if (options.includes('--json')) console.log(JSON.stringify({ node: process.version, results }, null, 2))
else {
  if (!hasLua) console.log('lua5.4 is not installed: no ratios')
  for (const { name, perigeeMs, luaMs, ratio } of results) {
    console.log(`${name.padEnd(22)} ${perigeeMs.toFixed(1).padStart(9)} ms ${luaMs === null ? '' : `${luaMs.toFixed(1).padStart(9)} ms in Lua 5.4 ${ratio.toFixed(2).padStart(7)} x`}`)
  }
}

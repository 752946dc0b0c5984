// For tests: random Lua programs that end, use most of the language, and run into errors now and then.

/** xorshift32: the same program for the same seed. */
export class RandomProgram {
  #state: number
  #lines: string[] = []
  #depth = 0
  #loops = 0
  #names = 0
  #scope: string[] = []
  /** Variables that an assignment may change; loop counters are not among them. */
  #mutable: string[] = []
  #functions: string[] = []
  #vararg = false

  constructor (seed: number) {
    this.#state = (seed * 2654435761) >>> 0 || 1
  }

  #below (bound: number): number {
    let x = this.#state
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    this.#state = x >>> 0
    return this.#state % bound
  }

  #pick<T> (from: readonly T[]): T {
    return from[this.#below(from.length)]!
  }

  #line (text: string): void {
    this.#lines.push('  '.repeat(this.#depth) + text)
  }

  #constant (): string {
    return this.#pick([
      '0', '1', '2', '3', '7', '-1', '-5', '10', '100', '0.5', '-0.0', '2.0', '1e15', '3.75', '9007199254740991', '9007199254740993', 'math.maxinteger',
      'math.mininteger', '(1/0)', '(0/0)', '"10"', '"abc"', '"0x10"', '""', '"key"', 'nil', 'true', 'false', '2147483647', '-2147483648', '4294967296'
    ])
  }

  #variable (): string {
    return this.#scope.length === 0 || this.#below(8) === 0 ? this.#pick(['g1', 'g2', 'a', 'b']) : this.#pick(this.#scope)
  }

  /** Mostly of numbers. */
  #number (depth: number): string {
    if (depth <= 0) return this.#below(2) === 0 ? this.#variable() : this.#pick(['0', '1', '2', '3', '-4', '7', '1.5', '-0.25', '1000', '2147483647', '9007199254740990'])
    switch (this.#below(8)) {
      case 0: return `-${this.#number(depth - 1).replace(/^-/, '')}`
      case 1: return `(${this.#number(depth - 1)} ${this.#pick(['&', '|', '~', '<<', '>>'])} ${this.#number(depth - 1)})`
      case 2: return `#${this.#pick(['t', 't.list', '"four"', this.#variable()])}`
      case 3: return `t.list[${this.#number(depth - 1)}]`
      default: return `(${this.#number(depth - 1)} ${this.#pick(['+', '-', '*', '//', '%', '/', '+', '-', '*', '^'])} ${this.#number(depth - 1)})`
    }
  }

  #expression (depth: number): string {
    if (depth <= 0) return this.#below(3) === 0 ? this.#constant() : this.#variable()
    switch (this.#below(18)) {
      case 0: case 1: case 2: return this.#number(depth)
      case 3: return `${this.#expression(depth - 1)} .. ${this.#expression(depth - 1)}`
      case 4: return `(${this.#expression(depth - 1)} ${this.#pick(['<', '<=', '>', '>=', '==', '~='])} ${this.#expression(depth - 1)})`
      case 5: return `(${this.#expression(depth - 1)} and ${this.#expression(depth - 1)})`
      case 6: return `(${this.#expression(depth - 1)} or ${this.#expression(depth - 1)})`
      case 7: return `not ${this.#expression(depth - 1)}`
      case 8: return `t.${this.#pick(['x', 'y', 'list', 'missing', 'deep'])}`
      case 9: return `t[${this.#expression(depth - 1)}]`
      case 10: return `{${this.#expression(depth - 1)}, ${this.#expression(depth - 1)}, x = ${this.#expression(depth - 1)}}`
      case 11: return this.#functions.length === 0 ? this.#constant() : `${this.#pick(this.#functions)}(${this.#expression(depth - 1)}, ${this.#expression(depth - 1)})`
      case 12: return `o:method(${this.#expression(depth - 1)})`
      case 13: return `tostring(${this.#number(depth - 1)})`
      case 14: return `(function(p) return p, ${this.#inner(depth - 1)} end)(${this.#expression(depth - 1)})`
      case 15: return this.#vararg ? this.#pick(['...', '(...)', 'select("#", ...)']) : `math.type(${this.#expression(depth - 1)})`
      case 16: return `o ${this.#pick(['+', '..', '<', '==', '*', '&'])} ${this.#expression(depth - 1)}`
      default: return `(${this.#pick(['"text"', '("%d"):rep(2)', 's'])}):${this.#pick(['len()', 'upper()', 'sub(2)', 'byte(1)', 'absent()'])}`
    }
  }

  /** In a function within, which has no `...`. */
  #inner (depth: number): string {
    const vararg = this.#vararg
    this.#vararg = false
    const text = this.#expression(depth)
    this.#vararg = vararg
    return text
  }

  #block (statements: number): void {
    const scope = this.#scope.slice()
    const mutable = this.#mutable.slice()
    this.#depth++
    for (let i = 0; i < statements; i++) this.#statement()
    this.#depth--
    this.#scope = scope
    this.#mutable = mutable
  }

  #declare (changes: boolean): string {
    const name = `v${++this.#names}`
    this.#scope.push(name)
    if (changes) this.#mutable.push(name)
    return name
  }

  #loop (head: (name: string) => string): void {
    if (this.#loops >= 2) return
    this.#loops++
    const scope = this.#scope.slice()
    const name = `v${++this.#names}`
    this.#line(head(name))
    this.#scope.push(name)
    const label = this.#below(4) === 0 ? `continue${this.#names}` : null
    if (label !== null) this.#line(`  if ${this.#expression(1)} then goto ${label} end`)
    this.#line('  do')
    this.#block(1 + this.#below(3))
    this.#line('  end')
    if (this.#below(5) === 0) this.#line(`  if ${this.#expression(1)} then break end`)
    if (label !== null) this.#line(`  ::${label}::`)
    this.#line('end')
    this.#scope = scope
    this.#loops--
  }

  #statement (): void {
    if (this.#depth > 6) {
      this.#line(`print(${this.#expression(1)})`)
      return
    }
    switch (this.#below(20)) {
      case 0: case 1: {
        const value = this.#expression(2)
        this.#line(`local ${this.#declare(true)} = ${value}`)
        return
      }
      case 2: {
        const value = `${this.#expression(1)}, ${this.#expression(2)}`
        this.#line(`local ${this.#declare(true)}, ${this.#declare(true)} = ${value}`)
        return
      }
      case 3: case 4: case 5:
        if (this.#mutable.length > 0) this.#line(`${this.#pick(this.#mutable)} = ${this.#below(2) === 0 ? this.#number(2) : this.#expression(2)}`)
        return
      case 6: this.#line(`t.${this.#pick(['x', 'y', 'z'])} = ${this.#expression(2)}`); return
      case 7: this.#line(`t[${this.#expression(1)}] = ${this.#expression(2)}`); return
      case 8: this.#line(`t.list[#t.list + ${this.#pick(['1', '1', '1', '0', '2'])}] = ${this.#expression(1)}`); return
      case 9: this.#line(`${this.#pick(['g1', 'g2'])} = ${this.#expression(2)}`); return
      case 10: case 11:
        this.#line(`if ${this.#expression(2)} then`)
        this.#block(1 + this.#below(2))
        if (this.#below(2) === 0) {
          this.#line('else')
          this.#block(1 + this.#below(2))
        }
        this.#line('end')
        return
      case 12: this.#loop(name => `for ${name} = ${this.#pick(['1, 20', '20, 1, -1', '1, 3, 0.5', '-3, 3', 'a, 12', '1, b', '9007199254740985, math.huge, 3', 'math.maxinteger - 2, math.maxinteger'])} do if stop() then break end`); return
      case 13: this.#loop(name => `for ${name}, w in ${this.#pick(['ipairs(t.list)', 'pairs({5, 6, x = 7})', 'next, {1, 2, 3}', 'iterate(8)'])} do if stop() then break end`); return
      case 14: {
        const counter = `c${++this.#names}`
        this.#line(`local ${counter} = 0`)
        this.#loop(name => `while ${counter} < ${10 + this.#below(20)} do ${counter} = ${counter} + 1 local ${name} = ${counter}`)
        return
      }
      case 15: {
        const name = this.#declare(true)
        this.#line(`local ${name} = {}`)
        this.#line(`for i = 1, 3 do ${name}[i] = function() i = i + 1 return i + (${this.#pick(['1', 'a', ...this.#mutable])} or 0) end end`)
        this.#line(`print(${name}[1](), ${name}[1](), ${name}[3]())`)
        return
      }
      case 16: this.#line(`print(pcall(function() ${this.#mutable.length > 0 ? `${this.#pick(this.#mutable)} = ${this.#inner(1)} ` : ''}return ${this.#inner(2)} end))`); return
      case 17:
        if (this.#depth < 3 && this.#loops === 0) {
          this.#line(`do return ${this.#pick([this.#expression(1), `${this.#expression(1)}, ${this.#expression(1)}`, `tostring(${this.#expression(1)})`])} end`)
        }
        return
      default: this.#line(`print(${this.#expression(2)}, ${this.#expression(1)})`)
    }
  }

  text (): string {
    this.#lines.push(
      'g1, g2 = 5, "glob"', 'local s = "string"', 'local ticks',
      'local function stop() ticks = ticks + 1 return ticks > 400 end',
      'local function iterate(n) local i = 0 return function() i = i + 1 if i <= n then return i, i * 2 end end end',
      'local show = print',
      'local function print(...) if ticks < 4000 then ticks = ticks + 1 local p = table.pack(...) for i = 1, p.n do if type(p[i]) == "table" or type(p[i]) == "function" then p[i] = type(p[i]) end end show(table.unpack(p, 1, p.n)) end end'
    )
    for (let i = 0; i < 3; i++) {
      const name = `f${i}`
      this.#vararg = this.#below(3) === 0
      this.#scope = ['a', 'b', 's']
      this.#mutable = ['a', 'b']
      this.#lines.push(`local function ${name}(a, b${this.#vararg ? ', ...' : ''}) local t, o = {x = 1, list = {1, 2, 3}, deep = {}}, setmetatable({v = 2}, meta)`)
      this.#block(3 + this.#below(5))
      this.#lines.push(`  return ${this.#below(3) === 0 && this.#functions.length > 0 ? `${this.#functions.at(-1)}(a, b)` : this.#expression(2)}`, 'end')
      this.#functions.push(name)
    }
    this.#vararg = false
    this.#lines.push(
      'function run(rec, a, b) ticks = 0',
      ...this.#functions.map(name => `  print("${name}", pcall(${name}, a, b, a, b))`),
      '  return f2(b, a)', 'end'
    )
    return [
      'meta = {__index = function(self, k) return k == "method" and function(self, x) return x end or #k end, __add = function(x, y) return type(y) end,',
      '__concat = function(x, y) return "joined" end, __lt = function(x, y) return true end, __eq = function() return true end, __len = function() return 42 end}',
      'meta.__le = meta.__lt local meta = meta',
      ...this.#lines
    ].join('\n')
  }
}

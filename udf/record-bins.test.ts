import assert from 'node:assert/strict'
import { it } from 'node:test'
import { bin, fromParticle, ModuleUnderTest } from './testing.js'
import type { Plain } from './testing.js'

const SOURCE = `
function f(rec, steps)
  local seen = list()
  local actions = {
    set = function(name, value) rec[name] = value end,
    clear = function(name) rec[name] = nil end,
    read = function(name) list.append(seen, rec[name] or false) end,
    count = function() list.append(seen, record.numbins(rec)) end,
    create = function() list.append(seen, aerospike:create(rec)) end,
    update = function() list.append(seen, aerospike:update(rec)) end,
    remove = function() list.append(seen, aerospike:remove(rec)) end
  }
  for step in list.iterator(steps) do actions[step[1]](step[2], step[3]) end
  return seen
end`

type Step = [action: string, name: string, value: Plain]

/** What a record is to do, with plain maps. */
class Model {
  exists: boolean
  readonly stored: Map<string, Plain>
  readonly assigned = new Map<string, Plain>()
  readonly seen: Plain[] = []
  isWritten = false

  constructor (bins: ReadonlyMap<string, Plain>) {
    this.exists = bins.size > 0
    this.stored = new Map(bins)
  }

  step ([action, name, value]: Step): void {
    switch (action) {
      case 'set': this.assigned.set(name, value); break
      case 'clear': this.assigned.set(name, null); break
      case 'read': this.seen.push((this.assigned.has(name) ? this.assigned.get(name) : this.stored.get(name)) ?? false); break
      case 'count': this.seen.push(this.stored.size); break
      case 'create':
        this.seen.push(this.exists ? 1 : 0)
        if (!this.exists) {
          this.#apply()
          this.exists = true
        }
        break
      case 'update':
        this.seen.push(this.exists ? 0 : -2)
        if (this.exists) this.#apply()
        break
      case 'remove':
        this.seen.push(this.exists ? 0 : 1)
        if (!this.exists) break
        this.stored.clear()
        this.assigned.clear()
        this.exists = this.isWritten = false
    }
  }

  #apply (): void {
    for (const [name, value] of this.assigned) {
      if (value === null) this.stored.delete(name)
      else this.stored.set(name, value)
    }
    this.assigned.clear()
    this.isWritten = true
    this.exists = this.stored.size > 0
  }
}

it('a_record_does_what_plain_maps_do_whatever_is_done_to_it', () => {
  const module = new ModuleUnderTest(SOURCE)
  for (let seed = 1; seed <= 300; seed++) {
    let state = seed
    const below = (bound: number): number => {
      state = Math.imul(state ^ state >>> 15, 0x2c1b3c6d) + 0x9e3779b9 >>> 0
      return (state >>> 8) % bound
    }
    // Around as many bins as are looked through one by one, and fewer, and more.
    const names = Array.from({ length: 1 + below(30) }, (_, i) => `bin${i}`)
    const value = (): Plain => below(3) === 0 ? [below(100)] : below(100)
    const bins = new Map(names.filter(() => below(2) === 0).map(name => [name, value()]))
    const pick = (): string => names[below(names.length)]!
    const steps = Array.from({ length: below(60) }, (): Step => {
      const action = ['set', 'set', 'set', 'read', 'read', 'read', 'clear', 'count', 'update', 'update', 'create', 'remove'][below(12)]!
      return [action, pick(), action === 'set' ? value() : 0]
    })
    const model = new Model(bins)
    for (const step of steps) model.step(step)
    const result = module.call('f', [steps], { exists: bins.size > 0, bins: [...bins].map(([name, value]) => bin(name, value)) })
    const message = `seed ${seed}: ${result.message}`
    assert.equal(result.success, true, message)
    assert.deepEqual(result.value, model.seen, message)
    const after = new Map(bins)
    if (result.action === 2) after.clear()
    for (const { name, type, value } of result.bins) {
      if (type === 0) after.delete(name)
      else after.set(name, fromParticle(type, value))
    }
    assert.deepEqual(new Map([...after].sort()), new Map([...outcomeOf(model, bins)].sort()), message)
  }
})

function outcomeOf (model: Model, before: ReadonlyMap<string, Plain>): ReadonlyMap<string, Plain> {
  if (!model.exists) return new Map()
  return model.isWritten ? model.stored : before
}

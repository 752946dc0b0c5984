// A record as a script holds it, whether it was called with it (record-api.ts) or meets it in a stream (stream-record.ts).

import type { LuaState } from './fengari.js'
import { hiddenMetatable, HostObject } from './host-object.js'
import type { Task } from './lane.js'
import { luaString, pushTyped, STRING } from './lua.js'
import type { LuaMap } from './values.js'

const recordMetatable = hiddenMetatable('record', {
  __tostring: L => pushTyped(L, STRING, luaString(new Uint8Array(Buffer.from('record'))))
})

export const CLOSED_MESSAGE = 'the record of an earlier call'

export abstract class ScriptRecord extends HostObject {
  constructor () {
    super(recordMetatable)
  }

  get kind (): string {
    return 'record'
  }

  /** The bytes that it came in, valid until another record is asked for its own; raises when its call is over. */
  abstract task (L: LuaState): Task

  abstract get exists (): boolean

  /** Names of the stored bins. */
  abstract get names (): Uint8Array[]

  /** All bins that the script sees, as a map: how a record is returned to a client. Throws ValueError when its call is over. */
  abstract asMap (): LuaMap

  // What a script wants done; each returns its status, or raises.
  abstract create (L: LuaState): number
  abstract update (L: LuaState): number
  abstract remove (L: LuaState): number
  abstract setTtl (L: LuaState, seconds: number): void
  abstract dropKey (L: LuaState): void
}

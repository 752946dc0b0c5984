// What each record must be. A record has one request in flight at a time, so after an answer its version is known, and after a
// request that was not answered it is one of two.

/** A version number; 0 is a record that is not there. */
export type Version = number

export class Model {
  readonly #version: Uint32Array
  /** The last version that was sent, acknowledged or not: none is used twice. */
  readonly #sent: Uint32Array
  readonly #busy: Uint8Array
  /** Versions that a record may have because a request was not answered; the one before is among them. */
  readonly #open = new Map<number, Set<Version>>()
  /** When a record that was written with a time to live is gone, at the earliest and at the latest, in ms. */
  readonly #expiry = new Map<number, { from: number, to: number }>()

  constructor (readonly keys: number) {
    this.#version = new Uint32Array(keys)
    this.#sent = new Uint32Array(keys)
    this.#busy = new Uint8Array(keys)
  }

  /** Takes a record for a request; false if it has one. */
  take (key: number): boolean {
    if (this.#busy[key] === 1) return false
    this.#busy[key] = 1
    return true
  }

  give (key: number): void {
    this.#busy[key] = 0
  }

  version (key: number): Version {
    return this.#version[key]!
  }

  /** The version that the next write gives a record. */
  nextVersion (key: number): Version {
    return ++this.#sent[key]!
  }

  /** The change to `to` was acknowledged. */
  acknowledged (key: number, to: Version, expiry?: { from: number, to: number }): void {
    this.#version[key] = to
    this.#open.delete(key)
    if (expiry === undefined) this.#expiry.delete(key)
    else this.#expiry.set(key, expiry)
  }

  /** The change to `to` may have happened. */
  unanswered (key: number, to: Version): void {
    const open = this.#open.get(key) ?? new Set([this.version(key)])
    open.add(to)
    this.#open.set(key, open)
  }

  /** Why a record cannot be of this version, or undefined. What is seen settles what was open. */
  contradicts (key: number, seen: Version, sentAt: number, answeredAt: number): string | undefined {
    const expected = this.version(key)
    const open = this.#open.get(key)
    const expiry = this.#expiry.get(key)
    if (open?.has(seen) === true) {
      // An expiry belongs to the version that was acknowledged.
      if (seen !== expected) this.#expiry.delete(key)
      this.#version[key] = seen
      this.#open.delete(key)
      return undefined
    }
    if (expiry !== undefined && seen === 0 && answeredAt >= expiry.from) {
      this.acknowledged(key, 0)
      return undefined
    }
    if (expiry !== undefined && seen === expected && sentAt > expiry.to) return `record ${key} is there though it expired ${sentAt - expiry.to} ms ago`
    if (seen === expected) return undefined
    const wanted = open === undefined ? `${expected}` : [...open].join(' or ')
    return `record ${key} is of version ${seen}, not ${wanted} (0: not there)`
  }
}

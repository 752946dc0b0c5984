// Who owns which partition, put together from what each node says of itself (`replicas`): for each namespace a regime and one bitmap of 512 bytes a copy,
// the master's first. The latest word of a node replaces its earlier ones; between nodes the higher regime wins, then the later word.

import { Limit } from '../engine/constants.js'

const BITMAP_BYTES = Limit.PARTITIONS / 8
const COPIES_MAX = 256

/** An answer that is not a partition map. */
export class PartitionMapError extends Error {
  readonly code = 'PARTITION_MAP'
}

interface Ownership {
  readonly regimes: Uint32Array
  /** For each copy the owner of each partition. */
  readonly copies: Array<Array<string | undefined>>
}

interface Claim {
  readonly namespace: string
  readonly regime: number
  readonly bitmaps: readonly Buffer[]
}

export class PartitionMap {
  readonly #namespaces = new Map<string, Ownership>()

  /** Takes the answer of `node`: `ns:regime,copies,base64,...;ns2:...`. Throws {@link PartitionMapError} and stays as it was. */
  apply (node: string, answer: string): void {
    const claims = answer.split(';').filter((part) => part !== '').map(parseClaim)
    for (const namespace of this.#namespaces.keys()) {
      if (!claims.some((claim) => claim.namespace === namespace)) this.#release(node, namespace)
    }
    for (const claim of claims) this.#claim(node, claim)
  }

  /** Forgets what a node owned. */
  remove (node: string): void {
    for (const namespace of this.#namespaces.keys()) this.#release(node, namespace)
  }

  get namespaces (): string[] {
    return [...this.#namespaces.keys()]
  }

  /** The node that writes go to. */
  master (namespace: string, partition: number): string | undefined {
    return this.#namespaces.get(namespace)?.copies[0]?.[partition]
  }

  /** Every node with a copy, the master first. */
  owners (namespace: string, partition: number): string[] {
    const copies = this.#namespaces.get(namespace)?.copies ?? []
    return [...new Set(copies.map((owners) => owners[partition]).filter((owner) => owner !== undefined))]
  }

  owns (node: string): boolean {
    for (const { copies } of this.#namespaces.values()) {
      if (copies.some((owners) => owners.includes(node))) return true
    }
    return false
  }

  #claim (node: string, { namespace, regime, bitmaps }: Claim): void {
    let ownership = this.#namespaces.get(namespace)
    if (ownership === undefined) {
      ownership = { regimes: new Uint32Array(Limit.PARTITIONS), copies: [] }
      this.#namespaces.set(namespace, ownership)
    }
    const { regimes, copies } = ownership
    while (copies.length < bitmaps.length) copies.push(new Array<string | undefined>(Limit.PARTITIONS).fill(undefined))
    copies.forEach((owners, copy) => {
      const bitmap = bitmaps[copy]
      for (let partition = 0; partition < Limit.PARTITIONS; partition++) {
        const claimed = bitmap !== undefined && (bitmap[partition >> 3]! & (0x80 >> (partition & 7))) !== 0
        if (claimed && regime >= regimes[partition]!) {
          owners[partition] = node
          regimes[partition] = regime
        } else if (!claimed && owners[partition] === node) {
          owners[partition] = undefined
        }
      }
    })
  }

  #release (node: string, namespace: string): void {
    for (const owners of this.#namespaces.get(namespace)!.copies) {
      owners.forEach((owner, partition) => {
        if (owner === node) owners[partition] = undefined
      })
    }
  }
}

function parseClaim (part: string): Claim {
  const match = /^([^:]+):(\d+),(\d+)((?:,[A-Za-z0-9+/=]*)*)$/.exec(part)
  if (match === null) throw new PartitionMapError(`${JSON.stringify(part.slice(0, 80))} is not a partition map`)
  const bitmaps = match[4]!.split(',').slice(1).map((text) => Buffer.from(text, 'base64'))
  const wrong = bitmaps.find((bitmap) => bitmap.length !== BITMAP_BYTES)
  if (wrong !== undefined) throw new PartitionMapError(`a bitmap of ${wrong.length} bytes, not ${BITMAP_BYTES}, for ${match[1]}`)
  if (bitmaps.length > COPIES_MAX) throw new PartitionMapError(`${bitmaps.length} copies of ${match[1]}`)
  return { namespace: match[1]!, regime: Number(match[2]), bitmaps }
}

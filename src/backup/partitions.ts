// Which partitions a backup covers, as it is written on the command line.

import { Limit } from '../engine/constants.js'
import { DIGEST_BYTES, partitionOf } from '../client/digest.js'

/** Partitions, each with the digest to begin behind. */
export type PartitionCursors = Map<number, Buffer | undefined>

export class PartitionListError extends Error {
  readonly code = 'PARTITIONS'
}

export function allPartitions (): PartitionCursors {
  return new Map(Array.from({ length: Limit.PARTITIONS }, (_, partition) => [partition, undefined]))
}

/** `7`, `100-50` (50 partitions from 100 on), a digest in base64 (what follows it in its partition), separated by commas. Throws {@link PartitionListError}. */
export function parsePartitions (list: string): PartitionCursors {
  const cursors: PartitionCursors = new Map()
  for (const part of list.split(',')) {
    const range = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part)
    if (range === null) {
      const digest = parseDigest(part)
      cursors.set(partitionOf(digest), digest)
      continue
    }
    const begin = Number(range[1])
    const count = Number(range[2] ?? 1)
    if (count < 1 || begin + count > Limit.PARTITIONS) throw new PartitionListError(`${part}: partitions go from 0 to ${Limit.PARTITIONS - 1}, a range is BEGIN-COUNT`)
    for (let partition = begin; partition < begin + count; partition++) cursors.set(partition, undefined)
  }
  return cursors
}

/** The rest of a digest's partition, and all partitions above it. Throws {@link PartitionListError}. */
export function partitionsAfter (text: string): PartitionCursors {
  const digest = parseDigest(text)
  const cursors: PartitionCursors = new Map([[partitionOf(digest), digest]])
  for (let partition = partitionOf(digest) + 1; partition < Limit.PARTITIONS; partition++) cursors.set(partition, undefined)
  return cursors
}

function parseDigest (text: string): Buffer {
  const digest = Buffer.from(text, 'base64')
  if (digest.length !== DIGEST_BYTES || digest.toString('base64') !== text) throw new PartitionListError(`${JSON.stringify(text)} is neither a partition, nor a range BEGIN-COUNT, nor a digest in base64`)
  return digest
}

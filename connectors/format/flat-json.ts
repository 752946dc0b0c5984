// The flat layout: bins are the members of one object, and what is known about the record stands under "metadata".
//
//   write  {<bin>:<value>,...,"metadata":{"msg":"write","namespace","set"?,"userKey"?,"digest","gen","lut","exp"}}
//   delete {"metadata":{"msg":"delete","namespace","set"?,"userKey"?,"digest","gen","lut","durable"}}
//   key    {"namespace","set"?,"userKey"?,"digest"}
//
// A bin that is itself called "metadata" is written as "_metadata" (one more underscore while that is a bin too).

import type { Change } from '../change.js'
import type { Format } from './format.js'
import { base64Json, wireJson } from './json-text.js'

const METADATA_KEY = 'metadata'

export const flatJsonFormat: Format = {
  name: 'flat-json',

  key (change) {
    return `{${identityJson(change)}}`
  },

  value (change) {
    const members: string[] = []
    for (const bin of change.bins) members.push(`${JSON.stringify(memberName(bin.name, change))}:${wireJson(bin)}`)
    const rest = change.kind === 'delete' ? `"durable":${change.durable}` : `"exp":${change.expirySeconds}`
    members.push(`"${METADATA_KEY}":{"msg":"${change.kind}",${identityJson(change)},"gen":${change.generation},"lut":${change.lastUpdateMs},${rest}}`)
    return `{${members.join(',')}}`
  }
}

function identityJson (change: Change): string {
  const members = [`"namespace":${JSON.stringify(change.namespace)}`]
  if (change.set !== '') members.push(`"set":${JSON.stringify(change.set)}`)
  if (change.key !== undefined) members.push(`"userKey":${wireJson(change.key)}`)
  members.push(`"digest":${base64Json(change.digest)}`)
  return members.join(',')
}

function memberName (name: string, change: Change): string {
  if (name !== METADATA_KEY) return name
  let free = `_${name}`
  while (change.bins.some((bin) => bin.name === free)) free = `_${free}`
  return free
}

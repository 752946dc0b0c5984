// The typed layout: every bin says what it is.
//
//   write  {"msg":"write","key":[namespace,set,digest,userKey?],"gen":n,"exp":n,"lut":n,"bins":[{"name","type","value"},...]}
//   delete {"msg":"delete","key":[...],"gen":n,"lut":n,"durable":bool}
//   key    [namespace,set,digest,userKey?]
//
// set is null without one; digest is base64; exp is Unix seconds, 0 never; lut is Unix milliseconds. A bin of bytes has a
// "blob-type" as well.

import { ParticleType } from '../../src/engine/constants.js'
import type { Change, ChangeBin } from '../change.js'
import type { Format } from './format.js'
import { base64Json, wireJson } from './json-text.js'

const TYPE_NAMES: Readonly<Record<number, string>> = {
  [ParticleType.NULL]: 'null',
  [ParticleType.INTEGER]: 'int',
  [ParticleType.FLOAT]: 'float',
  [ParticleType.STRING]: 'str',
  [ParticleType.BOOL]: 'bool',
  [ParticleType.LIST]: 'list',
  [ParticleType.MAP]: 'map',
  [ParticleType.GEOJSON]: 'geojson'
}

const BLOB_TYPE_NAMES: Readonly<Record<number, string>> = {
  [ParticleType.BLOB]: 'generic',
  [ParticleType.JAVA_BLOB]: 'java',
  [ParticleType.CSHARP_BLOB]: 'csharp',
  [ParticleType.PYTHON_BLOB]: 'python',
  [ParticleType.RUBY_BLOB]: 'ruby',
  [ParticleType.PHP_BLOB]: 'php',
  [ParticleType.ERLANG_BLOB]: 'erlang',
  [ParticleType.VECTOR]: 'vector',
  [ParticleType.HLL]: 'hll'
}

export const jsonFormat: Format = {
  name: 'json',

  key: keyJson,

  value (change) {
    const key = keyJson(change)
    if (change.kind === 'delete') {
      return `{"msg":"delete","key":${key},"gen":${change.generation},"lut":${change.lastUpdateMs},"durable":${change.durable}}`
    }
    return `{"msg":"write","key":${key},"gen":${change.generation},"exp":${change.expirySeconds},"lut":${change.lastUpdateMs},` +
      `"bins":[${change.bins.map(binJson).join(',')}]}`
  }
}

function keyJson (change: Change): string {
  const parts = [JSON.stringify(change.namespace), change.set === '' ? 'null' : JSON.stringify(change.set), base64Json(change.digest)]
  if (change.key !== undefined) parts.push(wireJson(change.key))
  return `[${parts.join(',')}]`
}

function binJson (bin: ChangeBin): string {
  const type = TYPE_NAMES[bin.type]
  const typeJson = type === undefined ? `"blob","blob-type":"${BLOB_TYPE_NAMES[bin.type] ?? 'unknown'}"` : `"${type}"`
  return `{"name":${JSON.stringify(bin.name)},"type":${typeJson},"value":${wireJson(bin)}}`
}

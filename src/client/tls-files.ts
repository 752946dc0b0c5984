// The files that TLS is spoken with, read and checked together.

import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { createSecureContext } from 'node:tls'
import { reasonOf, type TlsOptions } from './transport.js'

export interface TlsFiles {
  /** Authorities: a file in PEM, */
  readonly caFile?: string | undefined
  /** or a directory of such files. */
  readonly caPath?: string | undefined
  readonly certFile?: string | undefined
  readonly keyFile?: string | undefined
}

/** A file that cannot be used. The message names it. */
export class TlsFileError extends Error {
  readonly code = 'TLS_FILE'
}

/** Throws {@link TlsFileError}. */
export function readTlsFiles ({ caFile, caPath, certFile, keyFile }: TlsFiles, name?: string): TlsOptions {
  const ca = [...(caFile === undefined ? [] : [pem(caFile)]), ...(caPath === undefined ? [] : directory(caPath))]
  const options = {
    ...(ca.length === 0 ? {} : { ca }),
    ...(certFile === undefined ? {} : { cert: pem(certFile) }),
    ...(keyFile === undefined ? {} : { key: pem(keyFile) })
  }
  try {
    createSecureContext(options)
  } catch (error) {
    const files = [caFile, caPath, certFile, keyFile].filter((file) => file !== undefined).join(', ')
    throw new TlsFileError(`${files}: cannot be used: ${reasonOf(error as Error)}`)
  }
  return { ...options, name }
}

function directory (path: string): Buffer[] {
  try {
    const entries = readdirSync(path, { withFileTypes: true }).filter((entry) => !entry.isDirectory())
    return entries.map((entry) => pem(join(path, entry.name)))
  } catch (error) {
    throw error instanceof TlsFileError ? error : unreadable(path, error)
  }
}

function pem (file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (error) {
    throw unreadable(file, error)
  }
}

function unreadable (path: string, error: unknown): TlsFileError {
  return new TlsFileError(`${path}: cannot be read (${(error as NodeJS.ErrnoException).code ?? String(error)})`)
}

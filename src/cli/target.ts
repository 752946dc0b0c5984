// Which node a command speaks to.

import { Client } from '../client/client.js'
import { infoError, infoOnce } from '../client/info.js'
import { parseEndpoint, type Endpoint } from '../client/peers.js'
import { readTlsFiles } from '../client/tls-files.js'
import type { TlsOptions } from '../client/transport.js'
import { CommandError, UsageError } from './io.js'

/** Options that every command with a node has, as commander hands them over. */
export interface TargetOptions {
  readonly host: string
  readonly port: string
  readonly timeout: string
  readonly json?: boolean
  readonly tls?: boolean
  readonly tlsName?: string
  readonly tlsCaFile?: string
  readonly tlsCertFile?: string
  readonly tlsKeyFile?: string
}

export function endpointOf ({ host, port }: TargetOptions): Endpoint {
  const number = Number(port)
  if (!/^\d+$/.test(port) || number < 1 || number > 65_535) throw new UsageError(`${JSON.stringify(port)} is not a port; allowed: 1 to 65535`)
  try {
    return parseEndpoint(host, number)
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

export function timeoutOf ({ timeout }: TargetOptions): number {
  const ms = Number(timeout)
  if (!/^\d+$/.test(timeout) || ms < 1 || ms > 3_600_000) throw new UsageError(`${JSON.stringify(timeout)} is not a time-out; allowed: 1 to 3600000 milliseconds`)
  return ms
}

/** How to speak TLS, if that is asked for. Throws a `TlsFileError` for files that cannot be used. */
export function tlsOf ({ tls, tlsName, tlsCaFile: caFile, tlsCertFile: certFile, tlsKeyFile: keyFile }: TargetOptions): TlsOptions | undefined {
  if (tls !== true) {
    if ([tlsName, caFile, certFile, keyFile].some((option) => option !== undefined)) throw new UsageError('options of TLS are given without --tls')
    return undefined
  }
  if ((certFile === undefined) !== (keyFile === undefined)) throw new UsageError('--tls-cert-file and --tls-key-file go together')
  return readTlsFiles({ caFile, certFile, keyFile }, tlsName)
}

/** The answer of the node to one command. Throws {@link CommandError} when it is an error. */
export async function askInfo (options: TargetOptions, command: string): Promise<string> {
  const [value] = await askInfos(options, [command])
  return value!
}

/** The answers to several commands, in order, asked at once. */
export async function askInfos (options: TargetOptions, commands: readonly string[]): Promise<string[]> {
  const values = await rawInfos(options, commands)
  return commands.map((command, i) => checked(command, values[i]))
}

/** As `askInfos`, whatever the answers are; undefined where there is none. */
export async function rawInfos (options: TargetOptions, commands: readonly string[]): Promise<Array<string | undefined>> {
  const timeoutMs = timeoutOf(options)
  const values = await infoOnce({ ...endpointOf(options), tls: tlsOf(options), connectTimeoutMs: timeoutMs }, commands, timeoutMs)
  return commands.map((command) => values.get(command))
}

export function checked (command: string, value: string | undefined): string {
  if (value === undefined) throw new CommandError(`${command}: the node did not answer it`)
  const error = infoError(command, value)
  if (error !== undefined) throw new CommandError(`${command.split(/[:/]/)[0]}: ${error.message}`)
  return value
}

/** Runs `use` with a client of the whole cluster. */
export async function withClient<T> (options: TargetOptions, use: (client: Client) => Promise<T>, { connectionsMax = 1 } = {}): Promise<T> {
  const timeoutMs = timeoutOf(options)
  const client = await Client.connect({ hosts: [endpointOf(options)], tls: tlsOf(options), timeoutMs, connectTimeoutMs: timeoutMs, connectionsMax })
  try {
    return await use(client)
  } finally {
    await client.close()
  }
}

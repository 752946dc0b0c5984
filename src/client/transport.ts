// How bytes get to a node: TCP, or TLS over it.

import { connect, isIP, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'

/** How to speak TLS. Certificates and keys are in PEM. */
export interface TlsOptions {
  /** Authorities that a node's certificate is checked against; absent, those that Node.js knows. */
  readonly ca?: string | Buffer | Buffer[] | undefined
  /** Shown to nodes that ask for a certificate. */
  readonly cert?: string | Buffer | undefined
  readonly key?: string | Buffer | undefined
  /** Name that a node's certificate has to carry, where peers do not say another; absent, the host that is connected to. */
  readonly name?: string | undefined
}

export interface Target {
  readonly host: string
  readonly port: number
  /** Absent: without TLS. */
  readonly tls?: TlsOptions | undefined
}

/** A socket under way to a node. `ready` is the event after which requests may be sent. Throws when a certificate or a key cannot be used. */
export function openSocket ({ host, port, tls }: Target): { socket: Socket, ready: 'connect' | 'secureConnect' } {
  if (tls === undefined) return { socket: connect({ host, port, noDelay: true, keepAlive: true }), ready: 'connect' }
  const { ca, cert, key } = tls
  // An address cannot be the name by which a server chooses its certificate.
  const servername = tls.name ?? (isIP(host) === 0 ? host : undefined)
  const socket = connectTls({
    host,
    port,
    minVersion: 'TLSv1.2',
    ...(servername === undefined ? {} : { servername }),
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key })
  })
  socket.setNoDelay(true).setKeepAlive(true)
  return { socket, ready: 'secureConnect' }
}

/** Codes of OpenSSL's own errors, and those of Node.js about a certificate that it does not accept. */
const OPENSSL_CODE = /^ERR_O?SSL_/
const CERTIFICATE_CODE = /^ERR_TLS_|CERT|SIGNATURE|HOSTNAME|PATH_LENGTH|INVALID_(CA|PURPOSE)/

/** Whether a socket failed since one side does not accept what the other has to show, or how it speaks TLS. */
export function isTlsRefusal (error: Error): boolean {
  const { code = '' } = error as NodeJS.ErrnoException
  return OPENSSL_CODE.test(code) || CERTIFICATE_CODE.test(code)
}

/** Alerts and handshakes of TLS, to somebody who did not expect any. */
export function isTlsRecord (bytes: Buffer): boolean {
  const [type = 0, version] = bytes
  return type >= 20 && type <= 23 && version === 3
}

/** Why a socket failed, in words. */
export function reasonOf (error: Error): string {
  const { code = '', reason } = error as NodeJS.ErrnoException & { reason?: string }
  if (OPENSSL_CODE.test(code)) return `TLS: ${reason ?? error.message}`
  if (CERTIFICATE_CODE.test(code)) return `TLS: ${error.message}`
  // Node.js has no code of its own for it.
  if (error.message.includes('before secure TLS connection')) return 'closed by the other side before TLS began; is it a port without TLS?'
  switch (code) {
    case 'ECONNREFUSED': return 'nothing listens there'
    case 'ENOTFOUND': return 'there is no such host'
    case 'ECONNRESET': case 'EPIPE': return 'closed by the other side'
    default: return code === '' ? error.message : code
  }
}

// Certificates for tests, made by the openssl command as a user would make them (docs/guides/tls.md).
import { spawnSync } from 'node:child_process'
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Why certificates cannot be made here; false if they can. */
export const noOpenssl: string | false = spawnSync('openssl', ['version'], { stdio: 'ignore' }).status === 0 ? false : 'the openssl command is not installed'

const DAYS = '90'
const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']

function openssl (directory: string, args: string[]): void {
  const { status, stderr } = spawnSync('openssl', args, { cwd: directory, encoding: 'utf8' })
  if (status !== 0) throw new Error(`openssl ${args.join(' ')}: ${stderr}`)
}

/** An authority in a directory: `NAME.pem` and `NAME-key.pem`. */
export class Authority {
  readonly #directory: string
  readonly #name: string

  constructor (directory: string, name: string) {
    this.#directory = directory
    this.#name = name
    openssl(directory, ['req', '-x509', ...NEW_KEY, '-keyout', `${name}-key.pem`, '-out', `${name}.pem`, '-days', DAYS, '-subj', `/CN=${name}`])
  }

  get file (): string {
    return join(this.#directory, `${this.#name}.pem`)
  }

  get pem (): Buffer {
    return readFileSync(this.file)
  }

  /** A certificate of this authority as `FILE.pem` and `FILE-key.pem`; takes the place of what is there. */
  issue (file: string, commonName: string): { certFile: string, keyFile: string, cert: Buffer, key: Buffer } {
    const [certFile, keyFile] = [join(this.#directory, `${file}.pem`), join(this.#directory, `${file}-key.pem`)]
    writeFileSync(join(this.#directory, 'extensions'), `subjectAltName=DNS:${commonName}\n`)
    openssl(this.#directory, ['req', '-new', ...NEW_KEY, '-keyout', 'new-key.pem', '-out', 'new.csr', '-subj', `/CN=${commonName}`])
    openssl(this.#directory, ['x509', '-req', '-in', 'new.csr', '-CA', `${this.#name}.pem`, '-CAkey', `${this.#name}-key.pem`, '-CAcreateserial',
      '-days', DAYS, '-extfile', 'extensions', '-out', 'new.pem'])
    renameSync(join(this.#directory, 'new-key.pem'), keyFile)
    renameSync(join(this.#directory, 'new.pem'), certFile)
    return { certFile, keyFile, cert: readFileSync(certFile), key: readFileSync(keyFile) }
  }
}

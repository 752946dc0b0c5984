// Free loopback ports. They are taken below the range that the system hands to outgoing connections (32768 and up on
// Linux), so that a node which is down for a while does not lose its port to some client's socket.
import { createServer, type Server } from 'node:net'

const PORT_MIN = 20_000
const PORT_MAX = 32_000
const ATTEMPTS_MAX = 200

const handedOut = new Set<number>()

function listen (port: number): Promise<Server | null> {
  return new Promise(resolve => {
    const server = createServer()
    server.once('error', () => { resolve(null) })
    server.listen({ host: '127.0.0.1', port, exclusive: true }, () => { resolve(server) })
  })
}

/** A port nobody listens on at 127.0.0.1; never the same one twice in a process. */
export async function freePort (): Promise<number> {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const port = PORT_MIN + Math.floor(Math.random() * (PORT_MAX - PORT_MIN))
    if (handedOut.has(port)) continue
    const server = await listen(port)
    if (server === null) continue
    await new Promise<void>(resolve => server.close(() => { resolve() }))
    handedOut.add(port)
    return port
  }
  throw new Error(`no free port between ${PORT_MIN} and ${PORT_MAX} after ${ATTEMPTS_MAX} attempts`)
}

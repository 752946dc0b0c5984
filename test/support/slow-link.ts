// A link over which everything takes longer: a relay on a loopback port in front of a server.
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

export interface SlowLink {
  readonly port: number
  close (): Promise<void>
}

/** Opens the link to a loopback port. What the server sends arrives `delayMs` later; order and ends are kept. */
export async function openSlowLink (toPort: number, delayMs: number): Promise<SlowLink> {
  const sockets = new Set<Socket>()
  const keep = (socket: Socket): Socket => {
    sockets.add(socket)
    // Ends with an error where the other side went without a word; its peer is told by the end below.
    return socket.setNoDelay(true).on('error', () => {}).once('close', () => sockets.delete(socket))
  }
  const server = createServer({ allowHalfOpen: true }, accepted => {
    const client = keep(accepted)
    const upstream = keep(connect({ host: '127.0.0.1', port: toPort, allowHalfOpen: true }))
    client.pipe(upstream)
    upstream.on('data', bytes => { setTimeout(() => { client.write(bytes) }, delayMs) })
    upstream.once('end', () => { setTimeout(() => { client.end() }, delayMs) })
    client.once('close', () => { upstream.destroy() })
    upstream.once('close', () => { setTimeout(() => { client.destroy() }, 2 * delayMs) })
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  return {
    port: (server.address() as AddressInfo).port,
    async close () {
      for (const socket of sockets) socket.destroy()
      await new Promise<void>(resolve => { server.close(() => { resolve() }) })
    }
  }
}

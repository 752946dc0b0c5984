// An answer of many frames, on a connection of its own: read no faster than the caller takes them.

import { ResultCode } from '../engine/constants.js'
import { ClientCode, RecordError } from './errors.js'
import { FrameReader } from './frame-reader.js'
import { openSocket, reasonOf, type Target } from './transport.js'

export interface Exchange extends Target {
  readonly connectTimeoutMs: number
  /** How long the other side may be silent, once connected. */
  readonly socketTimeoutMs: number
  readonly signal?: AbortSignal | undefined
}

/** The frames of an answer, until the other side closes or the caller has enough. Nothing is read ahead but what the socket holds. */
export async function * answerFrames (to: Exchange, request: Buffer): AsyncGenerator<Buffer, void> {
  const { host, port, signal } = to
  const { socket, ready } = openSocket(to)
  const fail = (result: number, reason: string): void => { socket.destroy(new RecordError(result, `${host}:${port}: ${reason}`, false)) }
  const abort = (): void => fail(ClientCode.ABORTED, 'the request was ended')
  signal?.addEventListener('abort', abort, { once: true })
  let timer = setTimeout(() => fail(ClientCode.CONNECTION, `no connection within ${to.connectTimeoutMs} ms`), to.connectTimeoutMs)
  try {
    if (signal?.aborted === true) abort()
    socket.write(request)
    socket.once(ready, () => {
      clearTimeout(timer)
      timer = setTimeout(() => fail(ResultCode.TIMEOUT, `silent for ${to.socketTimeoutMs} ms`), to.socketTimeoutMs)
    })
    const reader = new FrameReader()
    for await (const chunk of socket as AsyncIterable<Buffer>) {
      // It runs only while we wait: a slow caller is no silence.
      clearTimeout(timer)
      yield * reader.push(chunk)
      timer = setTimeout(() => fail(ResultCode.TIMEOUT, `silent for ${to.socketTimeoutMs} ms`), to.socketTimeoutMs)
    }
  } catch (error) {
    if (error instanceof RecordError) throw error
    throw new RecordError(ClientCode.CONNECTION, `${host}:${port}: ${reasonOf(error as Error)}`, false)
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
    socket.on('error', () => {})
    socket.destroy()
  }
}

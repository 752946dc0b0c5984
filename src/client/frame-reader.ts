// Cuts a stream of bytes into frames.

import { PROTO_HEADER_BYTES } from '../engine/constants.js'
import { frameBytes } from './message.js'

export class FrameReader {
  /** Received and not yet part of a returned frame, in order. */
  readonly #chunks: Buffer[] = []
  #held = 0
  /** Length of the frame that the chunks begin with; 0 until its header is here. */
  #wanted = 0

  /** Takes a chunk and returns the frames that are now complete. Throws FrameError when the stream cannot be one of frames. */
  push (chunk: Buffer): Buffer[] {
    const frames: Buffer[] = []
    this.#chunks.push(chunk)
    this.#held += chunk.length
    for (;;) {
      if (this.#wanted === 0) {
        if (this.#held < PROTO_HEADER_BYTES) break
        this.#wanted = frameBytes(this.#front(PROTO_HEADER_BYTES), 0)
      }
      if (this.#held < this.#wanted) break
      const front = this.#front(this.#wanted)
      frames.push(front.subarray(0, this.#wanted))
      this.#chunks[0] = front.subarray(this.#wanted)
      this.#held -= this.#wanted
      this.#wanted = 0
    }
    return frames
  }

  // A large frame's chunks are joined once, when all are here; joining at each arrival would be quadratic.
  #front (bytes: number): Buffer {
    if (this.#chunks[0]!.length < bytes) this.#chunks.splice(0, this.#chunks.length, Buffer.concat(this.#chunks))
    return this.#chunks[0]!
  }
}

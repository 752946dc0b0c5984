import type { NativeNode } from '../engine/native.js'

/**
 * The part of the native side that ships changes: queues, versions, last-ship times. Layouts are in docs/ARCHITECTURE.md, "XDR batches"; `batch.ts`
 * reads and writes them. `MemoryNative` (testing/memory-native.ts) is its in-process sibling for tests.
 */
export type XdrNative = Pick<NativeNode, 'xdrTake' | 'xdrConfirm' | 'xdrStats' | 'xdrShipTimes' | 'xdrSetShipTimes'>

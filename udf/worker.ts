// Entry of a worker thread: loads the add-on into it and runs the loop.

import { pathToFileURL } from 'node:url'
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import type { UdfExchange } from './native.js'
import type { FromWorker, ToWorker, WorkerData } from './protocol.js'
import { WorkerLoop } from './worker-loop.js'

const JAVASCRIPT = /\.[cm]?js$/

async function loadExchange (addonPath: string): Promise<UdfExchange> {
  // A JavaScript stand-in serves tests of the host; an add-on is loaded by path, whatever its extension.
  if (JAVASCRIPT.test(addonPath)) return ((await import(pathToFileURL(addonPath).href)) as { udfExchange: UdfExchange }).udfExchange
  const module = { exports: {} as { udfExchange: UdfExchange } }
  process.dlopen(module, addonPath)
  return module.exports.udfExchange
}

const port = parentPort
if (port === null) throw new Error('udf/worker.js runs as a worker thread only')
const data = workerData as WorkerData
const exchange = await loadExchange(data.addonPath)
new WorkerLoop({
  data,
  exchange,
  receive: () => receiveMessageOnPort(port)?.message as ToWorker | undefined,
  post: (message: FromWorker) => { port.postMessage(message) }
}).run()

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { KeptLog } from '../../src/xdr/testing/rig.js'
import { KafkaConnector, place } from './producer.js'

test('a message keeps its partition when partitions are added while it is repeated', () => {
  const message = { hash: 7, partition: -1 }
  assert.equal(place(message, 4), 3)
  assert.equal(place(message, 8), 3)
  assert.equal(place({ hash: 7, partition: -1 }, 8), 7)
  assert.equal(place(message, 2), 1, 'a topic made anew with fewer')
})

test('kafkajs accepts how seldom it may repeat, for every acks', async () => {
  for (const acks of [-1, 1, 0] as const) {
    const kept = new KeptLog()
    // Nobody listens on port 1.
    const kafka = new KafkaConnector({ brokers: ['127.0.0.1:1'], topic: 't', format: 'json', 'client-id': 'perigee', acks, compression: 'none', 'request-timeout-ms': 1000, ssl: false }, kept.log)
    const opened = assert.rejects(kafka.open(), /closed before/)
    while (!kept.has('cannot connect')) await new Promise((resolve) => setTimeout(resolve, 5))
    const line = kept.lines.find(({ message }) => message.includes('cannot connect'))!
    assert.match(String(line.fields.reason), /Connection/, JSON.stringify(line.fields))
    await kafka.close()
    await opened
  }
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import kafkajs from 'kafkajs'
import { classify } from './errors.js'

function protocolError (type: string): Error {
  return Object.assign(new Error(`broker says ${type}`), { name: 'KafkaJSProtocolError', type })
}

test('each broker error has its remedy', () => {
  const remedies = { MESSAGE_TOO_LARGE: 'split', INVALID_RECORD: 'split', OUT_OF_ORDER_SEQUENCE_NUMBER: 'renew', NOT_LEADER_FOR_PARTITION: 'retry', UNKNOWN_TOPIC_OR_PARTITION: 'retry', SOMETHING_NEW: 'retry' }
  for (const [type, remedy] of Object.entries(remedies)) assert.equal(classify(protocolError(type)).remedy, remedy, type)
})

test('what is wrong with the site gives up no change', () => {
  // An access list that was wrong for half a minute once discarded every change of that time.
  const types = ['TOPIC_AUTHORIZATION_FAILED', 'CLUSTER_AUTHORIZATION_FAILED', 'INVALID_TOPIC_EXCEPTION', 'POLICY_VIOLATION', 'INVALID_TIMESTAMP', 'SASL_AUTHENTICATION_FAILED']
  for (const type of types) assert.equal(classify(protocolError(type)).remedy, 'retry', type)
})

test('the broker error is found under what kafkajs wraps around it', () => {
  const wrapped = Object.assign(new kafkajs.KafkaJSNonRetriableError('gave up'), { cause: new Error('between', { cause: protocolError('MESSAGE_TOO_LARGE') }) })
  assert.deepEqual(classify(wrapped), { remedy: 'split', reason: 'MESSAGE_TOO_LARGE', message: 'broker says MESSAGE_TOO_LARGE' })
})

test('a connection error, an error of unknown kind and a cycle of causes are retried', () => {
  const cycle = new Error('round')
  cycle.cause = cycle
  for (const error of [new kafkajs.KafkaJSConnectionError('refused'), cycle, 'text', undefined]) assert.equal(classify(error).remedy, 'retry')
})

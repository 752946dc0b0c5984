import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TokenBucket } from './token-bucket.js'

test('a bucket allows its rate on average and one burst on top', () => {
  const bucket = new TokenBucket(1000, 200, 0)
  let spent = 0
  for (let now = 0; now <= 10_000; now += 7) {
    const tokens = bucket.available(now)
    bucket.spend(tokens)
    spent += tokens
  }
  assert.ok(spent <= 10_200 && spent > 10_150, String(spent))
})

test('a clock that steps back takes no tokens away', () => {
  const bucket = new TokenBucket(1000, 200, 10_000)
  bucket.spend(bucket.available(10_000))
  assert.equal(bucket.available(10_050), 50)
  assert.equal(bucket.available(5000), 50)
  assert.equal(bucket.available(5010), 60)
})

test('a slow bucket still lets one through in time', () => {
  const bucket = new TokenBucket(1, 2, 0)
  assert.equal(bucket.available(0), 1)
  bucket.spend(1)
  assert.equal(bucket.available(999), 0)
  assert.equal(bucket.available(1000), 1)
})

local START = 1700000000000

local function take(rec, wanted)
  return test.apply(rec, 'rate_limiter', 'take', 3, 0.5, wanted)
end

function test_a_burst_of_the_capacity_passes_and_the_next_request_does_not()
  test.time(START)
  local rec = test.record{ key = 'user-7', set = 'limits' }
  for left = 2, 0, -1 do test.equal(take(rec), { allowed = true, left = left, retry_ms = 0 }) end
  test.equal(take(rec), { allowed = false, left = 0, retry_ms = 2000 })
end

function test_tokens_come_back_with_time_and_never_above_the_capacity()
  test.time(START)
  local rec = test.record()
  for _ = 1, 3 do take(rec) end
  test.advance(1000)
  test.equal(take(rec), { allowed = false, left = 0, retry_ms = 1000 })
  test.advance(1000)
  assert(take(rec).allowed)
  test.advance(3600 * 1000)
  test.equal(test.apply(rec, 'rate_limiter', 'peek', 3, 0.5), 3)
end

function test_a_refused_request_writes_nothing()
  test.time(START)
  local rec = test.record()
  for _ = 1, 3 do take(rec) end
  local generation = rec.generation
  take(rec)
  test.equal(rec.generation, generation)
end

function test_the_record_goes_when_the_bucket_is_full_again()
  test.time(START)
  local rec = test.record()
  take(rec, 3)
  test.equal(rec.ttl, 7)
  test.advance(7000)
  assert(not rec.exists)
  test.equal(take(rec).left, 2)
end

function test_a_clock_that_goes_back_takes_nothing_away()
  test.time(START)
  local rec = test.record()
  take(rec)
  test.advance(-5000)
  test.equal(take(rec), { allowed = true, left = 1, retry_ms = 0 })
end

function test_what_makes_no_sense_is_refused()
  local rec = test.record()
  local message = test.fails(rec, 'rate_limiter', 'take', 3, 0.5, 4)
  assert(message:find('could never be allowed', 1, true), message)
  message = test.fails(rec, 'rate_limiter', 'take', 0, 1)
  assert(message:find('capacity must be a number above 0', 1, true), message)
  message = test.fails(rec, 'rate_limiter', 'take', 3, 'fast')
  assert(message:find('per_second must be a number above 0', 1, true), message)
end

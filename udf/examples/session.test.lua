local function opened(idle, longest)
  test.time(1700000000000)
  local rec = test.record{ key = '5f1c', set = 'sessions' }
  test.equal(test.apply(rec, 'session', 'open', 'ada', idle, longest), idle)
  return rec
end

function test_use_pushes_the_end_out()
  local rec = opened(60, 3600)
  test.advance(50000)
  test.equal(test.apply(rec, 'session', 'use'), { user = 'ada', data = {}, left = 60 })
  test.advance(59000)
  test.equal(test.apply(rec, 'session', 'use').left, 60)
  test.equal(rec.ttl, 60)
end

function test_a_session_that_is_not_used_ends()
  local rec = opened(60, 3600)
  test.advance(60000)
  test.equal(test.apply(rec, 'session', 'use'), nil)
  assert(not rec.exists)
end

function test_use_does_not_push_the_fixed_end_out()
  local rec = opened(60, 100)
  test.advance(55000)
  test.equal(test.apply(rec, 'session', 'use').left, 45)
  test.advance(45000)
  test.equal(test.apply(rec, 'session', 'use'), nil)
end

function test_data_is_kept_and_removed()
  local rec = opened(60, 3600)
  test.equal(test.apply(rec, 'session', 'keep', 'cart', list{ 'book', 'pen' }), true)
  test.equal(test.apply(rec, 'session', 'keep', 'theme', 'dark'), true)
  test.equal(rec.bins.data, { cart = { 'book', 'pen' }, theme = 'dark' })
  test.apply(rec, 'session', 'keep', 'theme', nil)
  test.equal(test.apply(rec, 'session', 'use').data, { cart = { 'book', 'pen' } })
end

function test_without_a_session_nothing_is_kept()
  local rec = test.record{ key = 'gone' }
  test.equal(test.apply(rec, 'session', 'keep', 'theme', 'dark'), false)
  test.equal(test.apply(rec, 'session', 'close'), false)
  assert(not rec.exists)
end

function test_close_ends_it_and_the_id_can_be_used_again()
  local rec = opened(60, 3600)
  local message = test.fails(rec, 'session', 'open', 'eve', 60, 3600)
  assert(message:find('there already', 1, true), message)
  test.equal(test.apply(rec, 'session', 'close'), true)
  test.equal(test.apply(rec, 'session', 'open', 'ada', 60, 60), 60)
end

function test_times_that_make_no_sense_are_refused()
  local message = test.fails(test.record(), 'session', 'open', 'ada', 60, 30)
  assert(message:find('longest is not below idle', 1, true), message)
  test.fails(test.record(), 'session', 'open', 'ada', 0.5, 30)
end

local MINUTE, HOUR = 60000, 3600000

local function card()
  -- The beginning of an hour, so that steps of time are steps of slots.
  test.time(1700000000000 // HOUR * HOUR)
  return test.record{ key = 'card-4711', set = 'cards' }
end

local function pay(rec, cents)
  return test.apply(rec, 'fraud_counters', 'pay', cents)
end

function test_payments_are_counted_in_all_windows()
  local rec = card()
  pay(rec, 1000)
  test.equal(pay(rec, 500), { minute = { count = 2, sum = 1500 }, hour = { count = 2, sum = 1500 }, day = { count = 2, sum = 1500 } })
  test.advance(MINUTE)
  test.equal(pay(rec, 1), { minute = { count = 1, sum = 1 }, hour = { count = 3, sum = 1501 }, day = { count = 3, sum = 1501 } })
  test.advance(HOUR)
  test.equal(test.apply(rec, 'fraud_counters', 'look'), { minute = { count = 0, sum = 0 }, hour = { count = 0, sum = 0 }, day = { count = 3, sum = 1501 } })
end

function test_many_payments_in_a_minute_are_suspicious()
  local rec = card()
  for _ = 1, 3 do test.equal(pay(rec, 100).suspicious, nil) end
  test.equal(pay(rec, 100).suspicious, 'count of the minute is above 3')
  test.advance(MINUTE)
  test.equal(pay(rec, 100).suspicious, nil)
end

function test_large_sums_are_suspicious_in_each_window()
  test.equal(pay(card(), 100001).suspicious, 'sum of the minute is above 100000')
  local last
  local rec = card()
  for _ = 1, 4 do
    last = pay(rec, 90000).suspicious
    test.advance(2 * MINUTE)
  end
  test.equal(last, 'sum of the hour is above 300000')
  rec = card()
  for _ = 1, 6 do
    last = pay(rec, 90000).suspicious
    test.advance(HOUR)
  end
  test.equal(last, 'sum of the day is above 500000')
end

function test_old_slots_are_dropped()
  local rec = card()
  for _ = 1, 200 do
    pay(rec, 1)
    test.advance(MINUTE)
  end
  assert(map.size(rec.bins.minutes) <= 60, 'slots of minutes: ' .. map.size(rec.bins.minutes))
  for _ = 1, 30 do
    test.advance(HOUR)
    pay(rec, 1)
  end
  assert(map.size(rec.bins.hours) <= 24, 'slots of hours: ' .. map.size(rec.bins.hours))
end

function test_a_card_is_forgotten_after_a_day()
  local rec = card()
  pay(rec, 1)
  test.equal(rec.ttl, 86400)
  test.advance(24 * HOUR)
  assert(not rec.exists)
end

function test_what_is_no_payment_is_refused()
  test.fails(card(), 'fraud_counters', 'pay', 0)
  test.fails(card(), 'fraud_counters', 'pay', 9.99)
end

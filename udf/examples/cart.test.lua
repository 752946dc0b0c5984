function test_articles_add_up()
  local rec = test.record{ key = 'ada', set = 'carts' }
  test.equal(test.apply(rec, 'cart', 'add', 'book', 1, 1999), 1999)
  test.equal(test.apply(rec, 'cart', 'add', 'pen', 3, 150), 2449)
  test.equal(test.apply(rec, 'cart', 'add', 'pen', 1, 140), 1999 + 4 * 140)
  test.equal(rec.bins.items, { book = { quantity = 1, price = 1999 }, pen = { quantity = 4, price = 140 } })
  test.equal(test.apply(rec, 'cart', 'drop', 'book'), 560)
  test.equal(test.apply(rec, 'cart', 'total'), 560)
end

function test_a_guests_cart_is_merged()
  local guest = test.record{ bins = { items = map{ pen = map{ quantity = 2, price = 160 }, ink = map{ quantity = 1, price = 700 } } } }
  local user = test.record{ bins = { items = map{ pen = map{ quantity = 1, price = 150 } } } }
  test.equal(test.apply(user, 'cart', 'merge', guest.bins.items, 'guest-77'), 3 * 160 + 700)
  test.equal(user.bins.items, { pen = { quantity = 3, price = 160 }, ink = { quantity = 1, price = 700 } })
end

function test_a_merge_that_is_sent_twice_counts_once()
  local user = test.record()
  local items = map{ pen = map{ quantity = 2, price = 100 } }
  test.equal(test.apply(user, 'cart', 'merge', items, 'guest-1'), 200)
  test.equal(test.apply(user, 'cart', 'merge', items, 'guest-1'), 200)
  test.equal(test.apply(user, 'cart', 'merge', items, 'guest-2'), 400)
  for i = 3, 20 do test.apply(user, 'cart', 'merge', map(), 'guest-' .. i) end
  test.equal(list.size(user.bins.merged), 8)
end

function test_quantities_have_a_limit()
  local rec = test.record()
  test.apply(rec, 'cart', 'add', 'pen', 60, 1)
  test.equal(test.apply(rec, 'cart', 'add', 'pen', 60, 1), 99)
end

function test_a_cart_has_a_limit_and_a_failed_merge_changes_nothing()
  local rec = test.record{ bins = { items = map{ pen = map{ quantity = 1, price = 5 } } } }
  local many = map()
  for i = 1, 200 do many['article-' .. i] = map{ quantity = 1, price = 1 } end
  local message = test.fails(rec, 'cart', 'merge', many, 'guest-1')
  assert(message:find('at most 200 articles', 1, true), message)
  test.equal(rec.bins, { items = { pen = { quantity = 1, price = 5 } } })
end

function test_what_makes_no_sense_is_refused()
  test.fails(test.record(), 'cart', 'add', 'pen', 0, 1)
  test.fails(test.record(), 'cart', 'add', 'pen', 1.5, 1)
  test.fails(test.record(), 'cart', 'add', 'pen', 1, 1.99)
  test.equal(test.apply(test.record(), 'cart', 'total'), 0)
end

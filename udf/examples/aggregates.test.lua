local function people()
  local records = {}
  for i, person in ipairs{ { 'Zürich', 20 }, { 'Bern', 30 }, { 'Zürich', 40 }, { 'Basel', 50 }, { 'Bern', 60 }, { 'Zürich', 70 }, { 'Basel', nil } } do
    records[i] = test.record{ key = i, set = 'people', bins = { city = person[1], age = person[2] } }
  end
  return records
end

local function aggregate(name, ...)
  return test.aggregate(people(), 'aggregates', name, ...)
end

function test_count_and_sum()
  test.equal(aggregate('count', 'city'), { 7 })
  test.equal(aggregate('count', 'age'), { 6 })
  test.equal(aggregate('sum', 'age'), { 270 })
end

function test_the_average_is_that_of_all_and_not_of_the_parts()
  test.equal(aggregate('average', 'age'), { 45.0 })
end

function test_range()
  test.equal(aggregate('range', 'age'), { { least = 20, greatest = 70 } })
end

function test_groups()
  test.equal(aggregate('group_by', 'city', 'age'), {
    { ['Zürich'] = { count = 3, sum = 130 }, Bern = { count = 2, sum = 90 }, Basel = { count = 1, sum = 50 } }
  })
end

function test_values_that_are_no_numbers_are_left_out()
  test.equal(aggregate('count', 'none'), {})
  test.equal(aggregate('sum', 'city'), {})
  test.equal(aggregate('average', 'city'), {})
end

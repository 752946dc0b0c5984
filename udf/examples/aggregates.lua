-- Aggregations over many records: count, sum, average, least and greatest, and sums by group.
--
-- A stream function gets a stream of records and says what is to happen with them: filter, map, aggregate, reduce. Its steps run in parallel on parts of
-- the records, and the results of the parts meet in `reduce`. So a reduce must not care about order, and must take what it gives.

-- How many records have the bin.
function count(stream, bin)
  local function one(rec)
    if rec[bin] ~= nil then return 1 end
  end
  -- What `map` turns into nil goes no further.
  return stream : map(one) : reduce(math.sum)
end

local function number_in(bin)
  return function(rec)
    local value = rec[bin]
    if type(value) == 'number' then return value end
  end
end

-- The sum of a bin.
function sum(stream, bin)
  return stream : map(number_in(bin)) : reduce(math.sum)
end

-- The average of a bin. Averages of parts cannot be averaged again, since parts differ in size; sums and counts can be added up. What follows the reduce
-- works on the one result.
function average(stream, bin)
  local function add(part, value)
    part.sum = part.sum + value
    part.count = part.count + 1
    return part
  end
  local function together(a, b)
    return map{ sum = a.sum + b.sum, count = a.count + b.count }
  end
  local function divided(all)
    if all.count > 0 then return all.sum / all.count end
  end
  return stream : map(number_in(bin)) : aggregate(map{ sum = 0, count = 0 }, add) : reduce(together) : map(divided)
end

-- The least and the greatest value of a bin.
function range(stream, bin)
  local function alone(value)
    return map{ least = value, greatest = value }
  end
  local function together(a, b)
    return map{ least = math.min(a.least, b.least), greatest = math.max(a.greatest, b.greatest) }
  end
  return stream : map(number_in(bin)) : map(alone) : reduce(together)
end

-- Sums of a bin by the value of another: a map from each value to count and sum.
function group_by(stream, group, bin)
  local function add(groups, rec)
    local key, value = rec[group], rec[bin]
    if key == nil or type(value) ~= 'number' then return groups end
    local entry = groups[key] or map{ count = 0, sum = 0 }
    entry.count = entry.count + 1
    entry.sum = entry.sum + value
    groups[key] = entry
    return groups
  end
  local function entries(a, b)
    return map{ count = a.count + b.count, sum = a.sum + b.sum }
  end
  local function together(a, b)
    return map.merge(a, b, entries)
  end
  return stream : aggregate(map(), add) : reduce(together)
end

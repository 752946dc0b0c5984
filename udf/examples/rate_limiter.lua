-- Rate limiter: a token bucket in one record. Whatever is limited (a user, an address, an API key) is the key of its record.
--
-- A bucket holds up to `capacity` tokens and gains `per_second` of them. A request takes one, or several when it costs more, and is refused
-- when there are too few. So bursts of up to `capacity` requests pass, and over time no more than `per_second`.
--
--   tokens (double)   how many there were after the last request that was allowed
--   at (integer)      when that was, in milliseconds since 1970, by the node's clock

-- A time to live is an integer of seconds; ten years are as good as for ever.
local TTL_MAX = 10 * 365 * 24 * 3600

local function positive(name, value)
  if type(value) ~= 'number' or not (value > 0) then error(name .. ' must be a number above 0') end
  return value
end

-- What is in the bucket now. Tokens are not added by a timer: they follow from the time that has passed.
local function tokens_now(rec, capacity, per_second, now)
  if not aerospike:exists(rec) then return capacity + 0.0 end
  -- A clock that was set back must not take tokens away.
  local elapsed_ms = math.max(0, now - rec.at)
  return math.min(capacity + 0.0, rec.tokens + elapsed_ms * per_second / 1000)
end

-- Takes `wanted` tokens (one if it is left out). Returns a map:
--   allowed    whether the request may go on
--   left       whole tokens that are left
--   retry_ms   when not allowed: after so many milliseconds there will be enough
function take(rec, capacity, per_second, wanted)
  positive('capacity', capacity)
  positive('per_second', per_second)
  wanted = positive('wanted', wanted or 1)
  if wanted > capacity then error('wanted is above the capacity: it could never be allowed') end

  local now = aerospike:get_current_time()
  local tokens = tokens_now(rec, capacity, per_second, now)
  if tokens < wanted then
    -- Nothing is written: refusals are cheap, and do not put off the moment at which there are enough.
    return map{ allowed = false, left = math.floor(tokens), retry_ms = math.ceil((wanted - tokens) * 1000 / per_second) }
  end

  tokens = tokens - wanted
  rec.tokens = tokens
  rec.at = now
  -- Once it is full again the bucket is the same as one that was never used, so the record may go.
  record.set_ttl(rec, math.min(TTL_MAX, math.ceil((capacity - tokens) / per_second) + 1))
  if aerospike:exists(rec) then aerospike:update(rec) else aerospike:create(rec) end
  return map{ allowed = true, left = math.floor(tokens), retry_ms = 0 }
end

-- Whole tokens in the bucket, without taking any.
function peek(rec, capacity, per_second)
  return math.floor(tokens_now(rec, positive('capacity', capacity), positive('per_second', per_second), aerospike:get_current_time()))
end

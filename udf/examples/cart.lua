-- Shopping cart: items in a map of one record, and merging the cart of a guest who logs in into the user's own.
--
--   items (map)     article -> map of quantity and price; prices are integers, in cents, since doubles do not add up exactly
--   merged (list)   ids of the last merges, so that one that is sent twice counts once

local QUANTITY_MAX = 99
local ARTICLES_MAX = 200
local MERGES_KEPT = 8

local function store(rec, items)
  rec.items = items
  if aerospike:exists(rec) then aerospike:update(rec) else aerospike:create(rec) end
end

local function add_to(items, article, quantity, price)
  if math.type(quantity) ~= 'integer' or quantity < 1 then error('quantity of ' .. tostring(article) .. ' must be an integer above 0') end
  if math.type(price) ~= 'integer' or price < 0 then error('price of ' .. tostring(article) .. ' must be an integer of cents') end
  local item = items[article]
  if item == nil and map.size(items) >= ARTICLES_MAX then error('a cart has at most ' .. ARTICLES_MAX .. ' articles') end
  local before = item == nil and 0 or item.quantity
  items[article] = map{ quantity = math.min(QUANTITY_MAX, before + quantity), price = price }
end

local function total_of(items)
  local total = 0
  for _, item in map.pairs(items) do total = total + item.quantity * item.price end
  return total
end

-- Puts so many of an article into the cart, at today's price. Returns the total in cents.
function add(rec, article, quantity, price)
  local items = rec.items or map()
  add_to(items, article, quantity, price)
  store(rec, items)
  return total_of(items)
end

-- Takes an article out. Returns the total in cents.
function drop(rec, article)
  local items = rec.items or map()
  if items[article] ~= nil then
    items[article] = nil
    store(rec, items)
  end
  return total_of(items)
end

-- Adds the items of another cart. A function sees its own record only, so the client reads the other cart and passes its items. Quantities add up,
-- the price of the other cart is taken: it is the newer one. `id` names this merge: should the client not learn that it was done and send it again, nothing happens.
-- Returns the total in cents.
function merge(rec, other, id)
  local items = rec.items or map()
  local merged = rec.merged or list()
  for seen in list.iterator(merged) do
    if seen == id then return total_of(items) end
  end
  for article, item in map.pairs(other) do add_to(items, article, item.quantity, item.price) end
  list.append(merged, id)
  if list.size(merged) > MERGES_KEPT then list.remove(merged, 1) end
  rec.merged = merged
  store(rec, items)
  return total_of(items)
end

-- The total in cents; 0 without a cart.
function total(rec)
  return total_of(rec.items or map())
end

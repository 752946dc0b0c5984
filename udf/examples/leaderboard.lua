-- Leaderboard: the best N scores of a game in a map of one record. The key is the game, or the game and the week.
--
--   scores (map)   player -> best score
--
-- Every call reads and writes the whole map, so this is for the top hundred or thousand, not for all players.

local KEPT_DEFAULT = 100
local KEPT_MAX = 1000

-- Players in the order of their ranks: higher scores first, equal ones by name, so that the order is the same at every call.
local function ranked(scores)
  local players = {}
  for player in map.keys(scores) do players[#players + 1] = player end
  table.sort(players, function(a, b)
    if scores[a] ~= scores[b] then return scores[a] > scores[b] end
    return a < b
  end)
  return players
end

-- Notes a score. Only a player's best one counts, and only the best `kept` players stay. Returns the player's rank, from 1, or nil for one who is not among them.
function submit(rec, player, score, kept)
  kept = kept or KEPT_DEFAULT
  if type(player) ~= 'string' or type(score) ~= 'number' then error('a player is a string, a score is a number') end
  if math.type(kept) ~= 'integer' or kept < 1 or kept > KEPT_MAX then error('kept is an integer from 1 to ' .. KEPT_MAX) end

  local scores = rec.scores or map()
  local best = scores[player]
  local improved = best == nil or score > best
  if improved then scores[player] = score end

  local rank = nil
  local changed = false
  for position, name in ipairs(ranked(scores)) do
    if position > kept then
      scores[name] = nil
      -- A score that does not get in was not stored before.
      if name ~= player or best ~= nil then changed = true end
    elseif name == player then
      rank = position
      if improved then changed = true end
    end
  end

  -- A score that changes nothing costs no write.
  if changed then
    rec.scores = scores
    if aerospike:exists(rec) then aerospike:update(rec) else aerospike:create(rec) end
  end
  return rank
end

-- The best `count` players (ten if it is left out), as a list of maps with rank, player and score.
function top(rec, count)
  local result = list()
  local scores = rec.scores
  if scores == nil then return result end
  for rank, player in ipairs(ranked(scores)) do
    if rank > (count or 10) then break end
    list.append(result, map{ rank = rank, player = player, score = scores[player] })
  end
  return result
end

-- Rank and score of one player, or nil.
function standing(rec, player)
  local scores = rec.scores
  if scores == nil or scores[player] == nil then return nil end
  for rank, name in ipairs(ranked(scores)) do
    if name == player then return map{ rank = rank, score = scores[player] } end
  end
end

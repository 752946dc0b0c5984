local function submit(rec, player, score, kept)
  return test.apply(rec, 'leaderboard', 'submit', player, score, kept)
end

function test_players_are_ranked_by_their_best_score()
  local rec = test.record{ key = 'tetris', set = 'games' }
  test.equal(submit(rec, 'ada', 300), 1)
  test.equal(submit(rec, 'grace', 500), 1)
  test.equal(submit(rec, 'alan', 400), 2)
  test.equal(submit(rec, 'ada', 450), 2)
  test.equal(test.apply(rec, 'leaderboard', 'top', 2), {
    { rank = 1, player = 'grace', score = 500 },
    { rank = 2, player = 'ada', score = 450 }
  })
  test.equal(test.apply(rec, 'leaderboard', 'standing', 'alan'), { rank = 3, score = 400 })
end

function test_a_lower_score_changes_nothing_and_writes_nothing()
  local rec = test.record{ bins = { scores = map{ ada = 300 } } }
  test.equal(submit(rec, 'ada', 200), 1)
  test.equal(rec.generation, 1)
  test.equal(rec.bins.scores, { ada = 300 })
end

function test_only_the_best_stay()
  local rec = test.record()
  for i = 1, 10 do submit(rec, 'player-' .. i, i * 10, 3) end
  test.equal(rec.bins.scores, { ['player-8'] = 80, ['player-9'] = 90, ['player-10'] = 100 })
  local generation = rec.generation
  test.equal(submit(rec, 'late', 5, 3), nil)
  test.equal(rec.generation, generation)
  test.equal(submit(rec, 'late', 95, 3), 2)
  test.equal(test.apply(rec, 'leaderboard', 'standing', 'player-8'), nil)
end

function test_a_smaller_board_drops_the_rest()
  local rec = test.record{ bins = { scores = map{ a = 1, b = 2, c = 3 } } }
  test.equal(submit(rec, 'c', 3, 2), 1)
  test.equal(rec.bins.scores, { b = 2, c = 3 })
end

function test_equal_scores_are_ordered_by_name()
  local rec = test.record()
  for _, player in ipairs{ 'c', 'a', 'b' } do submit(rec, player, 7) end
  test.equal(submit(rec, 'b', 7), 2)
end

function test_without_scores_the_board_is_empty()
  test.equal(test.apply(test.record(), 'leaderboard', 'top'), {})
  test.equal(test.apply(test.record(), 'leaderboard', 'standing', 'ada'), nil)
end

function test_what_is_no_score_is_refused()
  test.fails(test.record(), 'leaderboard', 'submit', 'ada', 'many')
  test.fails(test.record(), 'leaderboard', 'submit', 'ada', 1, 0)
end

-- Appends a request to the log of a run and gives the time of the server and the entries of a range.
-- KEYS[1] log. ARGV: 1 the request, or nothing; 2 first entry wanted; 3 last one; 4 channel to ring, or nothing.
-- Nothing is decided here: the entry says when it came, and whoever folds the log decides.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return false
end
local time = redis.call('TIME')
local ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
if ARGV[1] ~= '' then
  redis.call('RPUSH', KEYS[1], ms .. ' ' .. ARGV[1])
  if ARGV[4] ~= '' then
    redis.call('PUBLISH', ARGV[4], '')
  end
end
return { ms, redis.call('LRANGE', KEYS[1], ARGV[2], ARGV[3]) }

-- Appends a request to the log of a run and gives the time of the server and the entries of a range.
-- KEYS[1] log. ARGV: 1 the request, or nothing; 2 first entry wanted; 3 last one; 4 channel to ring, or nothing;
-- 5 the time of the entry before the first one wanted, as it stands there, or nothing.
-- Nothing is decided here: the entry says when it came, and whoever folds the log decides. Where the log is not
-- the one that the asker has folded so far, nothing is appended and there are no entries.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return false
end
local time = redis.call('TIME')
local ms = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[5] ~= '' then
  local before = redis.call('LINDEX', KEYS[1], ARGV[2] - 1)
  if not before or string.sub(before, 1, 6) ~= ARGV[5] then
    return { ms, false }
  end
end
if ARGV[1] ~= '' then
  local length = redis.call('RPUSH', KEYS[1], struct.pack('<I6', ms) .. ARGV[1])
  if ARGV[4] ~= '' then
    redis.call('PUBLISH', ARGV[4], length)
  end
end
return { ms, redis.call('LRANGE', KEYS[1], ARGV[2], ARGV[3]) }

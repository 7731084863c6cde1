-- Keeps a snapshot of a run, unless a later one is there or the log is not the one that it was taken of.
-- KEYS: 1 snapshot, 2 log. ARGV: 1 the number of the entry behind it; 2 the time of the entry before it, as it
-- stands there; 3 number of the last event; 4 its content; 5 how long it lives, in s.
local known = redis.call('HGET', KEYS[1], 'next')
if known and tonumber(known) >= tonumber(ARGV[1]) then
  return 0
end
local before = redis.call('LINDEX', KEYS[2], ARGV[1] - 1)
if not before or string.sub(before, 1, 6) ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], 'next', ARGV[1], 'mark', ARGV[2], 'last_event', ARGV[3], 'state', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1

-- Writes the first entry of a log, with the time of the server, unless it is there. KEYS[1] log.
-- ARGV: 1 the entry; 2 how long the log lives, in s.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
local time = redis.call('TIME')
local ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('RPUSH', KEYS[1], struct.pack('<I6', ms) .. ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1

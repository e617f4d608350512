-- unlock.lua
--   Releases a lock that lock.lua has taken.
--
-- KEYS[1]  the lock: hybrid_cache:lock:{RESOURCE}, see README.md
-- ARGV[1]  the token that lock.lua has returned
-- Reply    1, or 0 if the lock is not held by this token: it ran out, was released,
--          or is another's by now
--
-- The last token stays, so that the next one is greater.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local was = redis.call('HMGET', KEYS[1], 'token', 'until')
if was[1] ~= ARGV[1] or (tonumber(was[2]) or 0) <= now then
	return 0
end
redis.call('HSET', KEYS[1], 'until', '0')
return 1

-- extend_lock.lua
--   Holds a lock that lock.lua has taken for some time from now.
--
-- KEYS[1]  the lock: hybrid_cache:lock:{RESOURCE}, see README.md
-- ARGV[1]  the token that lock.lua has returned
-- ARGV[2]  how long it is to be held from now, in milliseconds; it can be less than
--          what is left
-- Reply    1, or 0 if the lock is not held by this token: it ran out, was released,
--          or is another's by now

local ttl = tonumber(ARGV[2])
if not (ttl and ttl >= 1) then
	return redis.error_reply('ERR extend_lock: the time must be at least 1 millisecond')
end

local DAY = 24 * 60 * 60 * 1000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local was = redis.call('HMGET', KEYS[1], 'token', 'until')
if was[1] ~= ARGV[1] or (tonumber(was[2]) or 0) <= now then
	return 0
end
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + ttl), 'ttl', string.format('%.0f', ttl))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', ttl + DAY))
return 1

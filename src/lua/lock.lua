-- lock.lua
--   Takes a lock that runs out by itself, and gives it a fencing token.
--
-- KEYS[1]  the lock: hybrid_cache:lock:{RESOURCE}, see README.md
-- ARGV[1]  how long it is to be held, in milliseconds
-- Reply    the token, a whole number greater than any before for this lock; nil
--          if it is taken
--
-- The lock is a hash: "token", the last one; "until", when it runs out, in
-- milliseconds since 1970 of the server's clock, 0 after unlock.lua; "ttl", for
-- how long it was taken.  The token is the server's time in microseconds, so it
-- grows also if the key is lost, and at least by one, so it grows also if the
-- clock is set back.  For that the key lives for a day longer than the lock.
--
-- A lock that seems to be held longer than it was taken for is one from before
-- the clock was set back: it is held from now on.

local ttl = tonumber(ARGV[1])
if not (ttl and ttl >= 1) then
	return redis.error_reply('ERR lock: the time must be at least 1 millisecond')
end

local DAY = 24 * 60 * 60 * 1000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function hold(token, ms)
	redis.call('HSET', KEYS[1], 'token', string.format('%.0f', token),
		'until', string.format('%.0f', now + ms), 'ttl', string.format('%.0f', ms))
	redis.call('PEXPIRE', KEYS[1], string.format('%.0f', ms + DAY))
end

local was = redis.call('HMGET', KEYS[1], 'token', 'until', 'ttl')
local last, left, held = tonumber(was[1]) or 0, (tonumber(was[2]) or 0) - now, tonumber(was[3]) or 0
if left > held then
	hold(last, held)
end
if left > 0 then
	return false
end

local token = math.max(last + 1, time[1] * 1000000 + time[2])
hold(token, ttl)
return token

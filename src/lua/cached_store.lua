-- cached_store.lua
--   Stores what somebody has computed with a lease of cached_get.lua, and ends
--   the lease; nothing is stored without it.
--
-- KEYS[1]  the cached value, a string
-- KEYS[2]  what is known of it, a hash: hybrid_cache:cached:{KEY}, see README.md
-- ARGV[1]  token: of the lease
-- ARGV[2]  value
-- ARGV[3]  ttl: for how long the value is fresh
-- ARGV[4]  stale: how much longer it is kept for those who take an old value
-- Reply    1: stored; 0: not, since the lease has ended (the value might be out
--          of date, or somebody else computes it now) or Redis takes no writes
--
-- Times are in milliseconds.  What the value is computed from must be read after
-- the lease was got, as it was committed then.

local token, value = ARGV[1], ARGV[2]
local ttl, stale = tonumber(ARGV[3]), tonumber(ARGV[4])
if not ttl or not stale or ttl < 1 or stale < 0 then
	return redis.error_reply('ERR cached_store: ttl must be at least 1, stale at least 0')
end

local known = redis.call('HMGET', KEYS[2], 'holder', 'for')
if known[1] ~= token then
	return 0
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local keep = string.format('%.0f', ttl + stale)
local reply = redis.pcall('SET', KEYS[1], value, 'PX', keep)
redis.call('HDEL', KEYS[2], 'holder', 'for', 'ends')
if reply.err then
	for _, word in ipairs({'OOM', 'READONLY', 'MISCONF', 'NOREPLICAS'}) do
		if string.find(string.sub(reply.err, 1, 12), word, 1, true) then
			return 0
		end
	end
	return reply
end
redis.call('HSET', KEYS[2], 'of', known[2], 'until', string.format('%.0f', now + ttl))
redis.call('PEXPIRE', KEYS[2], keep)
return 1

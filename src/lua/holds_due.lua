-- holds_due.lua
--   The keys of which holds have run out (see holds.lua).
--
-- KEYS[1]  hybrid_cache:holds
-- ARGV[1]  how many of them at most
-- Reply    {milliseconds, KEY ...}: after which time the next hold runs out that
--          is none of these, -1 if there is none

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now),
	'LIMIT', 0, ARGV[1])
local next = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf',
	'WITHSCORES', 'LIMIT', 0, 1)[2]

table.insert(reply, 1, next and math.max(1, next - now) or -1)
return reply

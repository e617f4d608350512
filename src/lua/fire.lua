-- fire.lua
--   Adds the events of timers that are due to their stream.
--
-- KEYS[1]  the registry of streams that have pending timers, a sorted set: the
--          score of a stream is not later than its earliest timer
-- KEYS[2]  the pending timers of the stream, a sorted set: the score of a
--          member is when it is due
-- KEYS[3]  the stream
-- ARGV[1]  now: what is due then, or was before, has its event
-- ARGV[2]  how many events at most; the next call goes on
-- Reply    how many there were; or, as a string, why Redis refused one
--
-- Times are milliseconds since 1970, whole numbers in decimal digits.  An event
-- has the fields "member" and "at", the time at which it was due.  What Redis
-- refuses stays pending.
--
-- It is for the sync worker alone: only that knows which changes of timers were
-- committed before now, and has applied them.

local function failed(reply)
	return type(reply) == 'table' and reply.err
end

local due = redis.pcall('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local problem = failed(due)
local n = 0
if not problem then
	for i = 1, #due, 2 do
		-- first what may be refused, for want of memory too
		problem = failed(redis.pcall('XADD', KEYS[3], '*', 'member', due[i], 'at', due[i + 1]))
		if problem then
			break
		end
		redis.call('ZREM', KEYS[2], due[i])
		n = n + 1
	end
end

if problem then
	-- others have their turn first
	redis.pcall('ZADD', KEYS[1], 'XX', ARGV[1] + 1000, KEYS[3])
	return problem
end
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if #first == 0 then
	redis.call('ZREM', KEYS[1], KEYS[3])
else
	problem = failed(redis.pcall('ZADD', KEYS[1], first[2], KEYS[3]))
end
return problem or n

-- cached_get.lua
--   Reads a cached value.  Where there is none, the first who asks gets a lease:
--   the right to compute and store it.  The others wait for that, or take the
--   old value.
--
-- KEYS[1]  the cached value, a string
-- KEYS[2]  what is known of it, a hash: hybrid_cache:cached:{KEY}, see README.md
-- ARGV[1]  of: what the value is computed from, any text.  Values and leases of
--          another text do not count
-- ARGV[2]  stale: for so long after its time a value will do, while somebody
--          computes a new one; 0: not at all
-- ARGV[3]  token: a name for the lease that nobody else has; empty: no lease
-- ARGV[4]  lease: after this time the lease can be taken by others
-- ARGV[5]  gone: token of somebody who does not compute any more; or empty
-- ARGV[6]  alive: token of somebody who still does, whose lease then begins
--          anew; or empty
-- Reply    {'hit', value}
--          {'stale', value, token}: somebody computes a new one
--          {'lease'}: compute the value, then cached_store.lua or
--          cached_release.lua
--          {'wait', token, left}: somebody computes it; ask again, in left
--          milliseconds at the latest
--          {'miss'}: no value and no lease, as none was asked for, somebody
--          computes something else for the key, or Redis takes no writes now
--
-- Times are in milliseconds.  Who removes KEYS[1] because what it was computed
-- from has changed removes KEYS[2] as well, and with it the lease: a value that
-- was computed before cannot be stored any more.

-- a lease that nobody takes over, nor gives back, ends for good
local KEEP = 3600000

local of, token = ARGV[1], ARGV[3]
local stale, lease = tonumber(ARGV[2]), tonumber(ARGV[4])
if not stale or not token or not lease or stale < 0 or lease < 1 then
	return redis.error_reply('ERR cached_get: stale must be at least 0, lease at least 1')
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', KEYS[2], 'of', 'until', 'holder', 'for', 'ends')
local fresh, holder, ends = tonumber(known[2]), known[3], tonumber(known[5])
local value = redis.pcall('GET', KEYS[1])
if type(value) == 'table' then
	return redis.error_reply('WRONGTYPE cached_get: the key holds something else')
end

if known[1] ~= of or not fresh then
	value = false
elseif value and now < fresh then
	return {'hit', value}
elseif now - fresh >= stale then
	value = false
end

-- a write that Redis refuses for now is no reason for the caller to fail
local function refused(reply)
	if type(reply) ~= 'table' or not reply.err then
		return nil
	end
	for _, word in ipairs({'OOM', 'READONLY', 'MISCONF', 'NOREPLICAS'}) do
		if string.find(string.sub(reply.err, 1, 12), word, 1, true) then
			return {'miss'}
		end
	end
	return reply
end

if holder and ends and ends > now and holder ~= ARGV[5] then
	if known[4] ~= of then
		return {'miss'}
	end
	if holder == ARGV[6] then
		ends = now + lease
		redis.pcall('HSET', KEYS[2], 'ends', string.format('%.0f', ends))
	end
	if value then
		return {'stale', value, holder}
	end
	return {'wait', holder, ends - now}
end

if token == '' then
	return {'miss'}
end
local reply = refused(redis.pcall('HSET', KEYS[2], 'holder', token, 'for', of,
	'ends', string.format('%.0f', now + lease)))
if reply then
	return reply
end
local keep = math.max(KEEP, lease, redis.call('PTTL', KEYS[2]))
redis.call('PEXPIRE', KEYS[2], string.format('%.0f', keep))
return {'lease'}

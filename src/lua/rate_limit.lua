-- rate_limit.lua
--   Takes from a budget that fills up again steadily (GCRA).
--
-- KEYS[1]  the state of the limit: hybrid_cache:limit:{KEY}, see README.md
-- ARGV[1]  max: what can be taken at once, and what comes back in one period
-- ARGV[2]  period, in milliseconds
-- ARGV[3]  cost: what is to be taken now, 0 for a look
-- Reply    {allowed, remaining, retry_after}: 1 or 0; what is left, rounded
--          down; in how many milliseconds the same call can be allowed, 0 if
--          it was, -1 for never (a cost above max)
--
-- All are whole numbers in decimal digits.  What is refused costs nothing.
--
-- The state is a string, "LEVEL AT": what is taken and not back yet, and when
-- that was so, in microseconds of the server's clock.  If that is set back, it goes
-- on from there.  The key lives until all is back.

local max, period, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if not (max and period and cost and max >= 1 and period >= 1 and cost >= 0) then
	return redis.error_reply('ERR rate_limit: max and period must be at least 1, cost at least 0')
end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local level = 0
local state = redis.call('GET', KEYS[1])
if state then
	local was, at = string.match(state, '^(%S+) (%d+)$')
	was, at = tonumber(was), tonumber(at)
	if not was or not at then
		return redis.error_reply('WRONGTYPE rate_limit: the key holds something else')
	end
	if at > now then
		redis.call('SET', KEYS[1], string.format('%.17g %.0f', was, now), 'KEEPTTL')
		at = now
	end
	-- per microsecond: max / (period * 1000)
	level = math.max(0, was - (now - at) * max / (period * 1000))
end

-- numbers are rounded: who comes back after retry_after is not to be refused for that
local ROUNDING = 1e-6
local excess = level + cost - max
if excess > ROUNDING then
	local left = math.max(0, math.floor(max - level + ROUNDING))
	if cost > max then
		return {0, left, -1}
	end
	return {0, left, math.ceil(excess * period / max)}
end
if cost > 0 then
	level = level + cost
	redis.call('SET', KEYS[1], string.format('%.17g %.0f', level, now),
		'PX', string.format('%.0f', math.ceil(level * period / max)))
end
return {1, math.max(0, math.floor(max - level + ROUNDING)), 0}

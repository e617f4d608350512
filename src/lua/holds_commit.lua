-- holds_commit.lua
--   What a transaction that has committed does to items that it has confirmed or
--   released (see holds.lua).  It is part of the transaction's change record, so
--   that it happens if and only if that has committed, in the order of commits.
--
-- KEYS[1]  hybrid_cache:holds:{KEY}
-- KEYS[2]  hybrid_cache:holders:{KEY}
-- ARGV[1]  confirm or release
-- ARGV[2]  the holder
-- then pairs: an item, and the mark that it was frozen with
-- Reply    how many items have changed
--
-- To confirm wins over a hold of somebody else: that can only be where Redis has
-- lost the hold.  Only what was confirmed with the same mark is released.  To run
-- it twice changes nothing.
local n = 0
local function unlist(who, item, taken, frozen)
	local name = #who .. ':' .. who .. ':' .. item
	redis.call('ZREM', KEYS[2], name, 'confirmed ' .. name,
		'mark ' .. taken .. ' ' .. name, 'mark ' .. frozen .. ' ' .. name)
end
for i = 3, #ARGV, 2 do
	local item, mark = ARGV[i], ARGV[i + 1]
	local state, taken, frozen, len, rest = string.match(redis.call('HGET', KEYS[1], item) or '',
		'^(%a+) (%S+) (%S+) %d+ (%d+):(.*)$')
	local who = state and string.sub(rest, 1, tonumber(len))
	if ARGV[1] == 'release' then
		if who == ARGV[2] and frozen == mark and state ~= 'held' then
			redis.call('HDEL', KEYS[1], item)
			unlist(who, item, taken, frozen)
			n = n + 1
		end
	elseif state ~= 'confirmed' then
		if who then
			unlist(who, item, taken, frozen)
		end
		who = #ARGV[2] .. ':' .. ARGV[2]
		redis.call('HSET', KEYS[1], item, 'confirmed - ' .. mark .. ' 0 ' .. who .. ':')
		redis.call('ZADD', KEYS[2], 0, 'confirmed ' .. who .. ':' .. item)
		n = n + 1
	end
end
return n

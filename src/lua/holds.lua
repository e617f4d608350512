-- holds.lua
--   Holds of several items at once, all or nothing, for a limited time: seats,
--   rooms, the last pieces of an article.
--
-- KEYS[1]  KEY: what the items are of; with hold and a value of a free item, a
--          hash of items
-- KEYS[2]  hybrid_cache:holds:{KEY}    hash: an item, and its record (below)
-- KEYS[3]  hybrid_cache:holders:{KEY}  sorted set, all 0, by which records are
--          found: LENGTH:HOLDER:ITEM, or confirmed LENGTH:HOLDER:ITEM; and for
--          each mark in a record that is not confirmed, mark MARK
--          LENGTH:HOLDER:ITEM
-- KEYS[4]  hybrid_cache:ends:{KEY}     sorted set: a holder, and when what it
--          holds runs out, in milliseconds since 1970
-- KEYS[5]  hybrid_cache:ranout:{KEY}   list of pairs STREAM, EVENT: holds that
--          ran out, and whose event is still to be added to a stream
-- KEYS[6]  hybrid_cache:holds  sorted set: KEY, and when the next of its holds
--          runs out
-- KEYS[7]  hybrid_cache:marks:SYSTEM:DATABASE  sorted set: MARK LENGTH:HOLDER:KEY,
--          and when it was set; the marks of a database.  Without a mark: KEYS[6]
-- KEYS[8]  event: the stream.  settle: another key, if its value is a condition
--
-- For {KEY} and the others see README.md.  In a Redis Cluster KEYS[6] and KEYS[7]
-- must be in the slot of the others.
--
-- ARGV[1]  what is to be done, see below
-- ARGV[2]  a mark: a name for the caller's transaction, without spaces.  What is
--          done with it is settled later.  "-": it counts at once.
-- ARGV[3]  the holder
-- ARGV[4]  how many marks are known to the caller, 0 mostly, and then for each
--          of them two arguments: the mark, and what became of it: aborted,
--          committed, own (the caller's transaction), open (another one),
--          gone (the database that has set it does not exist any more)
-- then, with
-- hold     TTL in milliseconds; the stream for the event, or an empty string;
--          1 or 0 and the value that a free item has in the hash at KEYS[1] (0:
--          it is not looked at); the items.
--          Reply {1}: held.  {0, item, value, item, value ...}: nothing is held;
--          what is in the way: pending:HOLDER, sold, another value in the hash,
--          or nil for an item that the hash does not have.
--          What the holder holds already stays held, and all that it holds under
--          KEY runs out at the same time: the latest that was asked for.
-- confirm  Reply {1, items ...}: without a mark they are confirmed and stay taken
--          until they are released; with one they are frozen, and run out no
--          more.  {0}: the holder holds nothing (any more).
-- release  Reply {number, item, id, item, id ...}: so many items were released.
--          With a mark, what is confirmed is not released but told; see
--          holds_commit.lua.
-- extend   TTL.  Reply {1}: it holds something, which runs out after TTL at the
--          earliest.  {0}: it does not.
-- list     (the holder is of no use).  Reply {item, holder, state, end ...}:
--          state is tentative (of an open transaction), held, confirming
--          (frozen), or confirmed; end is 0 for the last two.
-- settle   MARK of which the holder's items are settled; what becomes of those
--          that were taken with it (aborted or committed), and what of those
--          that were frozen with it (aborted, committed, or wait); the value
--          that KEYS[8] must have, if that is given.
--          Reply {number}: so many wait.  {-1}: KEYS[8] has another value, and
--          nothing was done.
-- expire   Reply {number, STREAM, EVENT ...}: so many holds ran out; events to
--          be added, 50 at most.
-- event    STREAM and EVENT as expire replies them: adds the event to KEYS[8],
--          if that is the next one.  Reply {1}, {0} if it is not, or
--          {0, error} for a stream that takes no events: it is dropped then.
--
-- Where the outcome depends on marks that the caller does not name, and it has a
-- mark (or "?", a mark that is never set), the reply is {"?", marks ...}, and
-- nothing was done.  Without a mark ("-") they count as open.
--
-- The record of an item: STATE TAKEN FROZEN END LENGTH:HOLDER:STREAM
--   STATE   held, confirming, confirmed
--   TAKEN   the mark of the transaction that took it, "-" once that is committed
--   FROZEN  the mark of the one that froze it, or that it was confirmed with
--   END     confirming: when it would have run out
--
--            hold              confirm              COMMIT
--   free ----------> held ---------------> confirming -----> confirmed
--     ^                |    <---------------    |                |
--     |   ROLLBACK,    |       ROLLBACK         |                |
--     |   release, end |                        |                |
--     +----------------+                        |                |
--     +---- ROLLBACK, of hold and confirm ------+                |
--     +---- release, and COMMIT ---------------------------------+
--
-- A hold that ran out counts as free, whether it was removed or not.

local op, mark, holder = ARGV[1], ARGV[2], ARGV[3]
local key, records, index, ends, ranout, due, marks =
	KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local call = redis.call

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local known = {}
local n_known = tonumber(ARGV[4])
local arg = 5
for i = 1, n_known do
	known[ARGV[arg]] = ARGV[arg + 1]
	arg = arg + 2
end
if mark ~= '-' and mark ~= '?' then
	known[mark] = 'own'
end

-- marks that the outcome depends on
local unknown, asked = {'?'}, {}
local function ask(name)
	if known[name] or mark == '-' then
		return
	end
	if not asked[name] then
		asked[name] = true
		unknown[#unknown + 1] = name
	end
end

local function integer(number)
	return string.format('%.0f', number)
end

local function named(who, what)
	return #who .. ':' .. who .. ':' .. what
end

local function parse(item, text)
	local state, taken, frozen, at, length, rest =
		string.match(text, '^(%a+) (%S+) (%S+) (%d+) (%d+):(.*)$')
	length = tonumber(length)
	return {
		item = item, state = state, taken = taken, frozen = frozen, at = tonumber(at),
		holder = string.sub(rest, 1, length), stream = string.sub(rest, length + 2),
		was = {state = state, taken = taken, frozen = frozen}
	}
end

local function read(item)
	local text = call('HGET', records, item)
	return text and parse(item, text)
end

-- The members of the index for a record of this state: a set.
local function members(r, state)
	local name = named(r.holder, r.item)
	if state.state == 'confirmed' then
		return {['confirmed ' .. name] = true}
	end
	local result = {[name] = true}
	for _, m in ipairs({state.taken, state.frozen}) do
		if m ~= '-' then
			result['mark ' .. m .. ' ' .. name] = true
		end
	end
	return result
end

local function write(r)
	local old, new = r.was and members(r, r.was) or {}, members(r, r)
	call('HSET', records, r.item, table.concat({r.state, r.taken, r.frozen, integer(r.at),
		named(r.holder, r.stream)}, ' '))
	for member in pairs(new) do
		call('ZADD', index, 0, member)
	end
	for member in pairs(old) do
		if not new[member] then
			call('ZREM', index, member)
		end
	end
	r.was = {state = r.state, taken = r.taken, frozen = r.frozen}
end

local function remove(r)
	call('HDEL', records, r.item)
	for member in pairs(members(r, r.was)) do
		call('ZREM', index, member)
	end
end

-- The records whose members of the index begin with this, which ends with
-- LENGTH:HOLDER: ; n of them at most, those after a member, if these are given.
-- The second result is the last member.
local function find(prefix, n, after)
	local result = {}
	local found = call('ZRANGEBYLEX', index, after and '(' .. after or '[' .. prefix,
		'(' .. string.sub(prefix, 1, -2) .. ';', 'LIMIT', 0, n or -1)
	for _, member in ipairs(found) do
		local r = read(string.sub(member, #prefix + 1))
		if r then
			result[#result + 1] = r
		end
	end
	return result, found[#found]
end

-- all that somebody holds or is confirming
local function all_of(who)
	return (find(named(who, '')))
end

local function holds_something(who)
	local found, last
	repeat
		found, last = find(named(who, ''), 10, last)
		for _, r in ipairs(found) do
			if r.state == 'held' then
				return true
			end
		end
	until not last
	return false
end

local function end_of(who)
	return tonumber(call('ZSCORE', ends, who) or 0)
end

local function not_before(who, at)
	if at > end_of(who) then
		call('ZADD', ends, integer(at), who)
	end
end

-- What a record says when the known marks are taken into account: the record,
-- changed or not, or nil.  The caller writes what has changed.
local function judged(r)
	local taken = known[r.taken]
	if r.state == 'confirmed' then
		return r
	end
	if taken == 'aborted' or taken == 'gone' then
		return nil
	end
	if r.state == 'confirming' then
		local frozen = known[r.frozen]
		if frozen == 'aborted' then
			r.state, r.frozen = 'held', '-'
			r.thawed = true
		elseif frozen == 'committed' then
			r.state, r.taken = 'confirmed', '-'
		end
	end
	if taken == 'committed' then
		r.taken = '-'
	end
	return r
end

local function is_over(r)
	return math.max(end_of(r.holder), r.thawed and r.at or 0) <= now
end

-- Takes the outcome of transactions over into the records of a holder.
local function settle(who)
	if n_known == 0 then
		return
	end
	for _, r in ipairs(all_of(who)) do
		local new = judged(r)
		if not new then
			remove(r)
		elseif new.state ~= 'confirmed' then
			if new.thawed then
				not_before(who, new.at)
				new.at, new.thawed = 0, nil
			end
			write(new)
		end
	end
end

-- Who holds nothing (any more) does not run out.
local function tidy(who)
	if not holds_something(who) then
		call('ZREM', ends, who)
	end
end

-- Removes what a holder held until its end, and notes the event.  Unless it is
-- to be removed at once, what an open transaction took stays until that has
-- ended, so that nothing is told of what never was committed; but not for ever,
-- since the database may be gone.
local FORGET = 24 * 60 * 60 * 1000

local function run_out(who, at_once)
	local at = end_of(who)
	local streams, items = {}, {}
	local left = false
	for _, r in ipairs(all_of(who)) do
		if r.state == 'held' and (at_once or r.taken == '-' or now - at > FORGET) then
			remove(r)
			if r.stream ~= '' then
				if not items[r.stream] then
					items[r.stream] = {}
					streams[#streams + 1] = r.stream
				end
				table.insert(items[r.stream], r.item)
			end
		elseif r.state == 'held' then
			left = true
		end
	end
	for _, stream in ipairs(streams) do
		call('RPUSH', ranout, stream, cjson.encode({key, who, integer(at), items[stream]}))
	end
	if not left then
		call('ZREM', ends, who)
	end
	return not left
end

-- When this key is to be looked at next.
local function schedule()
	local first = call('ZRANGE', ends, 0, 0, 'WITHSCORES')[2]
	if call('EXISTS', ranout) == 1 then
		first = '0'
	end
	if first then
		call('ZADD', due, first, key)
	else
		call('ZREM', due, key)
	end
end

local function set_mark()
	if mark ~= '-' then
		call('ZADD', marks, integer(now), mark .. ' ' .. named(holder, key))
	end
end

local ops = {}

function ops.hold()
	local ttl, stream = tonumber(ARGV[arg]), ARGV[arg + 1]
	local free = ARGV[arg + 2] == '1' and ARGV[arg + 3]
	local reply, take, over, settled = {0}, {}, {}, {}

	-- what ran out is not to come back
	if end_of(holder) <= now then
		over[holder] = true
	end
	for i = arg + 4, #ARGV do
		local item = ARGV[i]
		local value = nil
		local in_way = false
		local r = read(item)
		local new = r and judged(r)

		if free then
			value = call('HGET', key, item)
			in_way = value ~= free
		end
		if r and r.state ~= 'confirmed' then
			settled[r.holder] = true
		end
		if new and new.state == 'held' and is_over(new) then
			over[new.holder] = true
			new = nil
		end
		if new and not in_way then
			if new.state == 'held' and new.holder == holder and
				(new.taken == '-' or known[new.taken] == 'own') then
				take[item] = 'held'
			else
				in_way = true
				if new.state == 'confirmed' then
					value = 'sold'
				else
					value = 'pending:' .. new.holder
					if new.taken ~= '-' then
						ask(new.taken)
					end
					if new.state == 'confirming' and new.frozen ~= '-' then
						ask(new.frozen)
					end
				end
			end
		elseif not new then
			take[item] = take[item] or 'free'
		end
		if in_way then
			reply[#reply + 1] = item
			reply[#reply + 1] = value or false
		end
	end
	if #unknown > 1 then
		return unknown
	end
	if #reply > 1 then
		return reply
	end

	for who in pairs(settled) do
		settle(who)
	end
	for who in pairs(over) do
		if end_of(who) <= now then
			run_out(who, true)
		end
	end
	for i = arg + 4, #ARGV do
		local item = ARGV[i]
		if take[item] == 'free' then
			write({item = item, state = 'held', taken = mark, frozen = '-', at = 0,
				holder = holder, stream = stream})
			take[item] = 'held'
		end
	end
	not_before(holder, now + ttl)
	set_mark()
	for who in pairs(settled) do
		tidy(who)
	end
	schedule()
	return {1}
end

function ops.confirm()
	local reply, freeze = {1}, {}
	local blocked, mine = false, false

	for _, r in ipairs(all_of(holder)) do
		local new = judged(r)
		if new and new.state == 'held' and not is_over(new) then
			if new.taken == '-' or known[new.taken] == 'own' then
				freeze[#freeze + 1] = new
			else
				ask(new.taken)
				blocked = true
			end
		elseif new and new.state == 'confirming' then
			if known[new.frozen] == 'own' then
				mine = true
			else
				ask(new.frozen)
				blocked = true
			end
		end
	end
	if #unknown > 1 then
		return unknown
	end
	if blocked or (#freeze == 0 and not mine) then
		return {0}
	end
	settle(holder)
	local at = end_of(holder)
	for _, r in ipairs(freeze) do
		if mark == '-' then
			r.state, r.taken, r.at, r.stream = 'confirmed', '-', 0, ''
		else
			r.state, r.at = 'confirming', at
		end
		r.frozen = mark
		write(r)
		reply[#reply + 1] = r.item
	end
	tidy(holder)
	set_mark()
	schedule()
	return reply
end

function ops.release()
	local reply = {0}

	for _, r in ipairs(all_of(holder)) do
		if r.state == 'confirming' then
			ask(r.frozen)
		elseif r.state == 'held' and r.taken ~= '-' then
			ask(r.taken)
		end
	end
	if #unknown > 1 then
		return unknown
	end
	settle(holder)
	for _, r in ipairs(all_of(holder)) do
		if r.state == 'held' then
			-- what ran out was released by that
			if not is_over(r) then
				remove(r)
				reply[1] = reply[1] + 1
			end
		elseif known[r.frozen] == 'own' or known[r.frozen] == 'committed' or
			known[r.frozen] == 'gone' then
			reply[#reply + 1] = r.item
			reply[#reply + 1] = r.frozen
		end
	end
	for _, r in ipairs(find('confirmed ' .. named(holder, ''))) do
		if mark == '-' then
			remove(r)
			reply[1] = reply[1] + 1
		else
			reply[#reply + 1] = r.item
			reply[#reply + 1] = r.frozen
		end
	end
	tidy(holder)
	schedule()
	return reply
end

function ops.extend()
	local ttl = tonumber(ARGV[arg])
	local holds, result = false, 0

	for _, r in ipairs(all_of(holder)) do
		if r.state ~= 'confirmed' then
			if r.taken ~= '-' then
				ask(r.taken)
			end
			if r.state == 'confirming' then
				ask(r.frozen)
			end
		end
	end
	if #unknown > 1 then
		return unknown
	end
	settle(holder)
	for _, r in ipairs(all_of(holder)) do
		if r.state == 'held' and end_of(holder) > now then
			result, holds = 1, true
		elseif r.state == 'confirming' and known[r.frozen] ~= 'committed' then
			result = 1
			r.at = math.max(r.at, now + ttl)
			write(r)
		end
	end
	if holds then
		not_before(holder, now + ttl)
	end
	tidy(holder)
	schedule()
	return {result}
end

function ops.list()
	local reply, list = {}, {}
	local flat = call('HGETALL', records)

	for i = 1, #flat, 2 do
		local r = parse(flat[i], flat[i + 1])
		list[#list + 1] = r
		if r.state ~= 'confirmed' and r.taken ~= '-' then
			ask(r.taken)
		end
		if r.state == 'confirming' then
			ask(r.frozen)
		end
	end
	if #unknown > 1 then
		return unknown
	end
	for _, r in ipairs(list) do
		local at = end_of(r.holder)
		local new = judged(r)
		if new and new.thawed then
			at = math.max(at, new.at)
		end
		if new and (new.state ~= 'held' or at > now) then
			local state = new.state
			if state == 'held' and new.taken ~= '-' then
				state = 'tentative'
			end
			for _, word in ipairs({new.item, new.holder, state,
					new.state == 'held' and integer(at) or '0'}) do
				reply[#reply + 1] = word
			end
		end
	end
	return reply
end

function ops.settle()
	local name, taken, frozen = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2]
	local waiting = 0

	if KEYS[8] and call('GET', KEYS[8]) ~= ARGV[arg + 3] then
		return {-1}
	end
	for _, r in ipairs(find('mark ' .. name .. ' ' .. named(holder, ''))) do
		local changed = false
		if r.state ~= 'confirmed' then
			if r.state == 'confirming' and r.frozen == name and r.taken ~= name then
				if frozen == 'wait' then
					waiting = waiting + 1
				elseif frozen == 'committed' then
					r.state, r.taken, r.at, r.stream, changed = 'confirmed', '-', 0, '', true
				else
					not_before(holder, r.at)
					r.state, r.frozen, r.at, changed = 'held', '-', 0, true
				end
			elseif r.taken == name and taken == 'aborted' then
				remove(r)
			elseif r.taken == name then
				r.taken, changed = '-', true
				if r.state == 'confirming' and r.frozen == name then
					if frozen == 'wait' then
						waiting = waiting + 1
					elseif frozen == 'committed' then
						r.state, r.at, r.stream = 'confirmed', 0, ''
					else
						not_before(holder, r.at)
						r.state, r.frozen, r.at = 'held', '-', 0
					end
				end
			end
		end
		if changed then
			write(r)
		end
	end
	if waiting == 0 then
		call('ZREM', marks, name .. ' ' .. named(holder, key))
	end
	tidy(holder)
	schedule()
	return {waiting}
end

function ops.expire()
	local reply = {0}
	for _, who in ipairs(call('ZRANGEBYSCORE', ends, '-inf', integer(now), 'LIMIT', 0, 1000)) do
		if run_out(who, false) then
			reply[1] = reply[1] + 1
		end
	end
	schedule()
	for _, word in ipairs(call('LRANGE', ranout, 0, 99)) do
		reply[#reply + 1] = word
	end
	return reply
end

function ops.event()
	local stream, text = ARGV[arg], ARGV[arg + 1]
	local next = call('LRANGE', ranout, 0, 1)
	local reply = {1}

	if next[1] ~= stream or next[2] ~= text then
		return {0}
	end
	local event = cjson.decode(text)
	local added = redis.pcall('XADD', KEYS[8], '*', 'key', event[1], 'holder', event[2],
		'at', event[3], 'items', cjson.encode(event[4]))
	if type(added) == 'table' and added.err then
		if not string.find(added.err, '^WRONGTYPE') then
			return added
		end
		reply = {0, added.err}
	end
	call('LTRIM', ranout, 2, -1)
	schedule()
	return reply
end

if not ops[op] then
	return redis.error_reply('ERR holds: unknown operation')
end
return ops[op]()

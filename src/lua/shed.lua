-- shed.lua
--   Runs one command that removes entries, if nobody else writes for this database.
--
-- KEYS[1]  the fence: hybrid_cache:fence:SYSTEM:DATABASE
-- KEYS[2]  the watermark: hybrid_cache:watermark:SYSTEM:DATABASE
-- KEYS[3…] the keys of the command
-- ARGV[1]  what the fence must be
-- ARGV[2]  what the watermark must be
-- ARGV[3]  the command: UNLINK, HDEL, ZREM, SREM
-- ARGV[4…] its arguments after the keys
-- Reply    that of the command; nil, and nothing was done, if fence or watermark are
--          something else
--
-- Only the sync worker uses it, while Redis has no memory left.  A script without
-- flags is what Redis before 7 runs as well, and those after do not refuse it for
-- want of memory.

for i = 1, 2 do
	if redis.call('GET', KEYS[i]) ~= ARGV[i] then
		return false
	end
end
local words = {ARGV[3]}
for i = 3, #KEYS do
	words[#words + 1] = KEYS[i]
end
for i = 4, #ARGV do
	words[#words + 1] = ARGV[i]
end
return redis.call(unpack(words))

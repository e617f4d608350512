-- cached_release.lua
--   Ends a lease of cached_get.lua without a value: the next who asks gets it.
--
-- KEYS[1]  what is known of the cached value, a hash: hybrid_cache:cached:{KEY},
--          see README.md
-- ARGV[1]  token: of the lease
-- Reply    1, or 0 if the lease had ended before

if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[1] then
	return 0
end
redis.call('HDEL', KEYS[1], 'holder', 'for', 'ends')
return 1

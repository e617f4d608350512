/*
 * on_commit.c
 *	  redis_on_commit(): a command that the sync worker runs when the transaction
 *	  has committed.
 *
 * The command goes into the change record, among the changes of rows, and from
 * there into the MULTI in which Redis also gets the watermark.  So it is run if
 * and only if the transaction commits, in its place, and once, also when the
 * server or Redis stops in between.
 *
 * Nobody sees the answer, so what only reads is refused, like what does not
 * belong into the worker's transaction or would take the data away that the
 * worker relies on.  What else is wrong with it is found out by Redis, and
 * becomes a dead letter.
 */
#include "postgres.h"

#include "capture/buffer.h"
#include "command/refused.h"
#include "command/variadic.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "settings.h"

PG_FUNCTION_INFO_V1(hybrid_cache_on_commit);

#define FUNCTION_NAME	"redis_on_commit()"

/* The longest command: it must fit into a WAL record with others. */
#define MAX_BYTES		(512 * 1024 * 1024)

/* Redis before 7 ends the connection of who sends more. */
#define MAX_WORDS		(1024 * 1024)

/* These only answer. */
static const char *const readers[] = {
	"BITCOUNT", "BITFIELD_RO", "BITPOS", "COMMAND", "DBSIZE", "DUMP", "ECHO",
	"EVALSHA_RO", "EVAL_RO", "EXISTS", "EXPIRETIME", "FCALL_RO", "GEODIST",
	"GEOHASH", "GEOPOS", "GEORADIUSBYMEMBER_RO", "GEORADIUS_RO", "GEOSEARCH",
	"GET", "GETBIT", "GETRANGE", "HEXISTS", "HGET", "HGETALL", "HKEYS", "HLEN",
	"HMGET", "HRANDFIELD", "HSCAN", "HSTRLEN", "HVALS", "INFO", "KEYS",
	"LASTSAVE", "LATENCY", "LCS", "LINDEX", "LLEN", "LOLWUT", "LPOS", "LRANGE",
	"MEMORY", "MGET", "OBJECT", "PEXPIRETIME", "PING", "PTTL", "PUBSUB",
	"RANDOMKEY", "ROLE", "SCAN", "SCARD", "SDIFF", "SINTER", "SINTERCARD",
	"SISMEMBER", "SLOWLOG", "SMEMBERS", "SMISMEMBER", "SORT_RO", "SRANDMEMBER",
	"SSCAN", "STRLEN", "SUBSTR", "SUNION", "TIME", "TTL", "TYPE", "XINFO",
	"XLEN", "XPENDING", "XRANGE", "XREAD", "XREADGROUP", "XREVRANGE", "ZCARD",
	"ZCOUNT", "ZDIFF", "ZINTER", "ZINTERCARD", "ZLEXCOUNT", "ZMSCORE",
	"ZRANDMEMBER", "ZRANGE", "ZRANGEBYLEX", "ZRANGEBYSCORE", "ZRANK",
	"ZREVRANGE", "ZREVRANGEBYLEX", "ZREVRANGEBYSCORE", "ZREVRANK", "ZSCAN",
	"ZSCORE", "ZUNION"
};

/* These are about the server or all of its data. */
static const char *const administrators[] = {
	"ACL", "BGREWRITEAOF", "BGSAVE", "CLIENT", "CLUSTER", "CONFIG", "DEBUG",
	"FAILOVER", "FLUSHALL", "FLUSHDB", "MIGRATE", "MODULE", "PFDEBUG",
	"PFSELFTEST", "REPLICAOF", "SAVE", "SHUTDOWN", "SLAVEOF", "SWAPDB"
};

/* Where the first key of a command is, unless that is its first argument. */
typedef struct KeyPlace
{
	const char *command;
	int			place;			/* 0: there is none */
} KeyPlace;

static const KeyPlace key_places[] = {
	{"BITOP", 2},
	{"EVAL", 3},
	{"EVALSHA", 3},
	{"FCALL", 3},
	{"FUNCTION", 0},
	{"SCRIPT", 0},
	{"XGROUP", 2}
};

static void check_refused(const HcArguments *args);
static HcBytes find_key(const HcArguments *args);

/*
 * redis_on_commit(VARIADIC "any") RETURNS void
 */
Datum
hybrid_cache_on_commit(PG_FUNCTION_ARGS)
{
	HcArguments args;
	StringInfoData words;
	HcOp		op = {0};
	size_t		size = 0;

	hc_variadic_read(&args, fcinfo, FUNCTION_NAME);
	hc_refused_check(&args, FUNCTION_NAME);
	check_refused(&args);
	PreventCommandIfReadOnly(FUNCTION_NAME);
	if (!hc_enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("changes are not captured while hybrid_cache.enabled is off")));
	for (int i = 0; i < args.n; i++)
		size += args.len[i];
	if (size > MAX_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("command of " FUNCTION_NAME " is too long"),
				 errdetail("It has %zu bytes, and can have 512 MB.", size)));
	if (args.n > MAX_WORDS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("command of " FUNCTION_NAME " is too long"),
				 errdetail("It has %d words, and can have %d.", args.n, MAX_WORDS)));

	initStringInfo(&words);
	for (int i = 0; i < args.n; i++)
		hc_op_hash_append(&words, args.data[i], args.len[i]);
	op.kind = HC_OP_COMMAND;
	op.key = find_key(&args);
	op.value.data = words.data;
	op.value.len = words.len;
	op.lsn_at = HC_OP_NO_LSN;
	hc_buffer_append(&op);
	pfree(words.data);
	PG_RETURN_VOID();
}

static void
check_refused(const HcArguments *args)
{
	const char *name = hc_refused_find(args, readers, lengthof(readers));

	if (name != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg(FUNCTION_NAME " does not support %s", name),
				 errdetail("It only reads, and nobody would see what it answers."),
				 errhint("Use redis_command().")));
	name = hc_refused_find(args, administrators, lengthof(administrators));
	if (name != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg(FUNCTION_NAME " does not support %s", name),
				 errdetail("It is about the server, or about all of its data, and would be run in the middle of changes."),
				 errhint("Use a Redis client.")));
}

/* What the command is about, for who has to do with it if Redis refuses it. */
static HcBytes
find_key(const HcArguments *args)
{
	HcBytes		key = {"", 0};
	int			place = 1;

	for (int i = 0; i < (int) lengthof(key_places); i++)
	{
		if (hc_refused_find(args, &key_places[i].command, 1) != NULL)
			place = key_places[i].place;
	}

	/* a script may have no keys, but arguments */
	if (place == 3 && args->n > 2 && args->len[2] == 1 && args->data[2][0] == '0')
		place = 0;
	if (place > 0 && place < args->n)
	{
		key.data = args->data[place];
		key.len = args->len[place];
	}
	return key;
}

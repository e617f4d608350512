/*
 * reply.c
 *	  What Redis answered, checked before anybody uses it.
 *
 * An error reply is one line whose first word is a code, such as WRONGTYPE, or
 * ERR for all that have none; then only the text tells them apart.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "redis/reply.h"

/* The most of Redis's own words that a message repeats, in bytes. */
#define MAX_DETAIL	1000

typedef struct ErrorText
{
	const char *prefix;			/* of the message */
	int			sqlstate;
	const char *hint;
} ErrorText;

static const ErrorText error_texts[] = {
	{"WRONGPASS ", ERRCODE_INVALID_PASSWORD,
	"Check user and password in hybrid_cache.redis_url."},
	{"NOAUTH ", ERRCODE_INVALID_PASSWORD,
	"Put the password into hybrid_cache.redis_url, as in redis://:password@host."},
	{"ERR invalid password", ERRCODE_INVALID_PASSWORD,
	"Check the password in hybrid_cache.redis_url."},
	{"ERR AUTH ", ERRCODE_INVALID_PASSWORD,
	"This Redis server wants no password: take it out of hybrid_cache.redis_url."},
	{"ERR Client sent AUTH, but no password is set", ERRCODE_INVALID_PASSWORD,
	"This Redis server wants no password: take it out of hybrid_cache.redis_url."},
	{"NOPERM ", ERRCODE_INSUFFICIENT_PRIVILEGE,
	"Grant it to the user of hybrid_cache.redis_url with ACL SETUSER, in Redis."},
	{"OOM ", ERRCODE_OUT_OF_MEMORY,
	"Raise maxmemory in the configuration of Redis, or let it evict keys."},
	{"WRONGTYPE ", ERRCODE_WRONG_OBJECT_TYPE,
	"TYPE tells what the key holds."},
	{"READONLY ", ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
	"hybrid_cache.redis_url names a replica; only the primary takes writes."},
	{"MASTERDOWN ", ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
	"hybrid_cache.redis_url names a replica that has lost its primary."},
	{"NOREPLICAS ", ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
	"Redis takes no writes until it has as many replicas as min-replicas-to-write demands."},
	{"LOADING ", ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
	"Redis has just started; try again in a moment."},
	{"BUSY ", ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
	"A script occupies Redis; SCRIPT KILL or FUNCTION KILL ends it."},
	{"MISCONF ", ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
	"Redis cannot save to its disk and takes no writes until it can."},
	{"MOVED ", ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
	"hybrid_cache.redis_url names one node of a Redis Cluster; the key is on another."},
	{"ASK ", ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
	"hybrid_cache.redis_url names one node of a Redis Cluster; the key is on another."},
	{"CROSSSLOT ", ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
	"hybrid_cache.redis_url names one node of a Redis Cluster, which cannot use several keys together."},
	{"CLUSTERDOWN ", ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
	"Redis Cluster is not complete; CLUSTER INFO tells why."},
	{"TRYAGAIN ", ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
	"Redis Cluster is moving keys; try again in a moment."},
	{"ERR max number of clients reached", ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
	"Raise maxclients in the configuration of Redis, or close connections."},
	{"ERR unknown command", ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
	"This Redis server is too old, or the command is renamed in its configuration."},
	{"ERR string exceeds maximum allowed size", ERRCODE_PROGRAM_LIMIT_EXCEEDED,
	"A string can be as long as proto-max-bulk-len in the configuration of Redis."},
	{"ERR DB index is out of range", ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
	"Check the number of the database in hybrid_cache.redis_url."}
};

/* EXEC repeats the reason for which it discards a transaction. */
static const char discarded[] = "EXECABORT Transaction discarded because of: ";

/* So does a script, of one of its commands. */
static const char in_script[] = "ERR Error running script ";

/*
 * How errors begin that say that this one command can never succeed, whatever
 * the state of the server.  What is not known to be so is not listed: an op that
 * is given up is lost, one that is tried again only waits.  Further on in an
 * error there can be what Redis was sent.
 */
static const char *const hopeless_texts[] = {
	"ERR value is not a valid float",
	"ERR value is not an integer or out of range",
	"ERR string exceeds maximum allowed size",
	"ERR invalid longitude,latitude pair",
	"ERR resulting score is not a number",
	"ERR invalid expire time",
	"ERR increment or decrement would overflow"
};

static const ErrorText *find_text(const char *message);
static bool has_prefix(const char *message, const char *prefix);
static void unexpected(const redisReply *reply, const char *wanted);
static const char *type_name(const redisReply *reply);

HcErrorClass
hc_reply_classify(const char *message)
{
	message = hc_reply_reason(message);
	if (hc_reply_sqlstate(message) == ERRCODE_INVALID_PASSWORD)
		return HC_ERROR_AUTH;
	if (has_prefix(message, "WRONGTYPE "))
		return HC_ERROR_OP;

	if (has_prefix(message, "OOM "))
		return HC_ERROR_FULL;

	/*
	 * A missing right to a key is that entry's misfortune: "access one of the
	 * keys", since 7.2 "access a key", "touch the specified keys" where the
	 * rights changed before EXEC.  So is one to a channel.  A missing right to a
	 * command concerns them all, and waits for an administrator.
	 */
	if (has_prefix(message, "NOPERM "))
		return strstr(message, " key") != NULL ||
			strstr(message, " channel") != NULL ? HC_ERROR_OP : HC_ERROR_RETRY;

	for (int i = 0; i < (int) lengthof(hopeless_texts); i++)
		if (has_prefix(message, hopeless_texts[i]))
			return HC_ERROR_OP;
	return HC_ERROR_RETRY;
}

int
hc_reply_sqlstate(const char *message)
{
	const ErrorText *known = find_text(message);

	return known ? known->sqlstate : ERRCODE_EXTERNAL_ROUTINE_EXCEPTION;
}

const char *
hc_reply_hint(const char *message)
{
	const ErrorText *known = find_text(message);

	return known ? known->hint : NULL;
}

char *
hc_reply_clean(const char *message)
{
	size_t		len = strnlen(message, MAX_DETAIL + 1);
	bool		cut = len > MAX_DETAIL;
	bool		foreign;
	char	   *result;

	/* Since 7.2: "NOPERM User NAME has no permissions ..." */
	if (has_prefix(message, "NOPERM User "))
	{
		const char *rest = strstr(message, " has no permissions");

		if (rest != NULL)
			return hc_reply_clean(psprintf("NOPERM This user%s", rest));
	}

	if (cut)
		len = MAX_DETAIL;
	result = palloc(len + sizeof("..."));
	memcpy(result, message, len);

	/*
	 * Redis quotes what it was sent, cut anywhere.  What cannot be shown
	 * faithfully becomes question marks; another error about the encoding
	 * would hide this one.
	 */
	foreign = GetDatabaseEncoding() != PG_UTF8 ||
		!pg_verify_mbstr(PG_UTF8, result, len, true);
	for (size_t i = 0; i < len; i++)
	{
		if (IS_HIGHBIT_SET(result[i]) && foreign)
			result[i] = '?';
		else if ((unsigned char) result[i] < ' ')
			result[i] = ' ';
	}
	strcpy(result + len, cut ? "..." : "");
	return result;
}

void
hc_reply_check(const redisReply *reply, const char *server)
{
	const char *hint;

	if (reply->type != REDIS_REPLY_ERROR)
		return;

	hint = hc_reply_hint(reply->str);
	ereport(ERROR,
			(errcode(hc_reply_sqlstate(reply->str)),
			 errmsg("Redis server \"%s\" refused the command", server),
			 errdetail_internal("%s", hc_reply_clean(reply->str)),
			 hint ? errhint("%s", hint) : 0));
}

long long
hc_reply_integer(const redisReply *reply)
{
	if (reply->type != REDIS_REPLY_INTEGER)
		unexpected(reply, "an integer");
	return reply->integer;
}

const redisReply *
hc_reply_array(const redisReply *reply, size_t elements)
{
	if (reply->type != REDIS_REPLY_ARRAY)
		unexpected(reply, "an array");
	if (elements != HC_REPLY_ANY_LENGTH && reply->elements != elements)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("unexpected reply from Redis"),
				 errdetail("Expected an array of %zu elements, got one of %zu.",
						   elements, reply->elements)));
	return reply;
}

const redisReply *
hc_reply_string(const redisReply *reply)
{
	if (reply->type != REDIS_REPLY_STRING && reply->type != REDIS_REPLY_STATUS)
		unexpected(reply, "a string");
	return reply;
}

double
hc_reply_double(const redisReply *reply)
{
	char	   *end;
	double		result;

	/* The string ends with a NUL, and strtod() takes inf and nan. */
	result = strtod(hc_reply_string(reply)->str, &end);
	if (reply->len == 0 || end != reply->str + reply->len)
		unexpected(reply, "a number");
	return result;
}

static const ErrorText *
find_text(const char *message)
{
	message = hc_reply_reason(message);
	for (int i = 0; i < (int) lengthof(error_texts); i++)
		if (has_prefix(message, error_texts[i].prefix))
			return &error_texts[i];
	return NULL;
}

/*
 * Before 7, the error of a command in a script comes as "ERR Error running script
 * (call to f_...): @user_script:12: @user_script: 12: -OOM ...".
 */
static const char *
reason_in_script(const char *message)
{
	static const char place[] = "@user_script:";
	const char *found = message;

	while ((found = strstr(found, place)) != NULL)
	{
		found += strlen(place);
		found += strspn(found, " 0123456789");
		if (strncmp(found, ": ", 2) == 0)
			message = found + 2;
	}
	return message[0] == '-' ? message + 1 : message;
}

const char *
hc_reply_reason(const char *message)
{
	if (has_prefix(message, discarded))
		message += strlen(discarded);
	return has_prefix(message, in_script) ? reason_in_script(message) : message;
}

static bool
has_prefix(const char *message, const char *prefix)
{
	return strncmp(message, prefix, strlen(prefix)) == 0;
}

static void
unexpected(const redisReply *reply, const char *wanted)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("unexpected reply from Redis"),
			 errdetail("Expected %s, got %s.", wanted, type_name(reply))));
}

static const char *
type_name(const redisReply *reply)
{
	switch (reply->type)
	{
		case REDIS_REPLY_INTEGER:
			return "an integer";
		case REDIS_REPLY_ARRAY:
			return "an array";
		case REDIS_REPLY_NIL:
			return "nothing";
		case REDIS_REPLY_STRING:
		case REDIS_REPLY_STATUS:
			return "a string";
		case REDIS_REPLY_ERROR:
			return "an error";
		default:
			return "something else";
	}
}

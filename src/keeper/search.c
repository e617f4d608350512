/*
 * search.c
 *	  Finding a mapping's entries in Redis by its templates.
 *
 * Redis is searched with SCAN and its kin, which hold it up for a moment only.
 * A pattern of SCAN finds more than the template means, so what it finds is
 * matched again, with the types of the columns.  What another mapping could have
 * written is left out, and so are the extension's own keys.
 *
 * Who searches says how Redis is asked: a session by its connection, the keeper
 * by its own.
 */
#include "postgres.h"

#include "encoding.h"
#include "keeper/search.h"
#include "redis/reply.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "worker/timer.h"

/* Redis's hint for how much one step of a SCAN looks at. */
#define SCAN_COUNT	"1000"

#define MAX_WORDS	8

/* A command. */
typedef struct Words
{
	int			n;
	const char *data[MAX_WORDS];
	size_t		len[MAX_WORDS];
} Words;

struct HcSearch
{
	HcShape		shape;
	List	   *others;			/* HcShape * */
	const char *key_glob;
	const char *member_glob;
	const char *only_key;		/* there is no other; NULL: there may be */
	const char *type;			/* of Redis, that the keys have */
	bool		timers;			/* entries are beside the keys */
	HcSearchAsk ask;
	void	   *ask_arg;

	MemoryContext context;
	MemoryContext step_context; /* of replies */
	bool		at_end;			/* of the keys */
	char	   *key_cursor;
	List	   *collections;	/* HcBytes *, keys whose members are to be read */
	char	   *member_cursor;	/* in the first of them */
};

HcSearch *
hc_search_create(const HcShape *shape, List *others, HcSearchAsk ask, void *arg)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "hybrid_cache search",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	HcSearch   *search = palloc0(sizeof(HcSearch));
	const HcTemplate *key = shape->key_template;

	search->shape = *shape;
	search->key_glob = hc_encoding_string(hc_template_glob(key));
	if (shape->member_template != NULL)
		search->member_glob = hc_encoding_string(hc_template_glob(shape->member_template));
	if (key->n_parts == 1 && !key->parts[0].is_column)
		search->only_key = hc_encoding_string(key->parts[0].text);
	search->timers = strcmp(shape->type, HC_TYPE_TIMER) == 0;
	search->type = search->timers ? "zset" : shape->type;
	if (search->timers)
		search->key_glob = HC_TIMER_PREFIX "*";
	search->others = others;
	search->ask = ask;
	search->ask_arg = arg;
	search->context = context;
	search->step_context = AllocSetContextCreate(context, "hybrid_cache scan",
												 ALLOCSET_DEFAULT_SIZES);
	search->key_cursor = pstrdup("0");
	search->member_cursor = pstrdup("0");
	MemoryContextSwitchTo(old);
	return search;
}

static void
add_word(Words *words, const char *data, size_t len)
{
	words->data[words->n] = data;
	words->len[words->n++] = len;
}

static void
add_literal(Words *words, const char *word)
{
	add_word(words, word, strlen(word));
}

static HcBytes
reply_bytes(const redisReply *reply)
{
	HcBytes		bytes;

	(void) hc_reply_string(reply);
	bytes.data = reply->str;
	bytes.len = reply->len;
	return bytes;
}

/* Keeps the bytes beyond this step. */
static HcBytes *
keep_bytes(HcSearch *search, HcBytes bytes)
{
	HcBytes    *kept = MemoryContextAlloc(search->context, sizeof(HcBytes));
	char	   *data = MemoryContextAllocZero(search->context, bytes.len + 1);

	memcpy(data, bytes.data, bytes.len);
	kept->data = data;
	kept->len = bytes.len;
	return kept;
}

/*
 * One step of a SCAN of the keyspace (key NULL) or of a collection.  Returns
 * what was found; *cursor is "0" after the last step.
 */
static const redisReply *
scan(HcSearch *search, const char *command, const HcBytes *key, char **cursor,
	 const char *glob, const char *type)
{
	Words		words = {0};
	const redisReply *reply;
	HcBytes		next;

	add_literal(&words, command);
	if (key != NULL)
		add_word(&words, key->data, key->len);
	add_literal(&words, *cursor);
	add_literal(&words, "MATCH");
	add_literal(&words, glob);
	add_literal(&words, "COUNT");
	add_literal(&words, SCAN_COUNT);
	if (type != NULL)
	{
		add_literal(&words, "TYPE");
		add_literal(&words, type);
	}
	reply = hc_reply_array(search->ask(words.n, words.data, words.len,
									   search->ask_arg), 2);
	next = reply_bytes(reply->element[0]);
	pfree(*cursor);
	*cursor = MemoryContextAllocZero(search->context, next.len + 1);
	memcpy(*cursor, next.data, next.len);
	return hc_reply_array(reply->element[1], HC_REPLY_ANY_LENGTH);
}

/* A candidate: it counts if it is the mapping's and nobody else's. */
static void
consider(HcSearch *search, HcBytes key, const HcBytes *member,
		 HcSearchFound found, void *arg)
{
	ListCell   *lc;

	if (!hc_shape_matches(&search->shape, key, member))
		return;
	foreach(lc, search->others)
	{
		if (hc_shape_matches(lfirst(lc), key, member))
			return;
	}
	found(key, member, arg);
}

/* Where the members of a key are. */
static HcBytes
place_of(const HcSearch *search, HcBytes key)
{
	StringInfoData name;
	HcBytes		place;

	if (!search->timers)
		return key;
	initStringInfo(&name);
	hc_timer_key(&name, key);
	place.data = name.data;
	place.len = name.len;
	return place;
}

/* A key of the right type that the pattern found. */
static void
take_key(HcSearch *search, HcBytes key, HcSearchFound found, void *arg)
{
	if (hc_op_is_own_key(key))
		return;
	if (search->shape.member == NULL)
		consider(search, key, NULL, found, arg);
	else if (hc_match(search->shape.key, key.data, key.len))
	{
		MemoryContext old = MemoryContextSwitchTo(search->context);

		search->collections = lappend(search->collections, keep_bytes(search, key));
		MemoryContextSwitchTo(old);
	}
}

/* A template without columns is one key: asking for it needs no SCAN. */
static void
step_one_key(HcSearch *search, HcSearchFound found, void *arg)
{
	HcBytes		key = {search->only_key, strlen(search->only_key)};
	Words		words = {0};
	HcBytes		type;

	HcBytes		place = place_of(search, key);

	add_literal(&words, "TYPE");
	add_word(&words, place.data, place.len);
	type = reply_bytes(search->ask(words.n, words.data, words.len, search->ask_arg));
	if (type.len == strlen(search->type) &&
		memcmp(type.data, search->type, type.len) == 0)
		take_key(search, key, found, arg);
	search->at_end = true;
}

static void
step_keys(HcSearch *search, HcSearchFound found, void *arg)
{
	const redisReply *keys = scan(search, "SCAN", NULL, &search->key_cursor,
								  search->key_glob, search->type);
	size_t		i;

	search->at_end = strcmp(search->key_cursor, "0") == 0;
	for (i = 0; i < keys->elements; i++)
	{
		HcBytes		name = reply_bytes(keys->element[i]);
		HcBytes		streams[2];
		int			n;

		if (!search->timers)
			take_key(search, name, found, arg);
		else
		{
			for (n = hc_timer_streams(name, streams); n > 0; n--)
				take_key(search, streams[n - 1], found, arg);
		}
	}
}

/* Goes on with the members of the first collection. */
static void
step_members(HcSearch *search, HcSearchFound found, void *arg)
{
	const char *type = search->type;
	const char *command = strcmp(type, "hash") == 0 ? "HSCAN" :
		strcmp(type, "zset") == 0 ? "ZSCAN" : "SSCAN";
	int			stride = strcmp(type, "set") == 0 ? 1 : 2;
	HcBytes    *key = linitial(search->collections);
	HcBytes		place = place_of(search, *key);
	const redisReply *members = scan(search, command, &place, &search->member_cursor,
									 search->member_glob, NULL);
	size_t		i;

	for (i = 0; i < members->elements; i += stride)
	{
		HcBytes		member = reply_bytes(members->element[i]);

		consider(search, *key, &member, found, arg);
	}
	if (strcmp(search->member_cursor, "0") == 0)
	{
		search->collections = list_delete_first(search->collections);
		pfree(unconstify(char *, key->data));
		pfree(key);
	}
}

bool
hc_search_step(HcSearch *search, HcSearchFound found, void *arg)
{
	MemoryContext old;

	if (search->at_end && search->collections == NIL)
		return false;
	MemoryContextReset(search->step_context);
	old = MemoryContextSwitchTo(search->step_context);
	if (search->collections != NIL)
		step_members(search, found, arg);
	else if (search->only_key != NULL)
		step_one_key(search, found, arg);
	else
		step_keys(search, found, arg);
	MemoryContextSwitchTo(old);
	return true;
}

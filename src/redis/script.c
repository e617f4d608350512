/*
 * script.c
 *	  The Lua scripts of src/lua, which Redis runs as one command.
 *
 * They are files of their own, so that any client can use them, and part of the
 * library, so that what runs always fits the code that calls it.  The Makefile
 * makes C strings of them, without a change of any byte: Redis knows a script by
 * the hash of its text, and ours is to be that of the file.
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/sha1.h"
#include "redis/script.h"
#include "utils/builtins.h"
#include "utils/resowner.h"

typedef struct Source
{
	const char *name;
	const char *text;
} Source;

static const Source sources[] = {
#include "redis/scripts.inc"
};

/* What was asked for before; an empty sha1: not yet. */
static HcScript scripts[lengthof(sources)];

/* Background processes have no resource owner, without which no hash is made. */
static void
compute_sha1(HcScript *script)
{
	ResourceOwner old = CurrentResourceOwner;
	ResourceOwner owner = ResourceOwnerCreate(old, "hybrid_cache script");
	uint8		digest[SHA1_DIGEST_LENGTH];
	pg_cryptohash_ctx *ctx;
	bool		done;

	CurrentResourceOwner = owner;
	ctx = pg_cryptohash_create(PG_SHA1);
	done = pg_cryptohash_init(ctx) >= 0 &&
		pg_cryptohash_update(ctx, (const uint8 *) script->text, script->len) >= 0 &&
		pg_cryptohash_final(ctx, digest, sizeof(digest)) >= 0;
	pg_cryptohash_free(ctx);
	CurrentResourceOwner = old;
	ResourceOwnerDelete(owner);
	if (!done)
		elog(ERROR, "could not compute the SHA1 of script \"%s\"", script->name);
	hex_encode((const char *) digest, sizeof(digest), script->sha1);
	script->sha1[2 * sizeof(digest)] = '\0';
}

const HcScript *
hc_script_get(const char *name)
{
	size_t		i;

	for (i = 0; i < lengthof(sources); i++)
	{
		HcScript   *script = &scripts[i];

		if (strcmp(sources[i].name, name) != 0)
			continue;
		if (script->sha1[0] == '\0')
		{
			script->name = sources[i].name;
			script->text = sources[i].text;
			script->len = strlen(script->text);
			compute_sha1(script);
		}
		return script;
	}
	elog(ERROR, "there is no script \"%s\"", name);
}

bool
hc_script_is_unknown(const redisReply *reply)
{
	return reply->type == REDIS_REPLY_ERROR &&
		strncmp(reply->str, "NOSCRIPT ", 9) == 0;
}

/*
 * script.h
 *	  The Lua scripts of src/lua, which Redis runs as one command.
 */
#ifndef HC_SCRIPT_H
#define HC_SCRIPT_H

#include <hiredis/hiredis.h>

typedef struct HcScript
{
	const char *name;			/* that of its file, without .lua */
	const char *text;			/* the file, byte by byte */
	size_t		len;
	char		sha1[41];		/* of text, in hex digits; what Redis knows it by */
} HcScript;

/* The script of this name, for as long as the process lives. */
extern const HcScript *hc_script_get(const char *name);

/* Is it the reply to EVALSHA of a script that Redis does not have (any more)? */
extern bool hc_script_is_unknown(const redisReply *reply);

#endif							/* HC_SCRIPT_H */

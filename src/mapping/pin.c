/*
 * pin.c
 *	  Fixed settings and the table owner's rights while a user's expression runs.
 *
 * What a value looks like must not depend on who changed the row.  Setting a
 * dozen variables for every row would be slow, so each is compared first: in a
 * session with PostgreSQL's defaults hardly anything has to be set.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "mapping/pin.h"
#include "miscadmin.h"
#include "utils/guc.h"

/* a temporary table must never hide a function's or type's name */
#define SEARCH_PATH	"pg_catalog, pg_temp"

static const struct
{
	const char *name;
	const char *value;
}			pinned[] =
{
	{"search_path", SEARCH_PATH},
	{"TimeZone", "UTC"},
	{"DateStyle", "ISO, MDY"},
	{"IntervalStyle", "postgres"},
	{"extra_float_digits", "1"},
	{"bytea_output", "hex"},
	{"xmlbinary", "base64"},
	{"lc_monetary", "C"},
	{"lc_numeric", "C"},
	{"lc_time", "C"}
};

static void
set_option(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

void
hc_pin_begin(HcPin *pin, Oid owner)
{
	int			i;

	GetUserIdAndSecContext(&pin->user, &pin->sec_context);
	pin->nestlevel = 0;
	for (i = 0; i < (int) lengthof(pinned); i++)
	{
		const char *current = GetConfigOption(pinned[i].name, false, false);

		if (current != NULL && strcmp(current, pinned[i].value) == 0)
			continue;
		if (pin->nestlevel == 0)
			pin->nestlevel = NewGUCNestLevel();
		set_option(pinned[i].name, pinned[i].value);
	}
	SetUserIdAndSecContext(owner,
						   pin->sec_context | SECURITY_RESTRICTED_OPERATION);
}

void
hc_pin_end(const HcPin *pin)
{
	if (pin->nestlevel != 0)
		AtEOXact_GUC(true, pin->nestlevel);
	SetUserIdAndSecContext(pin->user, pin->sec_context);
}

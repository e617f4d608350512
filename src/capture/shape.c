/*
 * shape.c
 *	  What the entries of a mapping look like: which mapping has an entry?
 *
 * An entry in Redis does not say who made it.  So its key and member are read
 * against the templates of the mappings.
 */
#include "postgres.h"

#include "capture/shape.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

static const char *
live_type(const char *column, void *arg)
{
	Oid			relid = *(Oid *) arg;
	AttrNumber	attnum = get_attnum(relid, column);

	if (attnum == InvalidAttrNumber)
		return NULL;
	return format_type_be(getBaseType(get_atttype(relid, attnum)));
}

/* The template with literal text before it. */
static HcTemplate *
prefixed(const HcTemplate *tmpl, const char *prefix)
{
	HcTemplate *result = palloc(sizeof(HcTemplate));
	int			first = 0;

	result->parts = palloc((tmpl->n_parts + 1) * sizeof(HcTemplatePart));
	result->n_parts = 0;
	if (prefix[0] != '\0')
	{
		HcTemplatePart *part = &result->parts[result->n_parts++];

		part->is_column = false;
		part->text = pstrdup(prefix);
		if (!tmpl->parts[0].is_column)
		{
			part->text = psprintf("%s%s", prefix, tmpl->parts[0].text);
			first = 1;
		}
	}
	for (; first < tmpl->n_parts; first++)
		result->parts[result->n_parts++] = tmpl->parts[first];
	return result;
}

void
hc_shape_make(HcShape *shape, const HcClaim *claim, const char *prefix,
			  HcTypeLookup lookup, void *arg)
{
	shape->type = claim->type;
	shape->key_template = prefixed(claim->key, prefix);
	shape->key = hc_match_compile(shape->key_template, lookup, arg);
	shape->member_template = claim->member;
	shape->member = claim->member != NULL
		? hc_match_compile(claim->member, lookup, arg) : NULL;
}

bool
hc_shape_of_trigger(HcShape *shape, const HcTrigger *trigger)
{
	Oid			relid = trigger->relid;
	HcClaim		claim;

	if (!hc_check_trigger_claim(&claim, trigger))
		return false;
	hc_shape_make(shape, &claim, hc_key_prefix, live_type, &relid);
	return true;
}

List *
hc_shape_others(Oid mapping)
{
	List	   *shapes = NIL;
	ListCell   *lc;

	foreach(lc, hc_catalog_database())
	{
		const HcTrigger *trigger = lfirst(lc);
		HcShape    *shape = palloc(sizeof(HcShape));

		if (trigger->oid != mapping && !hc_catalog_is_event(trigger) &&
			hc_shape_of_trigger(shape, trigger) && shape->type != NULL)
			shapes = lappend(shapes, shape);
	}
	return shapes;
}

bool
hc_shape_matches(const HcShape *shape, HcBytes key, const HcBytes *member)
{
	if (!hc_match(shape->key, key.data, key.len))
		return false;

	/* part of a key against a whole key: one would take the other along */
	if (shape->member == NULL || member == NULL)
		return true;
	return hc_match(shape->member, member->data, member->len);
}

bool
hc_shape_is_certain(const HcShape *shape)
{
	return !shape->key_template->parts[0].is_column &&
		hc_match_is_certain(shape->key) &&
		(shape->member == NULL || hc_match_is_certain(shape->member));
}

List *
hc_shape_candidates(Oid relid)
{
	List	   *triggers = OidIsValid(relid) ?
		hc_catalog_relation(relid, NULL) : hc_catalog_database();
	List	   *candidates = NIL;
	ListCell   *lc;

	foreach(lc, triggers)
	{
		HcCandidate *candidate = palloc(sizeof(HcCandidate));

		if (!hc_catalog_is_row(lfirst(lc)) || hc_catalog_is_event(lfirst(lc)))
			continue;
		candidate->mapping = hc_catalog_mapping(lfirst(lc));
		if (hc_shape_of_trigger(&candidate->shape, candidate->mapping))
			candidates = lappend(candidates, candidate);
	}
	return candidates;
}

List *
hc_shape_having(const List *candidates, HcBytes key, const HcBytes *member)
{
	List	   *having = NIL;
	ListCell   *lc;

	foreach(lc, candidates)
	{
		const HcCandidate *candidate = lfirst(lc);

		if ((candidate->shape.member == NULL) == (member == NULL) &&
			hc_shape_matches(&candidate->shape, key, member))
			having = lappend(having, lfirst(lc));
	}
	return having;
}

HcOpKind
hc_shape_removal(const HcShape *shape)
{
	if (shape->member == NULL)
		return HC_OP_UNLINK;
	if (strcmp(shape->type, "hash") == 0)
		return HC_OP_HDEL;
	if (strcmp(shape->type, HC_TYPE_TIMER) == 0)
		return HC_OP_UNTIMER;
	return strcmp(shape->type, "zset") == 0 ? HC_OP_ZREM : HC_OP_SREM;
}

/*
 * change.c
 *	  OLD and NEW in the expressions of events.
 *
 * The parser knows the row, OLD and NEW as three relations.  The executor gets
 * them in the three slots that it has for scans and joins, so that expressions
 * need no Params and no copies of rows.
 *
 * A definition is text, so what was parsed must become text again.  PostgreSQL
 * deparses columns either all with the names of their relations or all without.
 * Here only OLD and NEW may have them: the table can be renamed.  So the row gets
 * a name for the time being that does not occur in the source, and what is
 * written of it is taken out.
 */
#include "postgres.h"

#include "mapping/change.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_relation.h"
#include "utils/builtins.h"
#include "utils/ruleutils.h"

/* The relations' numbers in the parser. */
#define ROW_VARNO	1
#define OLD_VARNO	2
#define NEW_VARNO	3


static void
add(ParseState *pstate, Relation rel, const char *alias, bool rel_visible,
	bool columns_visible)
{
	ParseNamespaceItem *nsitem;

	nsitem = addRangeTableEntryForRelation(pstate, rel, AccessShareLock,
										   alias != NULL ? makeAlias(alias, NIL) : NULL,
										   false, true);
	addNSItemToQuery(pstate, nsitem, false, rel_visible, columns_visible);
}

void
hc_change_add(ParseState *pstate, Relation rel, HcScope scope)
{
	const char *name = RelationGetRelationName(rel);

	if (scope == HC_SCOPE_ROW)
		add(pstate, rel, NULL, true, true);
	else
	{
		/* a table can be called "old" */
		add(pstate, rel, NULL, strcmp(name, "old") != 0 && strcmp(name, "new") != 0,
			true);
		add(pstate, rel, "old", true, false);
		add(pstate, rel, "new", true, false);
	}
}

static bool
to_slots_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		if (var->varno == OLD_VARNO)
			var->varno = INNER_VAR;
		else if (var->varno == NEW_VARNO)
			var->varno = OUTER_VAR;
	}
	return expression_tree_walker(node, to_slots_walker, context);
}

void
hc_change_to_slots(Node *node)
{
	(void) to_slots_walker(node, NULL);
}

static bool
to_relation_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
		((Var *) node)->varno = ROW_VARNO;
	return expression_tree_walker(node, to_relation_walker, context);
}

Node *
hc_change_to_relation(Node *node)
{
	node = copyObject(node);
	(void) to_relation_walker(node, NULL);
	return node;
}

Bitmapset *
hc_change_attrs(Node *node, Bitmapset *attrs)
{
	pull_varattnos(node, ROW_VARNO, &attrs);
	pull_varattnos(node, (Index) INNER_VAR, &attrs);
	pull_varattnos(node, (Index) OUTER_VAR, &attrs);
	return attrs;
}

/* Each relation becomes the only one of a query level of its own. */
static bool
to_levels_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		var->varlevelsup = var->varno - ROW_VARNO;
		var->varno = ROW_VARNO;
		var->varnosyn = ROW_VARNO;
	}
	return expression_tree_walker(node, to_levels_walker, context);
}

char *
hc_change_deparse(Node *node, Relation rel, const char *source)
{
	Oid			relid = RelationGetRelid(rel);
	char	   *row = pstrdup("hybrid_cache_row");
	List	   *context;
	char	   *text;
	char	   *qualifier;
	StringInfoData result;
	int			n = 0;

	while (strstr(source, row) != NULL)
		row = psprintf("hybrid_cache_row%d", n++);
	context = list_concat(deparse_context_for(row, relid),
						  list_concat(deparse_context_for("old", relid),
									  deparse_context_for("new", relid)));
	node = copyObject(node);
	(void) to_levels_walker(node, NULL);
	text = deparse_expression(node, context, true, false);

	qualifier = psprintf("%s.", row);
	initStringInfo(&result);
	for (;;)
	{
		char	   *found = strstr(text, qualifier);

		if (found == NULL)
			break;
		appendBinaryStringInfo(&result, text, found - text);
		text = found + strlen(qualifier);
	}
	appendStringInfoString(&result, text);
	return result.data;
}

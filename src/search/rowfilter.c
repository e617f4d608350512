/*
 * rowfilter.c
 *	  A condition over a row that the caller of a function gives as SQL.
 *
 * It becomes part of a query that runs as the caller, who could as well have
 * written that query: so what it computes is the caller's business.  But it must
 * stay in its place, and what is wrong with it must be said in its own terms:
 * so it is parsed alone first.
 */
#include "postgres.h"

#include "nodes/parsenodes.h"
#include "parser/parse_coerce.h"
#include "parser/parse_expr.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "search/rowfilter.h"
#include "utils/builtins.h"

/* What the text is put behind to make a statement of it. */
#define STATEMENT_START	"SELECT "

/* Errors of the parser point into the statement; let them point into the text. */
static void
filter_error_callback(void *arg)
{
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(Max(position - (int) strlen(STATEMENT_START), 1));
		internalerrquery((const char *) arg);
	}
	errcontext("argument filter");
}

/* The raw parse tree of the expression. */
static Node *
parse(const char *statement, const char *filter)
{
	List	   *statements = raw_parser(statement, RAW_PARSE_DEFAULT);
	SelectStmt	bare = {0};

	if (list_length(statements) == 1 &&
		IsA(linitial_node(RawStmt, statements)->stmt, SelectStmt))
	{
		SelectStmt *select = (SelectStmt *) linitial_node(RawStmt, statements)->stmt;

		/* nothing but one expression: no FROM, no second one, no name ... */
		bare.type = T_SelectStmt;
		bare.targetList = select->targetList;
		bare.limitOption = select->limitOption;
		bare.groupDistinct = select->groupDistinct;
		if (equal(select, &bare) && list_length(select->targetList) == 1)
		{
			ResTarget  *target = linitial_node(ResTarget, select->targetList);

			if (target->name == NULL && !IsA(target->val, ColumnRef))
				return target->val;
			if (target->name == NULL &&
				!IsA(llast(((ColumnRef *) target->val)->fields), A_Star))
				return target->val;
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("filter is not an expression: \"%s\"", filter),
			 errhint("It is SQL over the row, as after WHERE: $$rating > 4$$.")));
}

void
hc_rowfilter_check(Relation rel, const char *filter)
{
	char	   *statement = psprintf(STATEMENT_START "%s", filter);
	ParseState *pstate = make_parsestate(NULL);
	ErrorContextCallback callback;
	ParseNamespaceItem *nsitem;
	Node	   *node;

	callback.callback = filter_error_callback;
	callback.arg = unconstify(char *, filter);
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	nsitem = addRangeTableEntryForRelation(pstate, rel, AccessShareLock,
										   NULL, false, true);
	addNSItemToQuery(pstate, nsitem, false, true, true);
	pstate->p_sourcetext = statement;
	node = transformExpr(pstate, parse(statement, filter), EXPR_KIND_WHERE);
	(void) coerce_to_boolean(pstate, node, "filter");
	free_parsestate(pstate);
	error_context_stack = callback.previous;
}

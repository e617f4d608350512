/*
 * expression.c
 *	  SQL expressions over a row: parsing and checking the ones that a mapping's
 *	  options contain.
 *
 * An entry must be a function of its row alone, or Redis could not be kept
 * equal: so subqueries, volatile functions and whatever reads the clock or the
 * session are refused here, once, when the mapping is made.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/transam.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "mapping/change.h"
#include "mapping/expression.h"
#include "mapping/pin.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_relation.h"
#include "parser/parse_target.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

/* What the source is put behind to make a statement of it. */
#define STATEMENT_START	"SELECT "

/* Where an error happened, for the context callback. */
typedef struct HcSource
{
	const char *option;
	const char *text;			/* as the user wrote it */
	HcScope		scope;
} HcSource;

/* Functions that are stable but read the clock or the session. */
static const Oid session_functions[] = {
	F_NOW, F_TRANSACTION_TIMESTAMP, F_STATEMENT_TIMESTAMP,
	F_AGE_TIMESTAMP, F_AGE_TIMESTAMPTZ, F_AGE_XID,
	F_CURRENT_USER, F_SESSION_USER, F_CURRENT_DATABASE,
	F_CURRENT_SCHEMA, F_CURRENT_SCHEMAS,
	F_CURRENT_SETTING_TEXT, F_CURRENT_SETTING_TEXT_BOOL,
	F_INET_CLIENT_ADDR, F_INET_CLIENT_PORT,
	F_INET_SERVER_ADDR, F_INET_SERVER_PORT,
	F_PG_BACKEND_PID, F_PG_MY_TEMP_SCHEMA, F_PG_TRIGGER_DEPTH,
	F_PG_POSTMASTER_START_TIME, F_PG_CONF_LOAD_TIME,
	F_TXID_CURRENT, F_TXID_CURRENT_IF_ASSIGNED, F_TXID_CURRENT_SNAPSHOT,
	F_PG_CURRENT_XACT_ID, F_PG_CURRENT_XACT_ID_IF_ASSIGNED,
	F_PG_CURRENT_SNAPSHOT, F_GETDATABASEENCODING, F_PG_CLIENT_ENCODING
};

static ParseState *begin_parse(Relation rel, const HcSource *source,
							   ErrorContextCallback *callback);
static List *parse_targets(const HcSource *source, bool list);
static Node *transform(ParseState *pstate, const HcSource *source, Node *raw);
static HcExpression *finish(ParseState *pstate, const HcSource *source,
							Node *node, HcPurpose purpose);
static void check_node(const HcSource *source, Node *node);
static bool is_pure(Node *node);

HcExpression *
hc_expression_column(Relation rel, const char *option, const char *column,
					 HcPurpose purpose)
{
	AttrNumber	attnum = get_attnum(RelationGetRelid(rel), column);
	HcSource	source = {option, column, HC_SCOPE_ROW};
	ErrorContextCallback callback;
	ParseState *pstate;
	HcExpression *expression;
	Form_pg_attribute att;

	if (attnum <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s\" does not exist",
						column, RelationGetRelationName(rel)),
				 errdetail("Mapping option \"%s\" names it.", option),
				 strchr(column, ':') != NULL
				 ? errhint("To write a literal brace, double it: \"{{\" and \"}}\".") : 0));

	att = TupleDescAttr(RelationGetDescr(rel), attnum - 1);
	pstate = begin_parse(rel, &source, &callback);
	expression = finish(pstate, &source,
						(Node *) makeVar(1, attnum, att->atttypid,
										 att->atttypmod, att->attcollation, 0),
						purpose);
	error_context_stack = callback.previous;
	free_parsestate(pstate);
	expression->name = pstrdup(column);
	return expression;
}

HcExpression *
hc_expression_parse(Relation rel, const char *option, const char *text,
					HcScope scope, HcPurpose purpose)
{
	HcSource	source = {option, text, scope};
	ErrorContextCallback callback;
	ParseState *pstate = begin_parse(rel, &source, &callback);
	ResTarget  *target = linitial_node(ResTarget, parse_targets(&source, false));
	HcExpression *expression;

	expression = finish(pstate, &source,
						transform(pstate, &source, target->val), purpose);
	error_context_stack = callback.previous;
	free_parsestate(pstate);
	return expression;
}

/* The name of a list's element, as SELECT would name the column. */
static char *
target_name(const ResTarget *target)
{
	return target->name != NULL ? target->name : FigureColname(target->val);
}

List *
hc_expression_parse_list(Relation rel, const char *option, const char *text,
						 HcScope scope, HcPurpose purpose)
{
	HcSource	source = {option, text, scope};
	ErrorContextCallback callback;
	ParseState *pstate = begin_parse(rel, &source, &callback);
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, parse_targets(&source, true))
	{
		ResTarget  *target = lfirst_node(ResTarget, lc);
		char	   *name = target_name(target);
		HcExpression *expression;
		ListCell   *other;

		foreach(other, result)
		{
			if (strcmp(((HcExpression *) lfirst(other))->name, name) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("column name \"%s\" appears more than once in mapping option \"%s\"",
								name, option),
						 errhint("Give each a name of its own: expression AS name.")));
		}
		expression = finish(pstate, &source,
							transform(pstate, &source, target->val), purpose);
		expression->name = pstrdup(name);
		result = lappend(result, expression);
	}
	error_context_stack = callback.previous;
	free_parsestate(pstate);
	return result;
}

char *
hc_expression_qualify(Relation rel, const char *option, const char *text,
					  HcScope scope, bool list)
{
	HcSource	source = {option, text, scope};
	ErrorContextCallback callback;
	ParseState *pstate = begin_parse(rel, &source, &callback);
	List	   *nodes = NIL;
	StringInfoData result;
	ListCell   *lc;
	ListCell   *target_cell;
	List	   *targets = parse_targets(&source, list);
	HcPin		pin;

	foreach(lc, targets)
	{
		ResTarget  *target = lfirst_node(ResTarget, lc);

		nodes = lappend(nodes, transform(pstate, &source, target->val));
	}
	error_context_stack = callback.previous;
	free_parsestate(pstate);

	/* with all names qualified, and constants that any session reads alike */
	hc_pin_begin(&pin, GetUserId());
	initStringInfo(&result);
	forboth(lc, nodes, target_cell, targets)
	{
		ResTarget  *target = lfirst_node(ResTarget, target_cell);

		if (result.len > 0)
			appendStringInfoString(&result, ", ");
		appendStringInfoString(&result,
							   hc_change_deparse(lfirst(lc), rel, text));
		if (list)
			appendStringInfo(&result, " AS %s",
							 quote_identifier(target_name(target)));
	}
	hc_pin_end(&pin);
	return result.data;
}

Bitmapset *
hc_expression_attrs(const HcExpression *expression, Bitmapset *attrs)
{
	Bitmapset  *found;
	int			member = -1;

	if (expression->attnum > 0)
		return bms_add_member(attrs, expression->attnum);
	found = hc_change_attrs(expression->node, NULL);
	while ((member = bms_next_member(found, member)) >= 0)
		attrs = bms_add_member(attrs, member + FirstLowInvalidHeapAttributeNumber);
	return attrs;
}

/*
 * Errors of the parser point into the statement we made of the source; let
 * them point into the source, which the user knows.
 */
static void
source_error_callback(void *arg)
{
	const HcSource *source = arg;
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(Max(position - (int) strlen(STATEMENT_START), 1));
		internalerrquery(source->text);
	}
	errcontext("mapping option \"%s\"", source->option);
}

/* The caller restores error_context_stack = callback->previous. */
static ParseState *
begin_parse(Relation rel, const HcSource *source, ErrorContextCallback *callback)
{
	ParseState *pstate = make_parsestate(NULL);

	callback->callback = source_error_callback;
	callback->arg = unconstify(HcSource *, source);
	callback->previous = error_context_stack;
	error_context_stack = callback;

	hc_change_add(pstate, rel, source->scope);
	return pstate;
}

static void
source_error(const HcSource *source)
{
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("mapping option \"%s\" is not an expression: \"%s\"",
					source->option, source->text)));
}

/* The raw parse trees of the source's elements: ResTarget nodes. */
static List *
parse_targets(const HcSource *source, bool list)
{
	List	   *statements;
	SelectStmt *select;
	SelectStmt	bare;
	ListCell   *lc;

	statements = raw_parser(psprintf(STATEMENT_START "%s", source->text),
							RAW_PARSE_DEFAULT);
	if (list_length(statements) != 1 ||
		!IsA(linitial_node(RawStmt, statements)->stmt, SelectStmt))
		source_error(source);
	select = (SelectStmt *) linitial_node(RawStmt, statements)->stmt;

	/* nothing but a target list may have come of it: no FROM, no INTO ... */
	memset(&bare, 0, sizeof(bare));
	bare.type = T_SelectStmt;
	bare.targetList = select->targetList;
	bare.limitOption = select->limitOption;
	bare.groupDistinct = select->groupDistinct;
	if (!equal(select, &bare) || select->targetList == NIL)
		source_error(source);
	if (!list && (list_length(select->targetList) != 1 ||
				  linitial_node(ResTarget, select->targetList)->name != NULL))
		source_error(source);
	foreach(lc, select->targetList)
	{
		Node	   *element = lfirst_node(ResTarget, lc)->val;

		/* only a SELECT expands it, transformExpr() must not meet it */
		if (IsA(element, ColumnRef) &&
			IsA(llast(((ColumnRef *) element)->fields), A_Star))
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("\"*\" is not supported in mapping option \"%s\"",
							source->option),
					 list ? errhint("Name the columns, or leave the option out for all of them.") : 0));
	}
	return select->targetList;
}

static Node *
transform(ParseState *pstate, const HcSource *source, Node *raw)
{
	Node	   *node;

	/* parser positions are offsets into what raw_parser() was given */
	pstate->p_sourcetext = psprintf(STATEMENT_START "%s", source->text);
	node = transformExpr(pstate, raw, EXPR_KIND_OTHER);
	if (pstate->p_hasSubLinks || pstate->p_hasAggs || pstate->p_hasWindowFuncs ||
		expression_returns_set(node))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("mapping option \"%s\" must be computed from one row",
						source->option),
				 errdetail("It contains %s.",
						   pstate->p_hasSubLinks ? "a subquery" :
						   pstate->p_hasAggs ? "an aggregate" :
						   pstate->p_hasWindowFuncs ? "a window function" :
						   "a set-returning function"),
				 errhint("Keep what it needs in a column of the table, for example by a trigger.")));
	check_node(source, node);
	return node;
}

/* Coerces to what the purpose needs and decides how it will be rendered. */
static HcExpression *
finish(ParseState *pstate, const HcSource *source, Node *node, HcPurpose purpose)
{
	HcExpression *expression = palloc0(sizeof(HcExpression));
	Oid			type = exprType(node);
	Oid			target = InvalidOid;
	const char *wanted = NULL;
	CoercionContext ccontext = COERCION_ASSIGNMENT;

	switch (purpose)
	{
		case HC_AS_TEXT:
			expression->encoder = hc_value_encoder(type);
			if (expression->encoder == HC_ENCODER_NONE)
			{
				target = TEXTOID;
				wanted = "a type that can be cast to text";
				ccontext = COERCION_EXPLICIT;
				expression->encoder = HC_ENCODER_TEXT;
			}
			break;
		case HC_AS_JSON:
			expression->encoder = hc_value_encoder(type);
			if (expression->encoder == HC_ENCODER_NONE)
			{
				if (type == UNKNOWNOID)
					node = coerce_to_common_type(pstate, node, TEXTOID, "mapping");
				node = (Node *) makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(node),
											 InvalidOid, InvalidOid,
											 COERCE_EXPLICIT_CALL);
				expression->encoder = HC_ENCODER_JSONB;
			}
			break;
		case HC_AS_BOOLEAN:
			target = BOOLOID;
			wanted = "boolean";
			ccontext = COERCION_IMPLICIT;
			break;
		case HC_AS_NUMBER:
			target = FLOAT8OID;
			wanted = "a number";
			break;
		case HC_AS_TIME:
			target = TIMESTAMPTZOID;
			wanted = "timestamp with time zone";
			break;
	}

	if (OidIsValid(target))
	{
		Node	   *coerced = coerce_to_target_type(pstate, node, type, target, -1,
													ccontext, COERCE_IMPLICIT_CAST, -1);

		if (coerced == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("mapping option \"%s\" must be %s, not type %s",
							source->option, wanted, format_type_be(type))));
		node = coerced;
	}
	assign_expr_collations(pstate, node);

	hc_change_to_slots(node);
	expression->node = node;
	expression->pure = is_pure(node);
	if (IsA(node, Var) && !IS_SPECIAL_VARNO(((Var *) node)->varno))
		expression->attnum = ((Var *) node)->varattno;
	return expression;
}

static void
refuse(const HcSource *source, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
			 errmsg("mapping option \"%s\" does not depend on the row alone: \"%s\"",
					source->option, source->text),
			 errdetail("%s", detail),
			 source->scope == HC_SCOPE_CHANGE
			 ? errhint("An event says what has changed in a row; store the value in a column.")
			 : errhint("What Redis holds must follow from the row, or the two could not be kept equal; store the value in a column.")));
}

static bool
reads_session(Oid funcid, void *context)
{
	int			i;

	for (i = 0; i < (int) lengthof(session_functions); i++)
	{
		if (session_functions[i] == funcid)
			return true;
	}
	return false;
}

/* Was the constant written as 'now' or the like, which reads the clock? */
static bool
is_clock_word(const HcSource *source, const Const *constant)
{
	static const char *const words[] = {"now", "today", "tomorrow", "yesterday"};
	size_t		start = strlen(STATEMENT_START);
	const char *p;
	int			i;

	if (constant->location < (int) start ||
		constant->location - start >= strlen(source->text))
		return false;
	p = source->text + (constant->location - start);
	p += strspn(p, "eE'$ \t\n");
	for (i = 0; i < (int) lengthof(words); i++)
	{
		if (pg_strncasecmp(p, words[i], strlen(words[i])) == 0)
			return true;
	}
	return false;
}

static bool
check_walker(Node *node, void *context)
{
	const HcSource *source = context;

	if (node == NULL)
		return false;
	if (IsA(node, Var) && ((Var *) node)->varattno < 0)
		refuse(source, "It reads a system column.");
	if (IsA(node, Var) && ((Var *) node)->varattno == 0)
		refuse(source, "It reads the whole row as one value; name the columns.");
	if (IsA(node, SQLValueFunction) ||
		check_functions_in_node(node, reads_session, NULL))
		refuse(source, "It reads the clock or the session.");
	if (IsA(node, Const))
	{
		Const	   *constant = (Const *) node;

		if ((constant->consttype == DATEOID ||
			 constant->consttype == TIMEOID ||
			 constant->consttype == TIMETZOID ||
			 constant->consttype == TIMESTAMPOID ||
			 constant->consttype == TIMESTAMPTZOID) &&
			is_clock_word(source, constant))
			refuse(source, "It reads the clock.");
	}
	return expression_tree_walker(node, check_walker, context);
}

static void
check_node(const HcSource *source, Node *node)
{
	check_walker(node, unconstify(HcSource *, source));
	if (contain_volatile_functions(node))
		refuse(source, "It calls a volatile function.");
}

static bool
is_foreign_or_stable(Oid funcid, void *context)
{
	return funcid >= FirstUnpinnedObjectId ||
		func_volatile(funcid) != PROVOLATILE_IMMUTABLE;
}

static bool
impure_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;

	/* output and input functions look at settings whatever they are marked */
	if (IsA(node, CoerceViaIO) || IsA(node, CoerceToDomain) ||
		IsA(node, ArrayCoerceExpr) || IsA(node, RowExpr) || IsA(node, XmlExpr))
		return true;
	if (check_functions_in_node(node, is_foreign_or_stable, NULL))
		return true;
	return expression_tree_walker(node, impure_walker, NULL);
}

/* Does it depend on no setting, and run nobody's code but PostgreSQL's? */
static bool
is_pure(Node *node)
{
	return !impure_walker(node, NULL);
}

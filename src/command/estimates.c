/*
 * estimates.c
 *	  How many rows redis_mget() and its like return, for the planner.
 *
 * Only what the query says is taken: the length of an array, what is expected of a
 * subquery that makes one, a count, a range.  What Redis has is not asked for while
 * planning.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "nodes/nodeFuncs.h"
#include "nodes/pathnodes.h"
#include "nodes/supportnodes.h"
#include "optimizer/optimizer.h"
#include "utils/array.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(hybrid_cache_rows_support);

static double estimate(PlannerInfo *root, List *args);
static double array_length(PlannerInfo *root, Node *array);
static SubPlan *find_subplan(PlannerInfo *root, Node *node);
static bool get_number(Node *node, int64 *number);

/*
 * redis_rows_support(internal) RETURNS internal
 *
 * For functions with an array, a row for each element; with one bigint, a count;
 * with two, a range from the first to the second.
 */
Datum
hybrid_cache_rows_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);

	if (IsA(request, SupportRequestRows))
	{
		SupportRequestRows *rows = (SupportRequestRows *) request;
		double		n = -1;

		if (is_funcclause(rows->node))
			n = estimate(rows->root, ((FuncExpr *) rows->node)->args);
		if (n >= 0)
		{
			rows->rows = Max(n, 1);
			PG_RETURN_POINTER(request);
		}
	}
	PG_RETURN_POINTER(NULL);
}

/* -1: the query does not say. */
static double
estimate(PlannerInfo *root, List *args)
{
	int64		numbers[2];
	int			n_numbers = 0;
	ListCell   *lc;

	foreach(lc, args)
	{
		Node	   *arg = lfirst(lc);

		if (OidIsValid(get_element_type(exprType(arg))))
			return array_length(root, arg);
		if (exprType(arg) == INT8OID)
		{
			if (n_numbers == 2 || !get_number(arg, &numbers[n_numbers]))
				return -1;
			n_numbers++;
		}
	}
	if (n_numbers == 1)
		return numbers[0] >= 0 ? (double) numbers[0] : -1;
	if (n_numbers == 2 && (numbers[0] < 0) == (numbers[1] < 0))
		return Max((double) numbers[1] - (double) numbers[0] + 1, 0);
	return -1;
}

static double
array_length(PlannerInfo *root, Node *array)
{
	SubPlan    *subplan;

	if (IsA(array, Const) && !((Const *) array)->constisnull)
	{
		ArrayType  *value = DatumGetArrayTypeP(((Const *) array)->constvalue);

		return ArrayGetNItems(ARR_NDIM(value), ARR_DIMS(value));
	}
	if (IsA(array, ArrayExpr) && !((ArrayExpr *) array)->multidims)
		return list_length(((ArrayExpr *) array)->elements);
	subplan = find_subplan(root, array);
	if (subplan != NULL && subplan->subLinkType == ARRAY_SUBLINK)
		return planner_subplan_get_plan(root, subplan)->plan_rows;
	return -1;
}

/* The subquery whose result the expression is, or NULL. */
static SubPlan *
find_subplan(PlannerInfo *root, Node *node)
{
	ListCell   *lc;

	if (IsA(node, SubPlan))
		return (SubPlan *) node;
	if (!IsA(node, Param) || ((Param *) node)->paramkind != PARAM_EXEC)
		return NULL;
	foreach(lc, root->init_plans)
	{
		SubPlan    *subplan = lfirst(lc);

		if (list_member_int(subplan->setParam, ((Param *) node)->paramid))
			return subplan;
	}
	return NULL;
}

static bool
get_number(Node *node, int64 *number)
{
	if (!IsA(node, Const) || ((Const *) node)->constisnull)
		return false;
	*number = DatumGetInt64(((Const *) node)->constvalue);
	return true;
}

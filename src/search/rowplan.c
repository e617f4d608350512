/*
 * rowplan.c
 *	  Queries for rows of a table, whose plans are kept for the session.
 *
 * Rows are taken one by one as the executor finds them: an answer need not fit
 * into memory.
 *
 * Planning a query that fetches ten rows takes longer than fetching them, so the
 * last few plans are kept; PostgreSQL makes them anew when something changes that
 * they depend on.  They are found by their text and the types of the parameters,
 * which stay what they were.  All names in the text are qualified but those in the caller's filter, which are the reason to keep the
 * search_path in mind: PostgreSQL does.
 */
#include "postgres.h"

#include "search/rowplan.h"
#include "tcop/dest.h"
#include "utils/memutils.h"

#define MAX_PLANS	16

typedef struct RowReceiver
{
	DestReceiver pub;
	void		(*take) (Datum item, void *arg);
	void	   *arg;
	MemoryContext context;		/* reset for each row */
} RowReceiver;

typedef struct KeptPlan
{
	char	   *query;			/* NULL: this place is free */
	int			n_params;
	Oid		   *types;			/* of the parameters */
	SPIPlanPtr	plan;
	int			users;			/* executions that have not ended */
	uint64		used;			/* when, for choosing which has to go */
} KeptPlan;

static KeptPlan plans[MAX_PLANS];
static uint64 now;

static void
receive_startup(DestReceiver *self, int operation, TupleDesc desc)
{
}

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	RowReceiver *receiver = (RowReceiver *) self;
	MemoryContext old = MemoryContextSwitchTo(receiver->context);
	bool		isnull;
	Datum		item = slot_getattr(slot, 1, &isnull);

	if (!isnull)
		receiver->take(item, receiver->arg);
	MemoryContextSwitchTo(old);
	MemoryContextReset(receiver->context);
	return true;
}

static void
receive_nothing(DestReceiver *self)
{
}

void
hc_rowplan_run(SPIPlanPtr plan, ParamListInfo params,
			   void (*take) (Datum item, void *arg), void *arg)
{
	RowReceiver receiver = {0};
	SPIExecuteOptions options = {0};
	int			result;

	receiver.pub.receiveSlot = receive_row;
	receiver.pub.rStartup = receive_startup;
	receiver.pub.rShutdown = receive_nothing;
	receiver.pub.rDestroy = receive_nothing;
	receiver.pub.mydest = DestTuplestore;	/* DestNone would be no SELECT */
	receiver.take = take;
	receiver.arg = arg;
	receiver.context = AllocSetContextCreate(CurrentMemoryContext,
											 "hybrid_cache row",
											 ALLOCSET_DEFAULT_SIZES);
	options.params = params;
	options.read_only = true;
	options.dest = &receiver.pub;
	result = SPI_execute_plan_extended(plan, &options);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute_plan_extended failed: %s",
			 SPI_result_code_string(result));
	MemoryContextDelete(receiver.context);
}

static bool
is_of_query(const KeptPlan *kept, const char *query, int n_params, const Oid *types)
{
	return kept->query != NULL && strcmp(kept->query, query) == 0 &&
		kept->n_params == n_params &&
		memcmp(kept->types, types, n_params * sizeof(Oid)) == 0;
}

/* The place of the query's plan, or of one that nobody uses; NULL: none is left. */
static KeptPlan *
find_place(const char *query, int n_params, const Oid *types)
{
	KeptPlan   *place = NULL;
	int			i;

	for (i = 0; i < MAX_PLANS; i++)
	{
		KeptPlan   *kept = &plans[i];

		if (is_of_query(kept, query, n_params, types))
			return kept;
		if (kept->users == 0 && (place == NULL || kept->used < place->used))
			place = kept;
	}
	return place;
}

static SPIPlanPtr
prepare(const char *query, int n_params, Oid *types)
{
	SPIPlanPtr	plan = SPI_prepare(query, n_params, types);

	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	return plan;
}

/* Keeps a plan in the place of another one, or of none. */
static void
keep(KeptPlan *kept, const char *query, int n_params, const Oid *types,
	 SPIPlanPtr plan)
{
	Size		size = strlen(query) + 1;
	Oid		   *copy = MemoryContextAlloc(TopMemoryContext,
										  n_params * sizeof(Oid) + size);

	if (SPI_keepplan(plan) != 0)
		elog(ERROR, "SPI_keepplan failed");
	if (kept->query != NULL)
	{
		SPI_freeplan(kept->plan);
		pfree(kept->types);
	}
	memcpy(copy, types, n_params * sizeof(Oid));
	kept->plan = plan;
	kept->n_params = n_params;
	kept->types = copy;
	kept->query = memcpy(copy + n_params, query, size);
}

/* Nobody takes the plan away while it is executed: a filter can call us again. */
static void
run_kept(KeptPlan *kept, ParamListInfo params,
		 void (*take) (Datum item, void *arg), void *arg)
{
	kept->used = ++now;
	kept->users++;
	PG_TRY();
	{
		hc_rowplan_run(kept->plan, params, take, arg);
	}
	PG_FINALLY();
	{
		kept->users--;
	}
	PG_END_TRY();
}

void
hc_rowplan_execute(const char *query, int n_params, Oid *types,
				   ParamListInfo params,
				   void (*take) (Datum item, void *arg), void *arg)
{
	KeptPlan   *kept = find_place(query, n_params, types);

	if (kept == NULL)
	{
		hc_rowplan_run(prepare(query, n_params, types), params, take, arg);
		return;
	}
	if (!is_of_query(kept, query, n_params, types))
		keep(kept, query, n_params, types, prepare(query, n_params, types));
	run_kept(kept, params, take, arg);
}

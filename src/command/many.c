/*
 * many.c
 *	  SQL functions that take an array, of any length.
 *
 * A command with a million keys would keep Redis from serving anybody else for
 * as long as it takes, and its reply would have to fit into memory.  So it
 * becomes several commands of a thousand, ten of which are sent at a time: ten
 * thousand keys are one round trip.  Where values are large it goes on with fewer
 * of them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "command/call.h"
#include "command/many.h"
#include "compat.h"
#include "miscadmin.h"
#include "session/session.h"
#include "utils/memutils.h"

/* Elements of a command, and commands that are sent together. */
#define MAX_ELEMENTS	1000
#define MAX_COMMANDS	10

/* From so many bytes on nothing is added to a command, or to what is sent. */
#define MAX_COMMAND		(1024 * 1024)
#define MAX_SENT		(4 * 1024 * 1024)

/* Replies to a command are to be no longer than about this. */
#define MAX_REPLY		(4 * 1024 * 1024)

/* The state of hc_many_run(). */
typedef struct Sending
{
	const HcMany *many;
	ArrayIterator elements;
	ArrayIterator scores;		/* or NULL */
	bool		is_bytea;
	int			left;			/* elements that were not sent */
	int			max;			/* elements of the next command */
	MemoryContext context;		/* of one command, or one reply */
} Sending;

static int	check(const HcMany *many, ArrayType *elements);
static size_t send_command(Sending *sending, int *n);
static size_t add_element(Sending *sending, HcArguments *args);
static size_t reply_size(const redisReply *reply);

void
hc_many_run(const HcMany *many, HcManyTake take, void *arg)
{
	FunctionCallInfo fcinfo = many->fcinfo;
	ArrayType  *array;
	Sending		sending = {0};

	hc_call_need(fcinfo, many->parameter);
	if (many->scores > 0)
		hc_call_need(fcinfo, many->scores);
	array = PG_GETARG_ARRAYTYPE_P(many->parameter);
	sending.many = many;
	sending.left = check(many, array);
	if (sending.left == 0)
		return;
	sending.elements = array_create_iterator(array, 0, NULL);
	sending.is_bytea = ARR_ELEMTYPE(array) == BYTEAOID;
	if (many->scores > 0)
		sending.scores = array_create_iterator(PG_GETARG_ARRAYTYPE_P(many->scores),
											   0, NULL);
	sending.max = MAX_ELEMENTS;
	sending.context = AllocSetContextCreate(CurrentMemoryContext,
											"hybrid_cache elements",
											ALLOCSET_DEFAULT_SIZES);

	hc_session_begin();
	while (sending.left > 0)
	{
		int			n[MAX_COMMANDS];
		int			n_commands = 0;
		size_t		sent = 0;
		size_t		largest = 0;

		while (sending.left > 0 && n_commands < MAX_COMMANDS && sent < MAX_SENT)
			sent += send_command(&sending, &n[n_commands++]);
		for (int i = 0; i < n_commands; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(sending.context);
			const redisReply *reply = hc_session_next(many->head->command);

			CHECK_FOR_INTERRUPTS();
			largest = Max(largest, reply_size(reply));
			take(reply, n[i], arg);
			MemoryContextSwitchTo(old);
			MemoryContextReset(sending.context);
		}
		if (largest > MAX_REPLY)
			sending.max = Max(sending.max / (int) (largest / MAX_REPLY + 1), 1);
	}
	MemoryContextDelete(sending.context);
}

Datum
hc_many_elements(FunctionCallInfo fcinfo, const char *command)
{
	HcArguments head;
	HcMany		many = {.fcinfo = fcinfo,.head = &head,.parameter = 1,.group = 1};
	int64		result = 0;

	hc_call_begin(&head, fcinfo, command, "k");
	hc_many_run(&many, hc_many_add, &result);
	PG_RETURN_INT64(result);
}

Datum
hc_many_keys(FunctionCallInfo fcinfo, const char *command)
{
	HcArguments head;
	HcMany		many = {.fcinfo = fcinfo,.head = &head,.keys = true,.group = 1};
	int64		result = 0;

	hc_arguments_begin(&head, command);
	hc_many_run(&many, hc_many_add, &result);
	PG_RETURN_INT64(result);
}

void
hc_many_add(const redisReply *reply, int n, void *arg)
{
	*(int64 *) arg += hc_reply_integer(reply);
}

/* Returns the number of elements. */
static int
check(const HcMany *many, ArrayType *elements)
{
	FunctionCallInfo fcinfo = many->fcinfo;
	int			n = ArrayGetNItems(ARR_NDIM(elements), ARR_DIMS(elements));

	if (array_contains_nulls(elements))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"%s\" of %s() must not contain nulls",
						hc_call_parameter(fcinfo, many->parameter),
						hc_call_function(fcinfo)),
				 errdetail("Redis knows no null."),
				 many->group == 1 && many->scores == 0 ?
				 errhint("array_remove(..., NULL) leaves them out.") : 0));
	if (n % many->group != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s() needs a value for every field",
						hc_call_function(fcinfo)),
				 errdetail("\"%s\" is to have fields and values by turns; the number of its elements is %d.",
						   hc_call_parameter(fcinfo, many->parameter), n)));
	if (many->scores > 0)
	{
		ArrayType  *scores = PG_GETARG_ARRAYTYPE_P(many->scores);
		int			n_scores = ArrayGetNItems(ARR_NDIM(scores), ARR_DIMS(scores));

		if (array_contains_nulls(scores))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("\"%s\" of %s() must not contain nulls",
							hc_call_parameter(fcinfo, many->scores),
							hc_call_function(fcinfo)),
					 errdetail("Redis knows no null.")));
		if (n_scores != n)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s() needs a score for every member",
							hc_call_function(fcinfo)),
					 errdetail("The number of scores is %d, that of members %d.",
							   n_scores, n)));
	}
	return n;
}

/* Sends the next elements, *n, and returns their bytes. */
static size_t
send_command(Sending *sending, int *n)
{
	const HcArguments *head = sending->many->head;
	MemoryContext old = MemoryContextSwitchTo(sending->context);
	size_t		size = 0;
	HcArguments args;

	hc_arguments_begin(&args, NULL);
	for (int i = 0; i < head->n; i++)
		hc_arguments_add(&args, head->data[i], head->len[i]);
	for (*n = 0; sending->left > 0 && *n < sending->max && size < MAX_COMMAND;)
	{
		for (int i = 0; i < sending->many->group; i++)
			size += add_element(sending, &args);
		*n += sending->many->group;
		sending->left -= sending->many->group;
	}
	hc_session_append(&args);
	MemoryContextSwitchTo(old);
	MemoryContextReset(sending->context);
	return size;
}

/* Returns its bytes. */
static size_t
add_element(Sending *sending, HcArguments *args)
{
	Datum		value;
	bool		null;

	if (sending->scores != NULL)
	{
		array_iterate(sending->scores, &value, &null);
		hc_arguments_add_double(args, DatumGetFloat8(value));
	}
	array_iterate(sending->elements, &value, &null);
	if (sending->many->keys)
		hc_arguments_add_key(args, DatumGetTextPP(value));
	else if (sending->is_bytea)
		hc_arguments_add(args, VARDATA_ANY(DatumGetByteaPP(value)),
						 VARSIZE_ANY_EXHDR(DatumGetByteaPP(value)));
	else
		hc_arguments_add_text(args, DatumGetTextPP(value));
	return args->len[args->n - 1];
}

/* About: the strings in it. */
static size_t
reply_size(const redisReply *reply)
{
	size_t		size = 0;

	if (reply->type != REDIS_REPLY_ARRAY)
		return 0;
	for (size_t i = 0; i < reply->elements; i++)
		if (reply->element[i]->type == REDIS_REPLY_STRING)
			size += reply->element[i]->len;
	return size;
}

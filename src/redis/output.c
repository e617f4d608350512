/*
 * output.c
 *	  What a connection has to send.
 *
 * hiredis has such a buffer too, but moves all that is left of it after each
 * partial write, which is quadratic for a pipeline of many megabytes.  So it is
 * kept here and passed on in slices.
 */
#include "postgres.h"

#include "redis/output.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* The longest "*123\r\n", with room to spare. */
#define MAX_HEADER	32

/* The least that is allocated, and the most that is kept for later. */
#define MIN_SIZE	1024
#define MAX_KEPT	(1024 * 1024)

static void reserve(HcOutput *output, size_t len);
static void append_header(HcOutput *output, char type, size_t number);

void
hc_output_append(HcOutput *output, const char *data, size_t len)
{
	reserve(output, len);
	memcpy(output->data + output->end, data, len);
	output->end += len;
}

void
hc_output_append_command(HcOutput *output, int argc, const char *const *argv,
						 const size_t *argvlen)
{
	size_t		size = MAX_HEADER;

	/* At once, since a value can have hundreds of megabytes. */
	for (int i = 0; i < argc; i++)
		size += MAX_HEADER + argvlen[i] + 2;
	reserve(output, size);

	append_header(output, '*', argc);
	for (int i = 0; i < argc; i++)
	{
		append_header(output, '$', argvlen[i]);
		hc_output_append(output, argv[i], argvlen[i]);
		hc_output_append(output, "\r\n", 2);
	}
}

bool
hc_output_is_empty(const HcOutput *output)
{
	return output->begin == output->end;
}

const char *
hc_output_take(HcOutput *output, size_t max, size_t *len)
{
	const char *result = output->data + output->begin;

	*len = Min(output->end - output->begin, max);
	output->begin += *len;
	return result;
}

void
hc_output_clear(HcOutput *output)
{
	output->begin = output->end = 0;
	if (output->size > MAX_KEPT)
	{
		pfree(output->data);
		output->data = NULL;
		output->size = 0;
	}
}

/* Makes room for so many more bytes. */
static void
reserve(HcOutput *output, size_t len)
{
	size_t		pending = output->end - output->begin;

	if (pending == 0)
		output->begin = output->end = 0;
	if (len <= output->size - output->end)
		return;

	/* Move only what is small against what was sent since. */
	if (pending <= output->begin && pending + len <= output->size)
		memmove(output->data, output->data + output->begin, pending);
	else
	{
		size_t		size = Max(pending + len, 2 * output->size);
		char	   *data;

		size = Max(size, MIN_SIZE);
		data = MemoryContextAllocHuge(output->context, size);
		if (pending > 0)
			memcpy(data, output->data + output->begin, pending);
		if (output->data != NULL)
			pfree(output->data);
		output->data = data;
		output->size = size;
	}
	output->begin = 0;
	output->end = pending;
}

static void
append_header(HcOutput *output, char type, size_t number)
{
	char		header[MAX_HEADER];
	int			len = 0;

	header[len++] = type;
	len += pg_ulltoa_n(number, header + len);
	header[len++] = '\r';
	header[len++] = '\n';
	hc_output_append(output, header, len);
}

/*
 * output.h
 *	  What a connection has to send.
 */
#ifndef HC_OUTPUT_H
#define HC_OUTPUT_H

#include "utils/palloc.h"

/* All zero but for the context: nothing to send. */
typedef struct HcOutput
{
	MemoryContext context;		/* of data */
	char	   *data;			/* data[begin .. end - 1] is to be sent */
	size_t		size;
	size_t		begin;
	size_t		end;
} HcOutput;

/*
 * These add bytes as they are, or a command in RESP.  Copied.  If the second
 * raises (out of memory), nothing was added.
 */
extern void hc_output_append(HcOutput *output, const char *data, size_t len);
extern void hc_output_append_command(HcOutput *output, int argc,
									 const char *const *argv,
									 const size_t *argvlen);

extern bool hc_output_is_empty(const HcOutput *output);

/*
 * Takes the next bytes, max at most, and sets *len to how many there are.  They
 * stay where they are until something is added.
 */
extern const char *hc_output_take(HcOutput *output, size_t max, size_t *len);

/* Forgets what is left, and gives back memory that is rarely needed. */
extern void hc_output_clear(HcOutput *output);

#endif							/* HC_OUTPUT_H */

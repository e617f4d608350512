/*
 * stubs.c
 *	  What code written for a server needs to be linked into a fuzz target.
 *
 * What is fuzzed raises nothing but "out of memory", so that an ereport() is a
 * finding: the program stops.
 *
 * Server code leaves memory to its memory context.  Here there is one, which is
 * emptied after each input.  Each of its chunks is malloc's, so that the
 * sanitizer sees an access outside of it.
 */
#include "postgres.h"

#include "lib/ilist.h"

/* the Makefile renames the target's function, so that this file comes first */
#undef LLVMFuzzerTestOneInput
int			LLVMFuzzerTestOneInput(const uint8 *data, size_t size);
extern int	hc_fuzz_target(const uint8 *data, size_t size);

MemoryContext CurrentMemoryContext = NULL;
MemoryContext TopMemoryContext = NULL;

typedef struct Chunk
{
	dlist_node	node;
	char		data[FLEXIBLE_ARRAY_MEMBER];
} Chunk;

static dlist_head chunks = DLIST_STATIC_INIT(chunks);

#define chunk_of(pointer) \
	((Chunk *) ((char *) (pointer) - offsetof(Chunk, data)))

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	int			result = hc_fuzz_target(data, size);

	while (!dlist_is_empty(&chunks))
		pfree(dlist_container(Chunk, node, chunks.head.next)->data);
	return result;
}

void *
palloc(Size size)
{
	Chunk	   *chunk = malloc(offsetof(Chunk, data) + size);

	if (chunk == NULL)
		abort();
	dlist_push_head(&chunks, &chunk->node);
	return chunk->data;
}

void *
palloc0(Size size)
{
	return memset(palloc(size), 0, size);
}

void *
palloc_extended(Size size, int flags)
{
	return (flags & MCXT_ALLOC_ZERO) ? palloc0(size) : palloc(size);
}

void *
repalloc(void *pointer, Size size)
{
	Chunk	   *chunk = chunk_of(pointer);

	dlist_delete(&chunk->node);
	chunk = realloc(chunk, offsetof(Chunk, data) + size);
	if (chunk == NULL)
		abort();
	dlist_push_head(&chunks, &chunk->node);
	return chunk->data;
}

void
pfree(void *pointer)
{
	dlist_delete(&chunk_of(pointer)->node);
	free(chunk_of(pointer));
}

char *
pnstrdup(const char *in, Size len)
{
	char	   *copy;

	len = strnlen(in, len);
	copy = palloc(len + 1);
	memcpy(copy, in, len);
	copy[len] = '\0';
	return copy;
}

char *
pstrdup(const char *in)
{
	return pnstrdup(in, strlen(in));
}

bool
errstart(int elevel, const char *domain)
{
	return elevel >= ERROR;
}

bool
errstart_cold(int elevel, const char *domain)
{
	return errstart(elevel, domain);
}

void
errfinish(const char *filename, int lineno, const char *funcname)
{
	fprintf(stderr, "an error was raised at %s:%d\n", filename, lineno);
	abort();
}

int
errcode(int sqlerrcode)
{
	return 0;
}

int
errmsg(const char *fmt,...)
{
	return 0;
}

int
errmsg_internal(const char *fmt,...)
{
	return 0;
}

int
errdetail(const char *fmt,...)
{
	return 0;
}

int
errhint(const char *fmt,...)
{
	return 0;
}

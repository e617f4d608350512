/*
 * watermark.h
 *	  How far a Redis server has the changes of this database, as a text that
 *	  is stored in that server itself.
 */
#ifndef HC_WATERMARK_H
#define HC_WATERMARK_H

#include "access/xlogdefs.h"

/* Longest text with its NUL: seven numbers and their separators. */
#define HC_WATERMARK_SIZE	160

typedef struct HcWatermark
{
	uint64		system;			/* system identifier of the cluster */
	Oid			database;
	TimeLineID	timeline;		/* on which it was written */
	XLogRecPtr	applied;		/* every commit up to here is applied ... */
	XLogRecPtr	cut;			/* ... and of the commit that ends here ... */
	uint64		ops_done;		/* ... the ops before this number */
	XLogRecPtr	restart;		/* who goes on must read from here */
} HcWatermark;

/* The key in Redis; buf has HC_WATERMARK_SIZE bytes. */
extern void hc_watermark_key(const HcWatermark *mark, char *buf);

/* The text; buf has HC_WATERMARK_SIZE bytes. */
extern void hc_watermark_format(const HcWatermark *mark, char *buf);

/*
 * Parses what Redis returned (not NUL-terminated).  false for anything that
 * hc_watermark_format() cannot have written for that system and database.
 */
extern bool hc_watermark_parse(const char *text, size_t len, uint64 system,
							   Oid database, HcWatermark *mark);

#endif							/* HC_WATERMARK_H */

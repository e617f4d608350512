/*
 * pass.h
 *	  Reads the rows of one table in chunks, and makes their entries equal.
 */
#ifndef HC_PASS_H
#define HC_PASS_H

#include "keeper/settle.h"

/* What became of it. */
typedef enum HcPassResult
{
	HC_PASS_DONE,				/* all is read, or there is no such table any more */
	HC_PASS_CHANGED,			/* the mapping is not what it was */
	HC_PASS_CANCELLED
} HcPassResult;

/*
 * Goes on where pass says, which relid alone may do.  Opens windows and
 * transactions of its own.
 */
extern HcPassResult hc_pass_table(HcSettle *settle, HcPass *pass);

#endif							/* HC_PASS_H */

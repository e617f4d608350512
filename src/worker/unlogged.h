/*
 * unlogged.h
 *	  Mappings of unlogged tables, which a crash empties.
 */
#ifndef HC_UNLOGGED_H
#define HC_UNLOGGED_H

/*
 * For the sync worker, when it starts: were unlogged tables emptied since one of
 * them looked last?  Then their mappings owe a comparison.  Opens a transaction
 * of its own.
 */
extern void hc_unlogged_look(void);

#endif							/* HC_UNLOGGED_H */

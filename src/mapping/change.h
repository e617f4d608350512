/*
 * change.h
 *	  OLD and NEW in the expressions of events.
 */
#ifndef HC_CHANGE_H
#define HC_CHANGE_H

#include "nodes/bitmapset.h"
#include "nodes/nodes.h"
#include "parser/parse_node.h"
#include "utils/rel.h"

/* What an expression can read. */
typedef enum HcScope
{
	HC_SCOPE_ROW,				/* the columns of a row */
	HC_SCOPE_CHANGE				/* those of the row that a change is about, and
								 * of OLD and NEW, which are NULL where there is
								 * no such row */
} HcScope;

/* Lets the parser find the relation's columns in that scope. */
extern void hc_change_add(ParseState *pstate, Relation rel, HcScope scope);

/*
 * From what the parser made to what is evaluated with the row in scan slot, OLD
 * in the inner and NEW in the outer one.  Changes the tree in place.
 */
extern void hc_change_to_slots(Node *node);

/* A copy of what hc_change_to_slots() made, in which all are the one relation. */
extern Node *hc_change_to_relation(Node *node);

/* The columns that what hc_change_to_slots() made reads, as pull_varattnos() says. */
extern Bitmapset *hc_change_attrs(Node *node, Bitmapset *attrs);

/*
 * SQL of what the parser made; source is the text that it was made from.  The
 * row's columns have no qualification, so that the table can be renamed.
 */
extern char *hc_change_deparse(Node *node, Relation rel, const char *source);

#endif							/* HC_CHANGE_H */

/*
 * guard.h
 *	  Watches DDL: what makes a mapping, breaks it, or changes what Redis should
 *	  hold without firing its trigger.
 */
#ifndef HC_GUARD_H
#define HC_GUARD_H

#include "postgres_ext.h"

/*
 * What attach() and detach() do themselves, so that it is not remembered as
 * still to be done.  InvalidOid outside of them; they reset it on error too.
 */
extern Oid	hc_guard_populating;	/* a relation: its new mapping is populated */
extern Oid	hc_guard_unpopulated;	/* a relation: its new mapping need not be */
extern Oid	hc_guard_purging;	/* a mapping: its entries are removed */

/* Installs the object access hook; called once, from _PG_init. */
extern void hc_guard_init(void);

#endif							/* HC_GUARD_H */

/*
 * guard.h
 *	  Watches DDL: what makes a mapping, breaks it, or changes what Redis should
 *	  hold without firing its trigger.
 */
#ifndef HC_GUARD_H
#define HC_GUARD_H

#include "postgres_ext.h"

/*
 * What attach() and detach() were asked for.  InvalidOid outside of them; they
 * reset it on error too.
 */
extern Oid	hc_guard_populating;	/* a relation: its new mapping is to be populated */
extern Oid	hc_guard_unpopulated;	/* a relation: its new mapping is not */
extern Oid	hc_guard_purging;	/* a mapping: its entries are to be removed */
extern Oid	hc_guard_purged;	/* a mapping: somebody sees to its entries */

/* Installs the object access hook; called once, from _PG_init. */
extern void hc_guard_init(void);

#endif							/* HC_GUARD_H */

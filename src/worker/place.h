/*
 * place.h
 *	  The databases of the server, as the launcher knows them.
 */
#ifndef HC_PLACE_H
#define HC_PLACE_H

#include "nodes/pg_list.h"
#include "role.h"
#include "worker/process.h"

typedef struct HcPlace
{
	Oid			database;
	NameData	name;
	bool		seen;			/* it was there when databases were last noted */
	bool		absent;			/* it has no extension */
	bool		starting;		/* its worker has not answered yet */
	bool		running;		/* its worker has said that it runs */
	HcProcess	worker;
	HcProcess	roles[HC_NUM_ROLES];
} HcPlace;

/*
 * Notes the databases that there are in places, a list of HcPlace * in
 * TopMemoryContext, and forgets those that are gone with their processes.  Needs
 * no transaction, raises what reading a catalog raises; the list is good then, too.
 */
extern void hc_place_scan(List **places);

/* Looks after the replication slots of databases, where nobody else may do it. */
extern void hc_place_keep_slots(void);

#endif							/* HC_PLACE_H */

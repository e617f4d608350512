/*
 * installation.h
 *	  The row of hybrid_cache.installation: where the extension was created, and
 *	  whether this is still the database and the system in which that was.
 *
 * All functions need a transaction with an active snapshot.
 */
#ifndef HC_INSTALLATION_H
#define HC_INSTALLATION_H

#include "access/transam.h"
#include "access/xlogdefs.h"

typedef struct HcInstallation
{
	XLogRecPtr	created_lsn;	/* changes are applied from here on */
	FullTransactionId unsettled;	/* see gap.h; invalid: nothing is open */
	const char *foreign;		/* a sentence: the row is not of this database;
								 * NULL: it is */
	bool		other_system;	/* ... nor of this system */
	uint64		former_system;	/* before pg_upgrade; 0: none is known ... */
	Oid			former_database;	/* ... and which database it was there */
} HcInstallation;

extern void hc_installation_read(HcInstallation *installation);

/*
 * Makes the row one of this database, as if the extension had been created at
 * that position.  What is owed by mappings of another system is forgotten: pg_upgrade
 * gives triggers new OIDs.
 */
extern void hc_installation_renew(HcInstallation *installation,
								  XLogRecPtr created_lsn);

/* Remembers it; invalid: nothing is open any more. */
extern void hc_installation_set_unsettled(FullTransactionId unsettled);

#endif							/* HC_INSTALLATION_H */

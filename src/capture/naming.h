/*
 * naming.h
 *	  What the definitions of mappings call by name, and so must keep its name.
 */
#ifndef HC_NAMING_H
#define HC_NAMING_H

#include "capture/catalog.h"

/*
 * Does the definition name the column?  The relation is the trigger's own, or
 * that of a composite type.
 */
extern bool hc_naming_has_column(const HcTrigger *trigger, Oid relid,
								 AttrNumber attnum);

/*
 * Raises 42P17 if the trigger's definition, whose dependencies are recorded,
 * needs a function, type or the like that is temporary.
 */
extern void hc_naming_refuse_temporary(const HcTrigger *trigger);

/*
 * To be called by the object access hook after something was altered or
 * replaced.  Raises 0A000 if a definition names it and it has got another name
 * or schema, 42P17 if it is a function that became volatile.  A function that
 * changed otherwise makes the mappings owe a reconcile.
 */
extern void hc_naming_altered(Oid class_id, Oid object_id);

#endif							/* HC_NAMING_H */

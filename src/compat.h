/*
 * compat.h
 *	  Every difference between PostgreSQL versions (15 and later) and hiredis
 *	  versions (0.14 and later), so that no other file asks for a version.
 */
#ifndef HC_COMPAT_H
#define HC_COMPAT_H

#include <hiredis/hiredis.h>

#include "pgstat.h"
#include "utils/acl.h"

/* VARDATA_ANY() and its kin have a header of their own since 16. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* What pg_stat_activity shows while a process waits. */
#define HC_WAIT_REDIS	PG_WAIT_EXTENSION
#define HC_WAIT_WORKER	PG_WAIT_EXTENSION

/* Before the declaration of a function that does not return. */
#if PG_VERSION_NUM >= 180000
#define HC_NORETURN		pg_noreturn
#else
#define HC_NORETURN		pg_attribute_noreturn()
#endif

/* A set of events to wait for that belongs to nothing but its creator. */
#if PG_VERSION_NUM >= 170000
#define hc_compat_create_wait(nevents)	CreateWaitEventSet(NULL, nevents)
#else
#define hc_compat_create_wait(nevents)	CreateWaitEventSet(TopMemoryContext, nevents)
#endif

/* The place of this process in the table of processes. */
#if PG_VERSION_NUM >= 170000
#define hc_compat_my_place()	MyProcNumber
#else
#define hc_compat_my_place()	(MyProc->pgprocno)
#endif

/* How hiredis counts the elements of a reply. */
#if HIREDIS_MAJOR < 1
typedef int HcReplyCount;
#else
typedef size_t HcReplyCount;
#endif

/* pg_attribute.attgenerated of a column that is not stored, which 18 has. */
#define HC_GENERATED_VIRTUAL	'v'

/* Is the role the owner of the relation, or a member of it? */
#if PG_VERSION_NUM >= 160000
#define hc_compat_owns_relation(relid, role) \
	object_ownercheck(RelationRelationId, relid, role)
#else
#define hc_compat_owns_relation(relid, role) \
	pg_class_ownercheck(relid, role)
#endif

/* The same for a database. */
#if PG_VERSION_NUM >= 160000
#define hc_compat_owns_database(database, role) \
	object_ownercheck(DatabaseRelationId, database, role)
#else
#define hc_compat_owns_database(database, role) \
	pg_database_ownercheck(database, role)
#endif

/* May the role use the schema? */
#if PG_VERSION_NUM >= 160000
#define hc_compat_uses_schema(schema, role) \
	(object_aclcheck(NamespaceRelationId, schema, role, ACL_USAGE) == ACLCHECK_OK)
#else
#define hc_compat_uses_schema(schema, role) \
	(pg_namespace_aclcheck(schema, role, ACL_USAGE) == ACLCHECK_OK)
#endif

/* May the role call the function? */
#if PG_VERSION_NUM >= 160000
#define hc_compat_may_execute(function, role) \
	(object_aclcheck(ProcedureRelationId, function, role, ACL_EXECUTE) == ACLCHECK_OK)
#else
#define hc_compat_may_execute(function, role) \
	(pg_proc_aclcheck(function, role, ACL_EXECUTE) == ACLCHECK_OK)
#endif

/* The file node if the current transaction gave the relation another one, or 0. */
#if PG_VERSION_NUM >= 160000
#define hc_compat_new_storage(rel) \
	((rel)->rd_firstRelfilelocatorSubid != InvalidSubTransactionId ? \
	 (rel)->rd_locator.relNumber : InvalidOid)
#else
#define hc_compat_new_storage(rel) \
	((rel)->rd_firstRelfilenodeSubid != InvalidSubTransactionId ? \
	 (rel)->rd_node.relNode : InvalidOid)
#endif

/* An index scan that nobody measures. */
#if PG_VERSION_NUM >= 180000
#define hc_compat_index_beginscan(rel, index, snapshot, nkeys) \
	index_beginscan(rel, index, snapshot, NULL, nkeys, 0)
#else
#define hc_compat_index_beginscan(rel, index, snapshot, nkeys) \
	index_beginscan(rel, index, snapshot, nkeys, 0)
#endif

/* The relation's file node, which another one takes when it is rewritten. */
#if PG_VERSION_NUM >= 160000
#define hc_compat_storage(rel)	((rel)->rd_locator.relNumber)
#else
#define hc_compat_storage(rel)	((rel)->rd_node.relNode)
#endif

/* A persistent physical slot, without what later versions can do with slots. */
#if PG_VERSION_NUM >= 170000
#define hc_compat_slot_create(name) \
	ReplicationSlotCreate(name, false, RS_PERSISTENT, false, false, false)
#else
#define hc_compat_slot_create(name) \
	ReplicationSlotCreate(name, false, RS_PERSISTENT, false)
#endif

/* Has PostgreSQL taken a slot's WAL?  Before 16 its position alone says so. */
#if PG_VERSION_NUM >= 160000
#define hc_compat_slot_is_invalidated(slot) \
	((slot)->data.invalidated != RS_INVAL_NONE)
#else
#define hc_compat_slot_is_invalidated(slot)	false
#endif

/* Without waiting, and also if it was invalidated: the caller looks itself. */
#if PG_VERSION_NUM >= 180000
#define hc_compat_slot_acquire(name) \
	ReplicationSlotAcquire(name, true, false)
#else
#define hc_compat_slot_acquire(name) \
	ReplicationSlotAcquire(name, true)
#endif

#endif							/* HC_COMPAT_H */

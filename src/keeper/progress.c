/*
 * progress.c
 *	  How far the keeper's run is, for others to see, and whether it is to end.
 *
 * A chunk is over in a few milliseconds and changes the row a few times, so it
 * must cost nothing: readers take no lock, and read again when the counter of
 * changes has moved, as pg_stat_activity does.
 *
 * Locking: the keeper is the only one who writes the row and its counter of
 * changes, whoever reads it does so between two looks at the counter.  cancelled
 * is written by anybody.  A run has a number, so that a wish to cancel it never
 * meets another one.
 */
#include "postgres.h"

#include "keeper/progress.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "shmem.h"
#include "utils/timestamp.h"

/* Of this keeper's run; NULL: there is none. */
static HcProgress *current = NULL;

static char next_reason[HC_PROGRESS_TEXT];

static void
begin_change(HcProgress *progress)
{
	pg_atomic_fetch_add_u32(&progress->changes, 1);
	pg_write_barrier();
}

static void
end_change(HcProgress *progress)
{
	pg_write_barrier();
	pg_atomic_fetch_add_u32(&progress->changes, 1);
}

static void
copy_text(char *to, const char *from)
{
	int			len = pg_mbcliplen(from, strlen(from), HC_PROGRESS_TEXT - 1);

	memcpy(to, from, len);
	to[len] = '\0';
}

void
hc_progress_init(HcProgress *progress)
{
	pg_atomic_init_u32(&progress->changes, 0);
	pg_atomic_init_u64(&progress->cancelled, 0);
	memset(&progress->row, 0, sizeof(progress->row));
}

/* A keeper that was ended in the middle may have left a change half done. */
void
hc_progress_reset(HcDatabase *db)
{
	HcProgress *progress = &db->keep.progress;

	if (pg_atomic_read_u32(&progress->changes) % 2 == 0)
		begin_change(progress);
	progress->row.mapping = InvalidOid;
	end_change(progress);
	current = NULL;
}

void
hc_progress_reason(const char *reason)
{
	copy_text(next_reason, reason);
}

const char *
hc_progress_get_reason(void)
{
	return current != NULL ? current->row.reason : next_reason;
}

void
hc_progress_begin(HcDatabase *db, Oid mapping, HcRunKind kind)
{
	HcProgressRow *row = &db->keep.progress.row;
	uint64		number = row->number + 1;

	if (current != NULL && row->mapping == mapping)
		return;
	current = &db->keep.progress;
	begin_change(current);
	memset(row, 0, sizeof(*row));
	row->number = number;
	row->mapping = mapping;
	row->kind = kind;
	strlcpy(row->reason, next_reason, sizeof(row->reason));
	strlcpy(row->phase, "beginning", sizeof(row->phase));
	row->started = row->phase_started = GetCurrentTimestamp();
	end_change(current);
}

void
hc_progress_end(void)
{
	if (current == NULL)
		return;
	begin_change(current);
	current->row.mapping = InvalidOid;
	end_change(current);
	current = NULL;
	next_reason[0] = '\0';
}

void
hc_progress_phase(const char *phase, uint64 rows_estimated)
{
	HcProgressRow *row;

	if (current == NULL)
		return;
	row = &current->row;
	begin_change(current);
	copy_text(row->phase, phase);
	row->rows_done = 0;
	row->rows_estimated = rows_estimated;
	row->phase_started = GetCurrentTimestamp();
	end_change(current);
}

void
hc_progress_add(uint64 rows)
{
	if (current == NULL)
		return;
	begin_change(current);
	current->row.rows_done += rows;
	end_change(current);
}

void
hc_progress_counts(const HcRunCounts *counts)
{
	if (current == NULL)
		return;
	begin_change(current);
	current->row.counts = *counts;
	end_change(current);
}

bool
hc_progress_cancelled(void)
{
	return current != NULL &&
		pg_atomic_read_u64(&current->cancelled) == current->row.number;
}

bool
hc_progress_read(HcDatabase *db, HcProgressRow *row)
{
	HcProgress *progress = &db->keep.progress;

	for (;;)
	{
		uint32		before = pg_atomic_read_u32(&progress->changes);

		pg_read_barrier();
		memcpy(row, &progress->row, sizeof(*row));
		pg_read_barrier();
		if (before % 2 == 0 && pg_atomic_read_u32(&progress->changes) == before)
			return OidIsValid(row->mapping);
		CHECK_FOR_INTERRUPTS();
	}
}

void
hc_progress_cancel(HcDatabase *db, uint64 number)
{
	pg_atomic_write_u64(&db->keep.progress.cancelled, number);
}

/*
 * pin.h
 *	  Fixed settings and the table owner's rights while a user's expression runs.
 */
#ifndef HC_PIN_H
#define HC_PIN_H

typedef struct HcPin
{
	Oid			user;			/* to return to */
	int			sec_context;	/* to return to */
	int			nestlevel;		/* of settings; 0: nothing had to be changed */
} HcPin;

/*
 * From here to hc_pin_end() user-defined code runs as owner, in a
 * security-restricted operation, with the settings that decide how values are
 * written fixed and search_path = pg_catalog.  An error in between is undone
 * by the (sub)transaction's abort.
 */
extern void hc_pin_begin(HcPin *pin, Oid owner);
extern void hc_pin_end(const HcPin *pin);

#endif							/* HC_PIN_H */

/*
 * encoding.h
 *	  Text of this database, and what Redis holds of it: UTF-8, or in a SQL_ASCII
 *	  database, which knows no encoding, the bytes as they are.
 */
#ifndef HC_ENCODING_H
#define HC_ENCODING_H

/*
 * Text as Redis holds it.  The result may be data itself.  Needs a transaction
 * unless the database is in one of the two; raises for what UTF-8 lacks.
 */
extern char *hc_encoding_to_redis(const char *data, size_t *len);

/* The same for a NUL-terminated string. */
extern const char *hc_encoding_string(const char *text);

/*
 * Are bytes of Redis text, in an encoding that the server's may not have all
 * characters of?  Raises nothing.
 */
extern bool hc_encoding_is_text(const char *data, size_t len);

#endif							/* HC_ENCODING_H */

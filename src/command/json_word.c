/*
 * json_word.c
 *	  A scalar of a jsonb as a word of a Redis command.
 */
#include "postgres.h"

#include "command/json_word.h"
#include "encoding.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

bool
hc_json_word_add(HcArguments *args, JsonbValue *value)
{
	char	   *data;
	size_t		len;

	switch (value->type)
	{
		case jbvString:
			data = value->val.string.val;
			len = value->val.string.len;
			break;
		case jbvNumeric:
			data = DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
			len = strlen(data);
			break;
		case jbvBool:
			data = value->val.boolean ? "true" : "false";
			len = strlen(data);
			break;
		default:
			return false;
	}
	data = hc_encoding_to_redis(data, &len);
	hc_arguments_add(args, data, len);
	return true;
}

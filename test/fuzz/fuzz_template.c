/* links: src/mapping/template.c */
/*
 * fuzz_template.c
 *	  The parser of key templates: any text either parses or has a problem to
 *	  report, and a template is the same as itself and never disjoint from it.
 */
#include "postgres.h"

#include "mapping/template.h"

int			LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	char	   *source = pnstrdup((const char *) data, size);
	const char *problem;
	const char *hint;
	HcTemplate *tmpl = hc_template_parse(source, &problem, &hint);

	if ((tmpl == NULL) != (problem != NULL))
		abort();
	if (tmpl != NULL)
	{
		char	   *glob = hc_template_glob(tmpl);
		int			i;

		if (!hc_template_same(tmpl, tmpl) || hc_template_disjoint(tmpl, tmpl))
			abort();
		for (i = 0; i < tmpl->n_parts; i++)
			pfree(tmpl->parts[i].text);
		pfree(tmpl->parts);
		pfree(tmpl);
		pfree(glob);
	}
	pfree(source);
	return 0;
}

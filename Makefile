# hybrid_cache: keeps Redis equal to PostgreSQL tables
#
#	make && sudo make install		build, install
#	make installcheck			test what is installed
#	test/run				build and test without installing
#
# PG_CONFIG=/path/to/pg_config chooses the PostgreSQL; COPT=-Werror makes
# warnings errors.

EXTENSION = hybrid_cache
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" hybrid_cache.control)
DATA = $(wildcard sql/hybrid_cache--*.sql)

MODULE_big = hybrid_cache
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))
HDRS = $(wildcard src/*.h src/*/*.h)
LUA = $(sort $(wildcard src/lua/*.lua))
PG_CPPFLAGS = -Isrc
SHLIB_LINK = -lhiredis

# PostgreSQL's headers have unused parameters, and so has every function whose
# parameters a callback's type prescribes.
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter

# PostgreSQL was built by gcc: clang does not know all of its flags, nor the
# attributes in its headers.
ifneq (,$(findstring clang,$(shell $(CC) --version)))
PG_CFLAGS += -Wno-unknown-warning-option -Wno-ignored-optimization-argument -Wno-ignored-attributes
endif

# make BREAK=name: a build that breaks one promise, see src/broken.h.  Not from the
# environment, where it could go unnoticed.
ifeq ($(origin BREAK),command line)
PG_CPPFLAGS += -DHC_BREAK=HC_BREAK_$(shell echo '$(BREAK)' | tr '[:lower:]' '[:upper:]')
endif

REGRESS = $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
ISOLATION = $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/*.spec)))
TAP_TESTS = 1
PROVE_TESTS = $(sort $(wildcard test/t/*.pl))

EXTRA_CLEAN = .built-for src/redis/scripts.inc

# see below
NO_INSTALLCHECK = 1

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS) $(OBJS:.o=.bc): $(HDRS) Makefile .built-for

# Objects that were made for another PostgreSQL, by another compiler or with
# other flags are made again.
BUILT_FOR = $(shell $(PG_CONFIG) --version) $(CC) $(CPPFLAGS) $(CFLAGS)

.built-for: FORCE
	@echo '$(BUILT_FOR)' | cmp -s - $@ || echo '$(BUILT_FOR)' >$@

# The Lua scripts as C strings.  The folder: one can be gone.
src/redis/scripts.inc: $(LUA) src/lua Makefile
	@for script in $(LUA); do \
		echo "{\"$$(basename "$$script" .lua)\","; \
		sed -e 's/[\\"]/\\&/g' -e 's/.*/"&\\n"/' "$$script"; \
		echo "},"; \
	done >$@

src/redis/script.o src/redis/script.bc: src/redis/scripts.inc

# And as they are, for other clients.
LUA_DIR = $(DESTDIR)$(datadir)/$(datamoduledir)/hybrid_cache

install: install-lua
install-lua: installdirs
	$(MKDIR_P) '$(LUA_DIR)'
	$(INSTALL_DATA) $(LUA) src/lua/README.md '$(LUA_DIR)/'

uninstall: uninstall-lua
uninstall-lua:
	rm -f $(addprefix '$(LUA_DIR)'/,$(notdir $(LUA)) README.md)
	-rmdir '$(LUA_DIR)'

# The tests need a Redis, and a PostgreSQL that preloads the extension.  So the
# installed extension is tested in a private PostgreSQL of the same
# installation, next to a private Redis.
installcheck:
	PG_CONFIG='$(PG_CONFIG)' test/run --installed $(REGRESS) $(ISOLATION) $(basename $(notdir $(PROVE_TESTS)))

# For PGXN.
dist:
	git archive --format=zip --prefix=hybrid_cache-$(EXTVERSION)/ -o hybrid_cache-$(EXTVERSION).zip HEAD

.PHONY: FORCE install-lua uninstall-lua installcheck dist

# test/lib.sh
#	  What with-servers and run share: packages, a private installation of the
#	  extension, a private PostgreSQL and a private Redis.
#
# Everything lives in one temporary folder, $tmp.  The extension is not
# installed into the system: $tmp/stage is a copy of PostgreSQL's programs with
# links to the rest of it, and `make install DESTDIR=` puts the extension
# there.  PostgreSQL finds its files relative to its own program, so that it
# takes this installation for its own.  That is why two checkouts, or two runs
# of one, never meet, and why nothing but the build needs writing outside $tmp.
#
# PostgreSQL refuses to run as root.  For root the servers run as the user
# $server_user, who may not be able to read the checkout: what the servers need
# is copied to $tmp.
#
# shellcheck shell=bash

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
tmp=					# the temporary folder, once there is one
bin=					# PostgreSQL's programs, once staged
server_user=$(id -un)	# who runs the servers
redis_pid=
postgres_pid=
child=					# what await() waits for
signalled=				# the last signal that came
pending=				# the same, until it is dealt with

# The shell and its children need a standard input that is open.
[ -e /proc/self/fd/0 ] || exec </dev/null

say() { printf '%s\n' "$*" >&2; }

die() {
	say "$(basename "$0"): $*"
	exit 1
}

#---------------------------------------------------------------------------
# Processes and signals
#---------------------------------------------------------------------------

running() { kill -0 "$1" 2>/dev/null; }

# Prints the process and all its descendants.
tree() {
	local status
	echo "$1"
	# shellcheck disable=SC2013	# these names have no blanks
	for status in $(grep -ls "^PPid:[[:space:]]*$1\$" /proc/[0-9]*/status); do
		status=${status#/proc/}
		tree "${status%/status}"
	done
}

# Prints the processes that work in a folder or below it.  PostgreSQL and Redis
# both change to their data folder, so this finds what a test left behind.
processes_in() {
	local cwd
	for cwd in /proc/[0-9]*/cwd; do
		case "$(readlink "$cwd" 2>/dev/null)/" in
			"$1"/*) cwd=${cwd#/proc/}; echo "${cwd%/cwd}" ;;
		esac
	done
}

# Ends processes: asks with a signal, waits up to ten seconds, then insists.
# $1 = signal, the others are process ids.
end_processes() {
	local signal=$1 pid turn=0
	shift
	kill -s "$signal" "$@" 2>/dev/null || true
	for pid in "$@"; do
		while running "$pid" && ((turn++ < 200)); do
			sleep 0.05
		done
		kill -s KILL "$pid" 2>/dev/null || true
	done
}

# While a child runs, await() deals with the signal.
on_signal() {
	signalled=$1
	pending=$1
	if [ -z "$child" ]; then
		exit $((128 + $(kill -l "$1")))
	fi
}

# Runs a command as if in the foreground (it reads the terminal, and Ctrl-C
# reaches it), but lets a signal to this script reach it at once: bash would
# otherwise look at the signal only after the command has ended.  Returns the
# command's exit status; $signalled tells whether there was a signal.
await() {
	local status=0
	rm -f "$tmp/status"
	# Without these traps a background job would ignore Ctrl-C, with them the
	# command itself decides what a signal does.
	(
		trap : HUP INT QUIT TERM
		"$@" || status=$?
		echo "$status" >"$tmp/status"
		exit "$status"
	) <&0 &
	child=$!
	signalled=
	pending=
	wait "$child" 2>/dev/null || status=$?
	# A signal ended the wait.  To wait once more is not safe, bash may have
	# forgotten a child that ended at the same moment.
	while [ -n "$signalled" ] && [ ! -s "$tmp/status" ] && running "$child"; do
		# shellcheck disable=SC2046	# these are process ids
		case $pending in
			'') sleep 0.05 ;;
			INT | QUIT) kill -s "$pending" $(tree "$child") 2>/dev/null || true ;;
			*) end_processes "$pending" $(tree "$child") ;;
		esac
		pending=
	done
	if [ -n "$signalled" ] && [ -s "$tmp/status" ]; then
		status=$(cat "$tmp/status")
	fi
	child=
	return "$status"
}

# Like await(), for a command of our own: a signal ends the script.
step() {
	local status=0
	await "$@" || status=$?
	if [ -n "$signalled" ]; then
		exit $((128 + $(kill -l "$signalled")))
	fi
	return "$status"
}

# Like step(), but shows the output only if the command fails, and then ends
# the script.  $1 = what could not be done
quietly() {
	local what=$1
	shift
	if ! step "$@" >"$tmp/step.log" 2>&1 </dev/null; then
		cat "$tmp/step.log" >&2
		die "could not $what"
	fi
}

# To be called once: makes sure that nothing is left behind, however we end.
clean_up_at_exit() {
	local signal
	trap clean_up EXIT
	for signal in HUP INT QUIT TERM; do
		# shellcheck disable=SC2064	# expand now
		trap "on_signal $signal" "$signal"
	done
}

clean_up() {
	local status=$? left
	trap '' HUP INT QUIT TERM
	if [ -n "$child" ]; then
		# shellcheck disable=SC2046
		end_processes TERM $(tree "$child")
	fi
	stop_servers
	if [ -n "$tmp" ]; then
		left=$(processes_in "$tmp")
		# shellcheck disable=SC2086
		[ -z "$left" ] || end_processes KILL $left
		rm -rf "$tmp"
	fi
	exit "$status"
}

# Makes $tmp.  Its name is short, since the path of a unix socket is limited to
# 107 bytes.
make_tmp() {
	local folder
	choose_server_user
	for folder in "${TMPDIR:-/tmp}" /tmp; do
		if [ "${#folder}" -le 50 ] && as_server test -x "$folder"; then
			break
		fi
	done
	tmp=$(mktemp -d "$folder/hc.XXXXXX")
}

#---------------------------------------------------------------------------
# Users and packages
#---------------------------------------------------------------------------

# Root lets someone else run the servers.
choose_server_user() {
	if [ "$EUID" = 0 ]; then
		server_user=postgres
		id "$server_user" >/dev/null 2>&1 || server_user=nobody
	fi
}

# Replaces this (sub)shell by a command that runs as the server user in $tmp.
# $1 = the signal it gets should this script be killed the hard way
exec_as_server() {
	local become=(setpriv --pdeathsig "$1")
	shift
	if [ "$EUID" = 0 ]; then
		become+=(--reuid "$server_user" --regid "$(id -g "$server_user")" --init-groups)
	fi
	cd "${tmp:-/}"
	HOME=${tmp:-/} exec "${become[@]}" "$@"
}

as_server() { (exec_as_server TERM "$@"); }

as_root() {
	if [ "$EUID" = 0 ]; then
		"$@"
	else
		sudo "$@"
	fi
}

# Prints the packages that are missing, in Debian's names; "postgresql" stands
# for the server and its development files.  The arguments say for what:
# servers is always included, tap, node and fuzz are suites of tests.
missing_packages() {
	{ command -v gcc && echo '#include <stdio.h>' | gcc -E -; } >/dev/null 2>&1 ||
		echo gcc libc6-dev
	command -v make >/dev/null || echo make
	echo '#include <hiredis/hiredis.h>' | gcc -E - >/dev/null 2>&1 ||
		[ -f /usr/include/hiredis/hiredis.h ] || echo libhiredis-dev
	{ command -v redis-server && command -v redis-cli; } >/dev/null || echo redis-server
	find_pg_config || echo postgresql
	case " $* " in *" tap "*)
		{ command -v prove && perl -MIPC::Run -e 1; } >/dev/null 2>&1 ||
			echo perl libipc-run-perl
	esac
	case " $* " in *" node "*)
		{ command -v node && command -v npm; } >/dev/null || echo nodejs npm
	esac
	case " $* " in *" fuzz "*)
		echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { return d && n < 0; }' |
			clang -fsanitize=fuzzer,address -o /dev/null -x c - 2>/dev/null ||
			echo clang libclang-rt-dev
	esac
}

# Sets PG_CONFIG to an installation with server, headers and PGXS.
find_pg_config() {
	local candidate
	if [ -n "${PG_CONFIG:-}" ]; then
		complete_installation "$PG_CONFIG" ||
			die "PG_CONFIG=$PG_CONFIG does not belong to a PostgreSQL with server and development files"
		return
	fi
	for candidate in pg_config $(printf '%s\n' /usr/lib/postgresql/*/bin/pg_config | sort -rV); do
		if complete_installation "$candidate"; then
			PG_CONFIG=$candidate
			return
		fi
	done
	return 1
}

complete_installation() {
	[ -f "$("$1" --pgxs 2>/dev/null)" ] &&
		[ -f "$("$1" --includedir-server)/postgres.h" ] &&
		[ -x "$("$1" --bindir)/initdb" ]
}

# Installs what is missing.  Asks nothing of apt when nothing is.
need_packages() {
	local missing
	missing=$(missing_packages "$@" | tr '\n' ' ')
	if [ -n "$missing" ]; then
		command -v apt-get >/dev/null ||
			die "please install: $missing"
		[ "$EUID" = 0 ] || command -v sudo >/dev/null ||
			die "please install (no sudo here): $missing"
		say "Installing with apt: $missing"
		# shellcheck disable=SC2086	# a list of packages
		quietly "install packages" as_root "$root/test/apt-install" $missing
		missing=$(missing_packages "$@" | tr '\n' ' ')
		[ -z "$missing" ] ||
			die "still missing after the installation: $missing"
	fi
	find_pg_config
	[ "$(major_version)" -ge 15 ] ||
		die "PostgreSQL 15 or later is needed, this is $("$PG_CONFIG" --version)"
	# the packages may have brought the user
	choose_server_user
	chown "$server_user" "$tmp"
}

major_version() { "$PG_CONFIG" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/'; }

#---------------------------------------------------------------------------
# The private installation
#---------------------------------------------------------------------------

# Builds the extension and sets $bin to PostgreSQL's programs.
stage() {
	local stage=$tmp/stage bindir sharedir pkglibdir
	bindir=$("$PG_CONFIG" --bindir)
	sharedir=$("$PG_CONFIG" --sharedir)
	pkglibdir=$("$PG_CONFIG" --pkglibdir)
	mkdir -p "$stage$bindir" "$stage$sharedir" "$stage$pkglibdir"
	# copies, since a program follows links to find out where it is
	cp "$bindir"/* "$stage$bindir"
	# but pg_config is to tell where the headers and libraries are
	ln -sf "$bindir/pg_config" "$stage$bindir"
	ln -s "$pkglibdir"/* "$stage$pkglibdir"
	ln -s "$sharedir"/* "$stage$sharedir"
	rm "$stage$sharedir/extension"
	mkdir "$stage$sharedir/extension"
	ln -s "$sharedir/extension"/* "$stage$sharedir/extension"
	# an installed copy of this extension must not shine through
	rm -f "$stage$pkglibdir"/hybrid_cache.* "$stage$sharedir/extension"/hybrid_cache*
	build_into "$stage"
	bin=$stage$bindir
}

# One build at a time in a checkout.  A checkout that is not ours stays as it
# is: a copy of it is built.
build_into() {
	local source=$root
	if ! [ -O "$root" ] || ! [ -w "$root" ]; then
		source=$tmp/source
		mkdir "$source"
		cp -R "$root"/Makefile "$root"/*.control "$root"/sql "$root"/src "$source"
	fi
	[ -e "$source/hybrid_cache.so" ] || say "Building the extension"
	quietly "build the extension" flock "$source/Makefile" \
		make -s -C "$source" -j "$(nproc)" --no-print-directory \
		PG_CONFIG="$PG_CONFIG" with_llvm=no DESTDIR="$1" install
}

#---------------------------------------------------------------------------
# The private servers
#---------------------------------------------------------------------------

# Starts a server in the background and sets $spawned to its process id.  It
# gets a session of its own, out of reach of Ctrl-C.  $1 as exec_as_server()
spawn() {
	(
		trap - INT QUIT
		exec_as_server "$1" setsid "${@:2}"
	) </dev/null &
	spawned=$!
}

# Waits until a server answers.  $1 = its name, $2 = its process id, $3 = its
# log, the others are a command that succeeds then.  False if it has ended.
answers() {
	local name=$1 pid=$2 log=$3 turn
	shift 3
	for ((turn = 0; turn < 1200; turn++)); do
		"$@" >/dev/null 2>&1 && return 0
		running "$pid" || return 1
		sleep 0.05
	done
	cat "$log" >&2
	die "$name does not answer"
}

# Starts Redis and sets REDIS_URL.  `redis-cli -u` knows no unix sockets, so it
# listens on a TCP port, any that is free.
start_redis() {
	local folder=$tmp/redis attempt port
	as_server mkdir "$folder"
	for ((attempt = 0; attempt < 50; attempt++)); do
		port=$((RANDOM % 20000 + 12000))
		spawn TERM redis-server --port "$port" --bind 127.0.0.1 \
			--unixsocket "$folder/socket" --dir "$folder" \
			--save '' --appendonly no >"$tmp/redis.log" 2>&1
		redis_pid=$spawned
		# asked by the socket, which is ours for sure
		if answers Redis "$redis_pid" "$tmp/redis.log" redis-cli -e -s "$folder/socket" ping; then
			export REDIS_URL=redis://127.0.0.1:$port
			return
		fi
	done
	cat "$tmp/redis.log" >&2
	die "could not start Redis"
}

# Starts PostgreSQL and sets PGHOST and its kin.  Needs REDIS_URL.
start_postgres() {
	local data=$tmp/data variable
	for variable in $(compgen -e PG); do
		[ "$variable" = PG_CONFIG ] || unset "$variable"
	done
	quietly "create a database cluster" as_server "$bin/initdb" -D "$data" -U postgres \
		-A trust -E UTF8 --locale=C.UTF-8 --no-sync
	{
		cat "$root/test/hybrid_cache.conf"
		printf '%s\n' "listen_addresses = ''" "unix_socket_directories = '$tmp'" \
			"hybrid_cache.redis_url = '$REDIS_URL'"
		if [ -n "${HYBRID_CACHE_TEST_CONF:-}" ]; then
			cat "$HYBRID_CACHE_TEST_CONF"
		fi
	} >>"$data/postgresql.conf"
	export PGHOST=$tmp PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
	spawn QUIT "$bin/postgres" -D "$data" >"$tmp/postgres.log" 2>&1
	postgres_pid=$spawned
	if ! answers PostgreSQL "$postgres_pid" "$tmp/postgres.log" "$bin/pg_isready"; then
		cat "$tmp/postgres.log" >&2
		die "could not start PostgreSQL"
	fi
}

stop_servers() {
	if [ -n "$postgres_pid" ]; then
		end_processes INT "$postgres_pid"
		postgres_pid=
	fi
	if [ -n "$redis_pid" ]; then
		end_processes TERM "$redis_pid"
		redis_pid=
	fi
}

#!/bin/bash
# python.sh SUITE [PYTEST WORDS]: the unit tests with the Python of another Debian release.
# That release's /usr hides ours in a mount namespace. The host does not change, and root is not needed.
set -euo pipefail
suite=$1
shift
place=$PWD/.cache/python/$suite
packages=bash,coreutils,dash,findutils,git,grep,mtools,ntfs-3g,sed,util-linux,python3,python3-venv

if [ "$(cat "$place/packages" 2>/dev/null)" != "$packages" ]; then
	rm -rf "$place"
	mkdir -p "$place"
	trap 'rm -rf "$place"' EXIT
	# Unpacked only: no program of that release runs as root. A mirror of a suite in development may be some days old.
	mmdebstrap --quiet --mode=chrootless --variant=extract --aptopt='Acquire::Check-Valid-Until "false"' \
		--include="$packages" "$suite" "$place/unfinished"
	mv "$place/unfinished" "$place/root"
	echo "$packages" >"$place/packages"
	trap - EXIT
fi

inside() {
	unshare --user --map-root-user --mount -- sh -euc 'mount --bind "$1" /usr; shift; PATH=/usr/sbin:/usr/bin exec "$@"' \
		sh "$place/root/usr" "$@"
}

installed=$place/installed.lock
if ! cmp --silent requirements-dev.lock "$installed"; then
	rm -rf "$place/venv" "$installed"
	inside python3 -m venv "$place/venv"
	inside "$place/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes \
		--requirement requirements-dev.lock
	inside "$place/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	cp requirements-dev.lock "$installed"
fi
inside "$place/venv/bin/python" --version
inside "$place/venv/bin/python" -B -m pytest -p no:cacheprovider "$@" tests/unit

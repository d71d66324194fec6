#!/bin/sh
# deb.sh [ROOT]: the Debian package for the system below ROOT, into dist/: this system, or a chroot with debhelper.
# VERSION: another version than that of the sources.
set -eu
root=${1:-}
version=${VERSION:-$(sed -n 's/^__version__ = "\(.*\)"/\1/p' hyper2kvmd/__init__.py)}
build=$([ "$root" ] && echo /build || echo "$PWD/.cache/deb")
folder=$build/hyper2kvmd-$version

inside() {
    ${root:+chroot "$root"} env LC_ALL=C.UTF-8 sh -euc "$1"
}

rm -rf "$root$build"
packaging/source.sh "$root$folder" "$(inside 'python3 -c "import sys; print(*sys.version_info[:2], sep=\".\")"')" "$version"
mv "$root$folder/packaging/debian" "$root$folder/debian"

# The suffix is the release's own, so that an upgrade of the release is one of the package, too.
. "$root/etc/os-release"
maintainer=$(sed -n 's/^Maintainer: //p' "$root$folder/debian/control")
built=${SOURCE_DATE_EPOCH:-$(git log --max-count=1 --format=%ct 2>/dev/null || date +%s)}
cat >"$root$folder/debian/changelog" <<END
hyper2kvmd ($version~deb${ID#debian}${VERSION_ID:-$VERSION_CODENAME}u1) unstable; urgency=medium

  * Built for $PRETTY_NAME. What changed is in /usr/share/doc/hyper2kvmd/CHANGELOG.md.

 -- $maintainer  $(LC_ALL=C date --utc --rfc-email --date "@$built")
END

# what is built here are Python's wheels: no compiler, whatever build-essential says
inside "cd $folder && dpkg-buildpackage --no-check-builddeps --build=binary --no-sign" >"$root$build/log" 2>&1 ||
    { cat "$root$build/log" >&2; exit 1; }
mkdir -p dist
cp -v "$root$build"/*.deb dist/
# what root has made here the checkout's owner is to make again
[ "$(id -u)" != 0 ] || chown -R --reference=. dist $([ "$root" ] || echo .cache/deb)

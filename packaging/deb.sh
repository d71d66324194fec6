#!/bin/sh
# deb.sh [ROOT]: the Debian package for the system below ROOT, into dist/: this system, or a chroot with debhelper.
# VERSION: another version than that of the sources.
set -eu
root=${1:-}
version=${VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)}
build=$([ "$root" ] && echo /build || echo "$PWD/.cache/deb")
folder=$build/hyper2kvmd-$version

inside() {
    ${root:+chroot "$root"} env LC_ALL=C.UTF-8 sh -euc "$1"
}

rm -rf "$root$build"
packaging/source.sh "$root$folder" "$(inside 'python3 -c "import sys; print(*sys.version_info[:2], sep=\".\")"')" "$version"
mv "$root$folder/packaging/debian" "$root$folder/debian"

# An entry of this build: a release's own suffix makes an upgrade of the release one of the package, too.
. "$root/etc/os-release"
changelog=$root$folder/debian/changelog
released=$(sed -n 's/^ -- .*>  //p;T;q' "$changelog")
{
    echo "hyper2kvmd ($version~deb${ID#debian}${VERSION_ID:-$VERSION_CODENAME}u1) unstable; urgency=medium"
    printf '\n  * Built for %s.\n\n' "$PRETTY_NAME"
    echo " -- $(sed -n 's/^ -- \(.*>\)  .*/\1/p;T;q' "$changelog")  $(date --utc --rfc-email --date "$released + 1 second")"
    echo
    cat "$changelog"
} >"$changelog.new"
mv "$changelog.new" "$changelog"

# what is built here are Python's wheels: no compiler, whatever build-essential says
inside "cd $folder && dpkg-buildpackage --no-check-builddeps --build=binary --no-sign" >"$root$build/log" 2>&1 ||
    { cat "$root$build/log" >&2; exit 1; }
mkdir -p dist
cp -v "$root$build"/*.deb dist/
# what root has made here the checkout's owner is to make again
[ "$(id -u)" != 0 ] || chown -R --reference=. dist $([ "$root" ] || echo .cache/deb)

#!/bin/sh
# rpm.sh: the RPM and its source, for this system's Python, into dist/. VERSION: another version than that of the sources.
set -eu
version=${VERSION:-$(sed -n 's/^__version__ = "\(.*\)"/\1/p' hyper2kvmd/__init__.py)}
python_version=$(/usr/bin/python3 -c 'import sys; print(*sys.version_info[:2], sep=".")')
build=$PWD/.cache/rpm

rm -rf "$build"
mkdir -p "$build/SOURCES" dist
packaging/source.sh "$build/hyper2kvmd-$version" "$python_version" "$version"
tar -czf "$build/SOURCES/hyper2kvmd-$version.tar.gz" -C "$build" --owner=root --group=root "hyper2kvmd-$version"
rpmbuild --nodeps --define "_topdir $build" --define "python_version $python_version" \
    -ba "$build/hyper2kvmd-$version/packaging/rpm/hyper2kvmd.spec" >"$build/log" 2>&1 || { cat "$build/log" >&2; exit 1; }
cp -v "$build"/RPMS/*/*.rpm "$build"/SRPMS/*.rpm dist/
# what root has made here the checkout's owner is to make again
[ "$(id -u)" != 0 ] || chown -R --reference=. dist .cache/rpm

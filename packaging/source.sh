#!/bin/sh
# source.sh FOLDER PYTHON_VERSION VERSION: makes FOLDER a source that packages are built from without a network.
# It is what the sdist has, as VERSION, and in wheels/ the program and all that it depends on, for that Python.
# Dependencies are those of requirements.lock, by hash. Only this step fetches anything.
set -eu
folder=$1 python_version=$2 version=$3
bin=$PWD/.venv/bin
# no wheel of it is published: its own setup.py makes one, of Python alone
without_wheel=sdnotify

rm -rf "$folder"
mkdir -p "$folder"
fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT

"$bin/python" -m build --no-isolation --sdist --outdir "$fetched" . >"$fetched/log" || { cat "$fetched/log" >&2; exit 1; }
tar -xzf "$fetched"/hyper2kvmd-*.tar.gz -C "$folder" --strip-components=1 --no-same-owner
cd "$folder"
sed -i "s/^__version__ = .*/__version__ = \"$version\"/" hyper2kvmd/__init__.py
sed -i "s/@VERSION@/$version/" packaging/rpm/hyper2kvmd.spec

"$bin/pip" download --quiet --require-hashes --no-deps --requirement requirements.lock \
    --python-version "$python_version" --only-binary :all: --no-binary "$without_wheel" --dest wheels
"$bin/pip" wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir wheels wheels/*.tar.gz .
rm wheels/*.tar.gz

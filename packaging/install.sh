#!/bin/sh
# install.sh DESTDIR PYTHON: lays out all that a package of hyper2kvmd has, below DESTDIR, for the target's interpreter
# PYTHON. To be run in a source as `source.sh` makes it; needs no network. For what distributions place differently:
# UNITS (systemd's units) and ZSH (completions of zsh).
set -eu
destdir=$(realpath -m "$1") python=$2
units=${UNITS:-/usr/lib/systemd/system} zsh=${ZSH:-/usr/share/zsh/site-functions}
private=/usr/lib/hyper2kvmd
programs="hyper2kvmd h2kvmctl hyper2kvm"
internal="hyper2kvm-ssh" # started by virsh, by its path
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

put() { # put MODE FOLDER FILE...; a pattern that nothing fits is none
    mode=$1 folder=$2
    shift 2
    for file; do
        [ ! -f "$file" ] || install -D -m "$mode" -t "$destdir$folder" "$file"
    done
}

# The private environment. pip is a borrowed one and stays outside; its records name what is not shipped.
"$python" -m venv "$scratch/pip"
"$scratch/pip/bin/pip" --isolated install --quiet --disable-pip-version-check --root-user-action=ignore \
    --no-index --find-links wheels --no-compile --prefix "$destdir$private" hyper2kvmd
find "$destdir$private" -name RECORD -delete -o -name REQUESTED -delete
find "$destdir$private/bin" -type f ! -name 'h*2kvm*' -delete
ln -s "$python" "$destdir$private/bin/python3"
printf 'home = %s\ninclude-system-site-packages = false\n' "$(dirname "$python")" >"$destdir$private/pyvenv.cfg"
mkdir -p "$destdir/usr/bin"
for program in $programs $internal; do
    # -I: nobody's PYTHONPATH reaches a service
    sed -i "1s|.*|#!$private/bin/python3 -I|" "$destdir$private/bin/$program"
done
for program in $programs; do
    ln -s "../lib/hyper2kvmd/bin/$program" "$destdir/usr/bin/$program"
done

"$destdir$private/bin/python3" -IB packaging/completions.py "$scratch"
put 0644 /usr/share/bash-completion/completions "$scratch"/bash/*
put 0644 "$zsh" "$scratch"/zsh/*
put 0644 /usr/share/fish/vendor_completions.d "$scratch"/fish/*

# Compiled here: nothing is left behind on removal, and the package manager vouches for every file. Unchecked: a source
# changes with its package only, and then its compiled file does.
PYTHONHASHSEED=0 "$python" -m compileall -q --invalidation-mode unchecked-hash -s "$destdir" -p / "$destdir$private/lib"

install -D -m 0755 hyper2kvmd/helper/helper.py "$destdir/usr/libexec/hyper2kvm/helper"
put 0440 /etc/sudoers.d sudoers.d/hyper2kvm
put 0644 /etc/hyper2kvm packaging/hyper2kvmd.yaml
put 0644 "$units" systemd/*
put 0644 /usr/lib/sysusers.d packaging/sysusers.d/*
put 0644 /usr/lib/tmpfiles.d packaging/tmpfiles.d/*
put 0644 /usr/lib/udev/rules.d packaging/udev/*.rules
put 0644 /usr/share/hyper2kvmd packaging/hyper2kvmd.service.d/hardened.conf
put 0644 /usr/share/hyper2kvmd/selinux packaging/selinux/*
put 0644 /usr/share/hyper2kvmd/monitoring packaging/monitoring/*
put 0644 /etc/apparmor.d packaging/apparmor/*
find packaging/apparmor/abstractions -type f 2>/dev/null | while read -r file; do
    put 0644 "/etc/apparmor.d/$(dirname "${file#packaging/apparmor/}")" "$file"
done
mkdir "$scratch/man"
"$destdir$private/bin/python3" -IB -m hyper2kvmd.cli.manual man "$scratch/man"
for section in 1 5 8; do
    put 0644 "/usr/share/man/man$section" "$scratch"/man/*."$section"
done
# as in the sources, so that the links in these texts lead there
doc=/usr/share/doc/hyper2kvmd
put 0644 $doc README.md SECURITY.md CONTRIBUTING.md CHANGELOG.md LICENSE
find docs -type f | while read -r file; do
    put 0644 "$doc/$(dirname "$file")" "$file"
done
put 0644 $doc/examples examples/*.yaml
put 0644 $doc/packaging/container packaging/container/*
ln -s ../../../hyper2kvmd/monitoring "$destdir$doc/packaging/monitoring"

"""Text for shell scripts that people run: words and comments that the shell cannot misread, and a common beginning."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

INDENT = "    "

PRELUDE = r"""
set -eu
CDPATH='' cd -- "$(dirname -- "$0")"

fail() {
    printf '%s\n' "$1" >&2
    exit 1
}

# print a command that can be pasted into a shell
show() {
    for word; do
        printf "'%s' " "$(printf '%s' "$word" | sed "s/'/'\\\\''/g")"
    done
    echo
}

run() {
    if [ -n "$dry_run" ]; then
        show "$@"
    else
        "$@"
    fi
}

dry_run=
if [ "${1-}" = --dry-run ]; then
    dry_run=yes
    shift
fi
"""
"""Changes to the script's own directory, so that it works with relative names."""
BEGIN = r"""
[ -z "$dry_run" ] || show cd -- "$(pwd)"
"""
"""Begins the list of commands, once nothing is wrong with the arguments and the host."""


def word(text: str) -> str:
    """One word of a POSIX shell."""
    return shlex.quote(text)


def one_line(text: str) -> str:
    """Printable text without line breaks, for a comment."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())


def command(groups: Iterable[str], indent: str = "") -> str:
    """A command with one group of words a line. Each group is shell text already."""
    return f" \\\n{indent}{INDENT}".join(groups)


def script(*parts: str) -> str:
    """A script of these parts, with an empty line between them; empty parts are left out."""
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"

"""No text that a person can follow proposes to change rights of, or to remove, something that others may use."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd import catalogue
from tests.support.program_texts import FILLED_IN, PACKAGE, texts

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(
    r"(?:mkdir [^`&]*&& )?(?<![-\w])(?:chown|chmod|chgrp|setfacl|usermod|gpasswd|install -d|rm)\b[^`)|,;\n]*"
)
"""A command, with one before it that it depends on, up to the end of the code or of the parenthesis."""
SAFE = frozenset(
    {
        # a file that its owner drops, or a new directory
        "chmod go-w",
        "chmod go-w web01.yaml",
        "chmod o+r",
        "chmod o+r web01.yaml",
        "mkdir -m 0700 DIRECTORY && chown hyper2kvm: DIRECTORY",
        "mkdir -m 0751 /srv/images && chown hyper2kvm: /srv/images",
        "mkdir -m 0700 /srv/images/.conversions && chown hyper2kvm: /srv/images/.conversions",
        # a folder of the spool, which is missing
        f"install -d -m {FILLED_IN} -o {FILLED_IN} -g {FILLED_IN} {FILLED_IN}",
        # a directory of the service, which is missing
        f"install -d -o {FILLED_IN} -g {FILLED_IN} -m 0750 {FILLED_IN}",
        # inside a guest
        "chown root:root FILE",
        f"chown root:root {FILLED_IN}",
        # the service's own database, from a backup
        "chown hyper2kvm:",
        # who may submit, who may operate
        "usermod -aG hyper2kvm bob",
        "usermod -aG hyper2kvm-submit alice",
        "usermod -aG hyper2kvm-submit bob",
        f"usermod -aG {FILLED_IN} {FILLED_IN}",
        "gpasswd -d hyper2kvm libvirt",
        # in the script that starts a machine with QEMU: the files beside it
        'chmod u+w "$VARS.partial"',
        'chmod 700 "$TPM"',
        'rm -f "$TPM/socket"',
        # files that only this project's packages install
        "rm /etc/sudoers.d/hyper2kvm",
    }
)
"""Each was judged: it changes nothing but what the comment says, whatever path a message names."""


def dangerous(text: str) -> list[str]:
    commands = (re.sub(r"\s+(?:#.*)?$", "", found.group()) for found in COMMAND.finditer(text))
    return [command for command in commands if command not in SAFE]


def pages() -> Iterator[Path]:
    yield ROOT / "README.md"
    for folder in ("docs", "hyper2kvmd/manual", "examples"):
        yield from (path for path in sorted((ROOT / folder).rglob("*")) if path.is_file())


def literals(source: str) -> Iterator[str]:
    """Every text in a program, hints among them; a value that is filled in is FILLED_IN."""
    inner = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr | ast.Expr):  # its parts; docstrings
            inner |= {id(part) for part in ast.iter_child_nodes(node)}
        if isinstance(node, ast.JoinedStr | ast.Constant) and id(node) not in inner:
            yield from texts(node)


def test_no_text_of_the_program_is_dangerous() -> None:
    found = [(path, text) for path in sorted(PACKAGE.rglob("*.py")) for text in literals(path.read_text())]
    assert len(found) > 5000
    assert [(path.name, wrong) for path, text in found if (wrong := dangerous(text))] == []


def test_no_entry_of_the_catalogue_is_dangerous() -> None:
    texts = ((code, text) for code, entry in catalogue.entries().items() for text in entry.remedy)
    assert [(code, found) for code, text in texts if (found := dangerous(text))] == []


def test_no_page_is_dangerous() -> None:
    texts = ((path, line) for path in pages() for line in path.read_text(errors="replace").splitlines())
    assert [(str(path), found) for path, line in texts if (found := dangerous(line))] == []


@pytest.mark.parametrize(
    "text",
    [
        f"Run `chown hyper2kvm {FILLED_IN}`",
        f"Run `chmod go-w {FILLED_IN}`, or use another directory",
        "Give them read permission (chmod, setfacl)",
        "Correct it: `chown hyper2kvm DIRECTORY`",
        "Create it: `install -d -m 0700 -o hyper2kvm /srv`",
        "Empty it: `rm -rf /tmp/*`",
        "chmod go-w web01.yaml /tmp",
    ],
)
def test_dangerous_advice_is_found(text: str) -> None:
    assert dangerous(text)

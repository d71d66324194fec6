"""The error catalogue: the meaning, the causes and the remedies of each code.

The entries are data, one TOML file for each subject: `h2kvmctl explain` prints them, and `docs/reference/errors.md` is
generated from them. Raising an error, and its message, belong to the code that finds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from typing import Literal

from hyper2kvmd.errors import Kind
from hyper2kvmd.model.frozen import Frozen

SUBJECTS = (
    *("migration", "spool", "machine", "package", "source", "conversion", "mount"),
    *("guest", "windows", "ntfs", "drivers", "boot", "output", "daemon", "helper"),
)
"""The files, in the order of a migration."""
KINDS = {
    Kind.RETRY: "the daemon tries the job again by itself",
    Kind.OPERATOR: "the job is held: change something on the host, then retry it; finished stages are kept",
    Kind.PERMANENT: "the input is at fault; the same job fails again",
    "concern": "no error: the migration continues, and plan, log and report show it",
    None: "a reply of the root helper, which is quoted in the message of another error",
}


class Explanation(Frozen):
    """One code. Texts are Markdown of one line each, with commands in backticks."""

    code: str
    kind: Kind | Literal["concern"] | None = None
    """None for a reply of the root helper: the error that quotes it has a kind of its own."""
    meaning: str
    causes: tuple[str, ...]
    remedy: tuple[str, ...]


class Subject(Frozen):
    title: str
    entries: tuple[Explanation, ...]


def read() -> tuple[Subject, ...]:
    """The whole catalogue."""
    return tuple(_subject(name) for name in SUBJECTS)


def entries() -> dict[str, Explanation]:
    """Every entry by its code."""
    return {entry.code: entry for subject in read() for entry in subject.entries}


def _subject(name: str) -> Subject:
    import tomllib  # not needed by an idle daemon

    text = resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    title, tables = "", {}
    for key, value in tomllib.loads(text).items():
        if key == "title":
            title = value
        else:
            tables[key] = value
    return Subject(title=title, entries=tuple(Explanation(code=code, **table) for code, table in tables.items()))


# ---------------------------------------------------------------- as a page of the documentation

HEADER = """# Error codes

Every error message ends with a code in brackets, such as `[source-missing]`. `h2kvmctl explain source-missing` prints
the entry on the terminal.

Each code has one meaning and one kind:

| kind | what it means |
| --- | --- |
"""


def markdown() -> str:
    """The text of `docs/reference/errors.md`."""
    kinds = "".join(f"| {kind or 'helper'} | {text} |\n" for kind, text in KINDS.items())
    subjects = read()
    contents = "".join(f"- {subject.title}: {_links(subject)}\n" for subject in subjects)
    pages = "".join(line for subject in subjects for line in _page(subject))
    return f"{HEADER}{kinds}\n{contents}{pages}"


def _links(subject: Subject) -> str:
    return ", ".join(f"[{entry.code}](#{entry.code})" for entry in subject.entries)


def _page(subject: Subject) -> Iterator[str]:
    yield f"\n## {subject.title}\n"
    for entry in subject.entries:
        yield f"\n### {entry.code}\n\n{entry.meaning} *Kind: {entry.kind or 'helper'}.*\n\n"
        yield from (f"- Cause: {cause}\n" for cause in entry.causes)
        yield from (f"- Remedy: {step}\n" for step in entry.remedy)

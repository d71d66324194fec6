"""The exit statuses of the programs: what each means, and what a script can do."""

from __future__ import annotations

from hyper2kvmd import errors
from hyper2kvmd.manual.page import Group, Term
from hyper2kvmd.model.frozen import Frozen


class ExitStatus(Frozen):
    """Texts are Markdown sentences."""

    number: int
    meaning: str
    """For h2kvmctl."""
    reaction: str
    """What a script can do."""
    of_daemon: str = ""
    """The meaning for hyper2kvmd, if it ends with this status."""


EXITS = (
    ExitStatus(
        number=0,
        meaning="Done: the guest is migrated, or the command did its work.",
        reaction="Continue.",
        of_daemon="The daemon was stopped, by a signal or by `h2kvmctl drain`.",
    ),
    ExitStatus(
        number=errors.MigrationFailed.exit_code,
        meaning="The migration or the command failed.",
        reaction="Read the message. `h2kvmctl explain CODE` has causes and remedies.",
        of_daemon="An unexpected error, which is in the log.",
    ),
    ExitStatus(
        number=errors.InvalidInput.exit_code,
        meaning="A file, an option or a command is invalid.",
        reaction="Correct it. The same call fails again.",
        of_daemon="The options are invalid.",
    ),
    ExitStatus(
        number=errors.Unsafe.exit_code,
        meaning="Refused as unsafe: continuing could disclose or damage data of others.",
        reaction="Read the message, and let a person decide.",
    ),
    ExitStatus(
        number=errors.AlreadyActive.exit_code,
        meaning="Already active: the same migration is queued, held or running, and was not submitted again.",
        reaction="Follow the job that the message names, or cancel it first.",
    ),
    ExitStatus(
        number=errors.TryLater.exit_code,
        meaning="The migration is not at fault, but the host cannot run it now. Try again later.",
        reaction="Wait, then repeat the same call.",
        of_daemon="The database does not respond. Try again later.",
    ),
    ExitStatus(
        number=errors.BrokenInstallation.exit_code,
        meaning="The host is not set up: the configuration, the helper, a tool or the database is unusable.",
        reaction="Correct the host, then repeat the same call.",
        of_daemon="The configuration, a directory, a socket or the database is unusable. "
        "Nothing was changed: an administrator must correct it.",
    ),
    ExitStatus(
        number=errors.Interrupted.exit_code,
        meaning="Interrupted. No working folder is left behind. Images that were published already stay.",
        reaction="Repeat the same call to start over.",
    ),
)
HEADER = """# Exit statuses

The exit status of a one-shot run (`h2kvmctl --config FILE`) and of the commands of [h2kvmctl](h2kvmctl.md). For several
machines or jobs it is the highest one. `h2kvmctl watch` and `h2kvmctl submit --wait` end with 0 if the jobs succeeded,
2 if one was rejected and 1 otherwise. [Error codes](errors.md) are more precise.

| status | meaning | what a script can do |
| --- | --- | --- |
"""
OF_DAEMON = """
## The daemon

`systemctl status hyper2kvmd` shows the exit status of [hyper2kvmd](hyper2kvmd.md).

| status | meaning |
| --- | --- |
"""


def of_commands() -> Group:
    """The entries for the manual pages of h2kvmctl and of migrations."""
    return Group(tuple(Term("value", str(one.number), one.meaning) for one in EXITS))


def of_daemon() -> Group:
    return Group(tuple(Term("value", str(one.number), one.of_daemon) for one in EXITS if one.of_daemon))


def markdown() -> str:
    """The text of `docs/reference/exit-codes.md`."""
    commands = "".join(f"| {one.number} | {one.meaning} | {one.reaction} |\n" for one in EXITS)
    daemon = "".join(f"| {one.number} | {one.of_daemon} |\n" for one in EXITS if one.of_daemon)
    return f"{HEADER}{commands}{OF_DAEMON}{daemon}"

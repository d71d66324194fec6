"""`h2kvmctl explain`, and the line on a terminal that leads to it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable

import click
import pytest
from rich.console import Console

from hyper2kvmd import catalogue
from hyper2kvmd.cli import ctl, views
from hyper2kvmd.cli.explain import WIDTH, explain
from hyper2kvmd.cli.output import Output
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.progress import problem

ENTRIES = catalogue.entries()
FAILURE = MigrationFailed("source-missing", "web01.vmdk does not exist", hint="correct the path")
MORE = "More: h2kvmctl explain source-missing"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit status, stdout and stderr of `h2kvmctl explain` with these arguments."""

    def run_it(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["h2kvmctl", "explain", *arguments])
        status = ctl._run(Output())
        said = capsys.readouterr()
        return status, said.out, said.err

    return run_it


@pytest.mark.parametrize("written", ["source-missing", "[source-missing]", "SOURCE-MISSING"])
def test_an_entry_is_shown_in_full(written: str, run: Run) -> None:
    status, out, err = run(written)
    entry, words = ENTRIES["source-missing"], " ".join(out.split())
    assert (status, err) == (0, "")
    assert out.startswith("source-missing\n")
    assert all(text in words for text in (entry.meaning, *entry.causes, *entry.remedy))


@pytest.mark.parametrize("code", ENTRIES)
def test_lines_are_short_and_commands_stay_whole(code: str, run: Run) -> None:
    _, out, _ = run(code)
    assert all(line.count("`") % 2 == 0 for line in out.splitlines())
    assert all(len(line) <= WIDTH or "`" in line for line in out.splitlines())


def test_an_entry_as_json(run: Run) -> None:
    status, out, _ = run("source-missing", "--json")
    assert status == 0
    assert catalogue.Explanation.model_validate_json(out) == ENTRIES["source-missing"]


def test_all_codes_are_listed(run: Run) -> None:
    status, out, _ = run()
    assert status == 0
    listed = {line.split()[0]: line for line in out.splitlines() if line.startswith("  ")}
    assert listed.keys() == ENTRIES.keys()
    assert all(listed[code].endswith(entry.meaning) for code, entry in ENTRIES.items())
    assert [one["code"] for one in json.loads(run("--json")[1])] == list(ENTRIES)


@pytest.mark.parametrize(
    ("written", "hint"), [("source-mising", "Did you mean source-missing"), ("qqq", "List all codes")]
)
def test_an_unknown_code_leads_to_near_ones(written: str, hint: str, run: Run) -> None:
    status, out, err = run(written)
    assert (status, out) == (2, "")
    assert hint in err
    assert json.loads(run(written, "--json")[1])["error"]["code"] == "code-unknown"


def test_codes_are_completed() -> None:
    (argument,) = (one for one in explain.params if isinstance(one, click.Argument))
    found = argument.shell_complete(click.Context(explain), "source-m")
    assert [item.value for item in found] == ["source-missing"]


def test_no_other_command_loads_the_catalogue() -> None:
    check = "import sys, hyper2kvmd.cli.ctl, hyper2kvmd.cli.daemon; sys.exit('hyper2kvmd.catalogue' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


# ---------------------------------------------------------------- the line on a terminal


@pytest.mark.parametrize("terminal", [True, False])
def test_a_failed_command(terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    Output().failure(FAILURE)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("[source-missing]")
    assert lines[1:] == [MORE] * terminal


@pytest.mark.parametrize("terminal", [True, False])
def test_problems_of_a_job(terminal: bool) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=120)
    output = Output()
    output.console = console
    views.problems(output, (problem(FAILURE),))
    assert (MORE in stream.getvalue()) == terminal
    views.problems(output, ())
    assert stream.getvalue().count("More:") == terminal

"""The pages of the manual say what the program is: each command, option, place and exit status, and no other."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import click
import pytest

from hyper2kvmd import config, errors, spec
from hyper2kvmd.cli import ctl, manual, oneshot
from hyper2kvmd.cli import daemon as program
from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.manual import exits, keys_page, mdoc, site
from hyper2kvmd.manual.page import MARK, REFERENCE, Group, ManualPage, Term
from hyper2kvmd.model.asked import Migration
from tests.support.host import HELPER, unit_settings

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {f"{page.name}({page.section})": page for page in manual.pages()}
ELSEWHERE = {"sudo(8)", "systemd(1)"}
DAY = date(2026, 11, 23)
COMMANDS: dict[str, click.Command] = {
    name: command for name in ctl.COMMANDS if (command := ctl.cli.get_command(click.Context(ctl.cli), name))
}
each_page = pytest.mark.parametrize("name", PAGES)


def terms(name: str, mark: str) -> list[Term]:
    return [term for group in PAGES[name].groups[mark] for term in group.terms]


def section(name: str, title: str) -> str:
    (_, *parts) = re.split(r"^## ", PAGES[name].prose, flags=re.MULTILINE)
    return next(part for part in parts if part.startswith(f"{title}\n"))


def heads(text: str) -> list[str]:
    """What the entries of a list in prose are about."""
    found = re.findall(r"^- ((?:`[^`]+`(?:, )?)+): ", text, re.MULTILINE)
    return [name for names in found for name in re.findall("`([^`]+)`", names)]


# ---------------------------------------------------------------- programs


def test_commands_stand_where_they_get_their_answers() -> None:
    here, there = ({term.name for term in terms("h2kvmctl(1)", mark)} for mark in (manual.HERE, manual.TO_DAEMON))
    remote = {name for name, command in COMMANDS.items() if "--socket" in {o for p in command.params for o in p.opts}}
    assert there == remote
    assert here == {name for name, command in COMMANDS.items() if not command.hidden} - remote


@pytest.mark.parametrize("name", sorted(name for name, command in COMMANDS.items() if not command.hidden))
def test_a_command_has_a_text_and_its_options(name: str) -> None:
    all_terms = [*terms("h2kvmctl(1)", manual.HERE), *terms("h2kvmctl(1)", manual.TO_DAEMON)]
    (term,) = [term for term in all_terms if term.name == name]
    options = {o for p in COMMANDS[name].params if isinstance(p, click.Option) for o in p.opts}
    assert "--json" in options
    assert {o for one in term.inner for o in one.name.split(", ")} == options - manual.EVERYWHERE
    for text in (term.text, *(one.text for one in term.inner)):
        assert re.fullmatch(r"[A-Z].*\.", text, re.DOTALL), text
        assert max(len(line.split()) for line in text.splitlines()) <= 35, text


@pytest.mark.parametrize(("name", "command"), [("h2kvmctl(1)", ctl.cli), ("hyper2kvmd(8)", program.main)])
def test_the_synopsis_has_each_option(name: str, command: click.Command) -> None:
    options = {o for p in command.params for o in p.opts}
    assert set(re.findall(r"--[a-z-]+", PAGES[name].synopsis[0])) == options - {"--version"}
    assert {o for term in terms(name, "options") for o in term.name.split(", ")} == options | {"-h", "--help"}


@pytest.mark.parametrize("name", ["h2kvmctl(1)", "hyper2kvmd(8)", "hyper2kvm-migration(5)"])
def test_exit_statuses(name: str) -> None:
    told = {int(term.name) for term in terms(name, "exit statuses")}
    ends: list[type[errors.Explained]] = [errors.Failure, errors.Interrupted, *errors.Failure.__subclasses__()]
    ends += errors.InvalidInput.__subclasses__()
    there = {0, *(end.exit_code for end in ends)}
    not_the_daemons = {end.exit_code for end in (errors.Unsafe, errors.AlreadyActive, errors.Interrupted)}
    assert told == (there - not_the_daemons if name == "hyper2kvmd(8)" else there)


def test_the_exit_statuses_of_help_are_those_of_the_table() -> None:
    assert ctl.cli.epilog is not None
    assert [int(number) for number in re.findall(r"(\d+) \w", ctl.cli.epilog)] == [one.number for one in exits.EXITS]


def test_files_of_the_daemon() -> None:
    here = DaemonConfig()
    places = (here.spool_dir, here.conversion_dir, here.output_dir, here.control_socket, config.DEFAULT_PATH, HELPER)
    database = here.database_url.removeprefix("sqlite:///")
    socket = unit_settings("hyper2kvm-helper.socket")["ListenSequentialPacket"]
    assert set(heads(section("hyper2kvmd(8)", "Files"))) == {*map(str, places), database, socket}
    assert here.helper[-1] == str(HELPER) if isinstance(here.helper, tuple) else None


@pytest.mark.parametrize("name", ["h2kvmctl(1)", "hyper2kvmd(8)"])
def test_the_environment(name: str) -> None:
    assert oneshot.VARIABLE in heads(section(name, "Environment"))


# ---------------------------------------------------------------- keys


def test_a_default_is_written_as_in_a_yaml() -> None:
    assert keys_page.default_text("retry.delay", DaemonConfig) == "60"
    assert keys_page.default_text("helper", DaemonConfig) == "[sudo, -n, /usr/libexec/hyper2kvm/helper]"
    assert keys_page.default_text("resize", Migration) == "[]"
    assert keys_page.default_text("no_grub", Migration) == "false"
    assert keys_page.default_text("hooks.before", Migration) == "[]"


def test_a_page_has_each_key_with_default_and_example() -> None:
    by_name = {term.name: term for term in terms("hyper2kvmd.yaml(5)", "keys")}
    assert by_name["spool_dir"].text.endswith(
        "Default: `/var/spool/hyper2kvm`.\nExample: `spool_dir: /srv/spool`.\nRestart."
    )
    assert [inner.name for inner in by_name["retry"].inner] == ["retry.max_attempts", "retry.delay", "retry.backoff"]
    assert "Restart." not in by_name["output_dir"].text


def test_the_database_is_in_the_state_directory() -> None:
    (term,) = [term for term in terms("hyper2kvmd.yaml(5)", "keys") if term.name == "database_url"]
    assert f"Default: `{DaemonConfig().database_url}`;" in term.text


@pytest.mark.parametrize("name", ["hyper2kvm-migration(5)", "hyper2kvmd.yaml(5)"])
def test_the_examples_are_valid(name: str, tmp_path: Path) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", section(name, "Examples"), re.DOTALL)
    assert examples
    for text in examples:
        if name == "hyper2kvmd.yaml(5)":
            file = tmp_path / "hyper2kvmd.yaml"
            file.write_text(text)
            assert config.load(file) != DaemonConfig()
        else:
            assert all(one.migration.sources for one in spec.parse(text, default_name="web01"))


# ---------------------------------------------------------------- pages


@each_page
def test_pages_refer_to_pages_that_exist(name: str) -> None:
    assert {found[0] for found in REFERENCE.finditer(mdoc_text(PAGES[name]))} <= PAGES.keys() | ELSEWHERE


def mdoc_text(page: ManualPage) -> str:
    return mdoc.render(page, DAY).replace("\\fB", "").replace("\\fR", "")


@each_page
def test_marks_and_entries_belong_together(name: str) -> None:
    marks = set(MARK.findall(PAGES[name].prose)) - {"synopsis"}
    assert marks == PAGES[name].groups.keys()
    assert ("<!-- synopsis -->" in PAGES[name].prose) == bool(PAGES[name].synopsis)


@each_page
def test_the_reference_is_generated(name: str) -> None:
    assert (DOCS / "reference" / site.PAGES[name]).read_text() == site.render(PAGES[name]), "run: make reference"


def test_the_page_of_exit_statuses_is_generated() -> None:
    assert (DOCS / "reference" / "exit-codes.md").read_text() == exits.markdown(), "run: make reference"


def test_the_old_name_leads_to_the_same_page(tmp_path: Path) -> None:
    manual.write_man(tmp_path)
    assert (tmp_path / "hyper2kvm.1").read_text() == ".so man1/h2kvmctl.1\n"


# ---------------------------------------------------------------- forms


def of(prose: str, *terms: Term, synopsis: tuple[str, ...] = ()) -> str:
    page = ManualPage("a", 1, "one page", prose, {"keys": (Group(terms, "Keys"),)}, synopsis)
    return mdoc.render(page, DAY).partition(".Nd one page\n")[2]


@pytest.mark.parametrize(
    ("markdown", "written"),
    [
        ("## See also\n", ".Sh SEE ALSO\n"),
        ("One. Two.\n\nThree.", "One.\nTwo.\n.Pp\nThree.\n"),
        ("The path `/srv/a-b`.", "The path \\fI/srv/a\\-b\\fR.\n"),
        ("The word `a b`.", "The word \\(oqa b\\(cq.\n"),
        ("The key `vmdk` of `h2kvmctl`.", "The key \\fBvmdk\\fR of \\fBh2kvmctl\\fR.\n"),
        ("Use `--json`.", "Use \\fB\\-\\-json\\fR.\n"),
        ("See sudo(8).", "See \\fBsudo\\fR(8).\n"),
        ("'x' is a text, .y not.", "\\&'x' is a text, .y not.\n"),
        ("a\\\\b", "a\\eb\n"),
        ("- `/a`: First.\n- `b`: Second.", ".Bl -tag -width Ds\n.It Pa /a\nFirst.\n.It b\nSecond.\n.El\n"),
        ("- One.\n- Two.", ".Bl -bullet -compact\n.It\nOne.\n.It\nTwo.\n.El\n"),
        ("```sh\n.x\n```", ".Bd -literal -offset indent\n\\&.x\n.Ed\n"),
    ],
)
def test_markdown_as_mdoc(markdown: str, written: str) -> None:
    assert of(markdown) == written


def test_entries_as_mdoc() -> None:
    inner = Term("key", "retry.delay", "How long.", "seconds")
    text = of("<!-- keys -->\n", Term("key", "retry", "Again.", "", (inner,)), Term("option", "-h, --help", "Help."))
    assert ".Ss Keys\n.Bl -tag -width Ds\n.It Ic retry\nAgain.\n" in text
    assert ".It Ic delay : Ar seconds\nHow long.\n.El\n.It Fl h , -help\nHelp.\n.El\n" in text


def test_a_synopsis_as_mdoc() -> None:
    text = of("<!-- synopsis -->\n", synopsis=("a --config FILE [--x] [--y N] COMMAND [ARGUMENT...]",))
    assert text == ".Nm\n.Fl -config Ar FILE\n.Op Fl -x\n.Op Fl -y Ar N\n.Ar COMMAND\n.Op Ar ARGUMENT...\n"


def test_what_has_no_form_in_mdoc_is_an_error() -> None:
    with pytest.raises(ValueError, match="blockquote"):
        of("> quoted")

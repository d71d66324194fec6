"""What operators type, and what h2kvmctl answers: lists, selections, single jobs and files."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.model.jobs import State
from tests.support.ctl import ctl
from tests.support.house import House
from tests.support.terminal import Terminal, on_terminal


def typed(house: House, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return ctl(*words, "--socket", house.socket, cwd=house.root)


def document(house: House, *words: str | Path) -> Any:
    return json.loads(typed(house, *words, "--json").stdout)


def written(house: House, name: str, *words: str, **keys: Any) -> Path:
    path = house.root / f"{name}.yaml"
    path.write_text(house.migration(name, *words, **keys))
    return path


@pytest.fixture
def paused(house: House) -> House:
    """A daemon with the queued jobs 1 to 3: a, b and c."""
    house.start()
    typed(house, "pause")
    for name in "abc":
        assert typed(house, "submit", written(house, name, "plan", "fail permanent")).returncode == 0
    return house


# ---------------------------------------------------------------- selections


def test_verbs_take_numbers_and_ranges_and_answer_for_each_job(paused: House) -> None:
    held = typed(paused, "hold", "1", "2-3")
    assert held.stdout.splitlines() == ["held job 1 (a)", "held job 2 (b)", "held job 3 (c)"]
    released = typed(paused, "release", "2-90")
    assert (released.returncode, len(released.stdout.splitlines())) == (0, 2)  # a gap in a range is usual


def test_each_job_is_answered_and_the_highest_exit_status_counts(paused: House) -> None:
    typed(paused, "hold", "2")
    mixed = typed(paused, "hold", "1-3")
    assert mixed.stdout.splitlines() == ["held job 1 (a)", "held job 3 (c)"]
    assert "job 2 is held: hold is not possible. Choose a job that is queued. [job-state]" in mixed.stderr
    assert mixed.returncode == 2
    answers = document(paused, "release", "1", "3")
    assert [(one["id"], one["state"]) for one in answers] == [(1, "queued"), (3, "queued")]
    answers = document(paused, "release", "1", "2")
    assert (answers[0]["error"]["code"], answers[1]["state"]) == ("job-state", "queued")


def test_unknown_jobs_are_named_and_exit_1(paused: House) -> None:
    for verb in (["cancel"], ["show"], ["logs"], ["watch"]):
        asked = typed(paused, *verb, "77", "90-91")
        assert asked.returncode == 1
        assert "there are no jobs 77, 90, 91. Run `h2kvmctl list` to see the job numbers. [job-unknown]" in asked.stderr
    assert document(paused, "show", "77")["error"]["exit_code"] == 1
    assert document(paused, "hold", "1", "77")[1]["error"]["code"] == "job-unknown"


def test_jobs_are_selected_by_state_vm_and_submitter(paused: House) -> None:
    assert typed(paused, "hold", "--vm", "b").stdout == "held job 2 (b)\n"
    assert typed(paused, "cancel", "--all-held").stdout == "cancelled job 2 (b)\n"
    assert typed(paused, "retry", "--all-failed").stdout == "no job matches\n"
    assert typed(paused, "retry", "--all-cancelled").stdout == "queued job 2 (b) again\n"
    assert len(typed(paused, "cancel", "--mine").stdout.splitlines()) == 3
    assert typed(paused, "cancel", "--all-queued", "1").returncode == 2
    again = typed(paused, "retry", "1")
    typed(paused, "cancel", "1")
    assert typed(paused, "cancel", "1").stderr.endswith("Choose a job that is queued, held or running. [job-state]\n")
    assert again.returncode == 0
    assert typed(paused, "cancel").returncode == 2


def test_jobs_are_selected_by_batch(paused: House) -> None:
    path = paused.root / "wave.yaml"
    path.write_text(f"guest: none\nvms:\n- vmdk: {paused.root}/x.vmdk\n- vmdk: {paused.root}/y.vmdk\n")
    typed(paused, "submit", path)
    assert [one["vm_name"] for one in document(paused, "list", "--batch", "wave", "--sort", "name")] == ["x", "y"]
    listed = typed(paused, "batches").stdout.splitlines()[1].split()
    assert listed[:6] == ["1", "wave", "0", "of", "2", "2"]
    assert typed(paused, "cancel", "--batch", "wave").stdout.splitlines() == [
        "cancelled job 4 (x)",
        "cancelled job 5 (y)",
    ]
    shown = typed(paused, "batch", "wave")
    assert "jobs       2 cancelled" in shown.stdout
    assert [line.split()[:3] for line in shown.stdout.splitlines()[-2:]] == [
        ["4", "x", "cancelled"],
        ["5", "y", "cancelled"],
    ]
    assert [one["vm_name"] for one in document(paused, "batch", "1")["jobs"]] == ["x", "y"]
    assert len(typed(paused, "batch", "wave", "--report", "csv").stdout.splitlines()) == 3
    assert typed(paused, "batch", "none").returncode == 1


def test_a_person_is_asked_before_several_jobs_change(paused: House) -> None:
    words = ("cancel", "--all-queued", "--socket", paused.socket)
    with Terminal(*words, cwd=paused.root) as terminal:
        terminal.shows("cancel 3 jobs (1 a, 2 b, 3 c)? [y/N]")
        terminal.press("n\n")
        assert terminal.ends() == 130
        assert "nothing was changed" in terminal.text
    assert {job.state for job in paused.jobs()} == {State.QUEUED}
    with Terminal(*words, cwd=paused.root) as terminal:
        terminal.shows("[y/N]")
        terminal.press("y\n")
        assert terminal.ends() == 0
    assert {job.state for job in paused.jobs()} == {State.CANCELLED}
    code, text, _ = on_terminal("retry", "--all-cancelled", "--yes", "--socket", paused.socket, cwd=paused.root)
    assert (code, "[y/N]" in text, text.count("queued job")) == (0, False, 3)
    code, text, _ = on_terminal("cancel", "1-3", "--socket", paused.socket, cwd=paused.root)
    assert (code, "[y/N]" in text) == (0, False)  # they were named


def test_priorities_decide_the_start_order(paused: House) -> None:
    assert typed(paused, "priority", "2", "3", "8").stdout.splitlines() == [
        "job 2 (b) has priority 8 (was 5)",
        "job 3 (c) has priority 8 (was 5)",
    ]
    typed(paused, "hold", "3")
    queue = typed(paused, "list", "--queue").stdout.splitlines()[1:]
    assert [line.split()[1] for line in queue] == ["b", "a"]
    assert document(paused, "list", "--sort", "start") == document(paused, "list", "--queue")
    assert typed(paused, "priority", "2", "10").returncode == 2


# ---------------------------------------------------------------- lists


def test_a_list_shows_why_jobs_wait_and_fail(paused: House) -> None:
    typed(paused, "hold", "1")
    typed(paused, "resume")
    paused.reaches(3, State.FAILED)
    paused.reaches(2, State.FAILED)
    header, third, second, first = typed(paused, "list").stdout.splitlines()
    assert header.split("  ")[0] == "id" and header.endswith("reason")
    assert "waiting for" in header and "submitted by" in header
    assert third.split()[:4] == ["3", "c", "failed", "plan"] and third.endswith("told to fail [told-to]")
    assert first.split()[:3] == ["1", "a", "held"] and "operator" in first
    assert [one["id"] for one in document(paused, "list", "--state", "failed", "--sort", "oldest")] == [2, 3]
    assert [one["id"] for one in document(paused, "list", "--vm", "a")] == [1]
    assert [one["id"] for one in document(paused, "list", "--since", "2h", "--mine")] == [3, 2, 1]
    assert [one["id"] for one in document(paused, "list", "--since", "2000-01-01", "--state", "held")] == [1]
    assert document(paused, "list", "--warnings") == []
    assert second.split()[1] == "b"


def test_a_list_says_how_many_jobs_it_leaves_out(paused: House) -> None:
    cut = typed(paused, "list", "--limit", "2")
    assert (len(cut.stdout.splitlines()), cut.stderr) == (3, "2 of 3 jobs; --limit 3 shows all\n")
    assert typed(paused, "list", "--limit", "3").stderr == ""
    assert typed(paused, "list", "--state", "running").stderr == "no job matches\n"
    assert len(document(paused, "list", "--limit", "2")) == 2


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_list_on_a_terminal_fits_and_has_a_line_for_each_job(paused: House, columns: int) -> None:
    long = written(paused, "a-machine-with-quite-a-long-name.of.a.domain", "plan", "fail permanent")
    typed(paused, "submit", long)
    typed(paused, "resume")
    paused.reaches(4, State.FAILED)
    code, text, raw = on_terminal("list", "--socket", paused.socket, cwd=paused.root, columns=columns)
    lines = text.splitlines()
    assert (code, len(lines)) == (0, 5)
    assert max(map(len, lines)) <= columns
    assert ("priority" in lines[0]) == (columns == 200)
    assert "\x1b[31mfailed" in raw


def test_there_are_no_colours_without_a_terminal_or_with_no_color(paused: House) -> None:
    assert "\x1b" not in typed(paused, "list").stdout
    plain = on_terminal("list", "--socket", paused.socket, cwd=paused.root, environment={"NO_COLOR": "1"})
    assert "\x1b[" not in plain[2]


# ---------------------------------------------------------------- one job


def test_show_has_stages_warnings_and_the_remedy_in_80_columns(house: House) -> None:
    house.start()
    words = ["plan", f"warn {'a long fact about a policy of this machine, ' * 4}that ends. Add it. [x-y]", "convert"]
    typed(house, "submit", written(house, "web01", *words, "start repair", "fail permanent"))
    house.reaches(1, State.FAILED)
    code, text, _ = on_terminal("show", "1", "--socket", house.socket, cwd=house.root, columns=80)
    assert code == 0
    lines = [line.rstrip() for line in text.splitlines()]
    assert [line for line in lines if len(line) > 80 and " " in line.strip()] == []
    assert "state        failed with 1 warning" in lines
    table = lines[next(number for number, line in enumerate(lines) if line.startswith("stage  ")) + 0 :]
    stages = {line.split()[0]: line.split()[-1] for line in table if line.split()[:1] and line.split()[0] in STAGES}
    assert stages == {"plan": "done", "convert": "done", "repair": "failed"}
    assert lines[lines.index("error") :] == [
        "error",
        "  told to fail [told-to]",
        "  Tell it otherwise.",
        "More: h2kvmctl explain told-to",
    ]
    warning = " ".join(line.strip() for line in lines[lines.index("warnings") + 1 : lines.index("error") - 1])
    assert warning.startswith("a long fact about") and warning.endswith("that ends. Add it. [x-y]")


STAGES = ("plan", "convert", "repair")


def test_show_says_what_a_job_waits_for_and_since_when(paused: House) -> None:
    typed(paused, "hold", "1")
    shown = typed(paused, "show", "1", "2").stdout
    first, second = shown.split("\n\njob          2\n")
    assert "waiting for  an operator, who holds it\n             since 20" in first
    assert "state        queued" in second and "batch" not in second


def test_a_warning_is_part_of_the_result(house: House) -> None:
    house.start()
    typed(house, "submit", written(house, "web01", "plan", "warn beware", "convert", "publish"))
    house.reaches(1, State.SUCCEEDED)
    assert "succeeded with 1 warning" in typed(house, "list", "--warnings").stdout
    assert "state        succeeded with 1 warning\n" in typed(house, "show", "1").stdout
    assert document(house, "list")[0]["warnings"] == 1


def test_a_note_is_shown_once_and_is_no_warning(house: House) -> None:
    house.start()
    noted = "inform new address [x-y]"
    typed(house, "submit", written(house, "web01", "plan", noted, noted, "convert", "publish"))
    job = house.reaches(1, State.SUCCEEDED)
    shown = typed(house, "show", "1").stdout
    assert "\n\nnotes\n  new address [x-y]\n" in shown
    assert job.warnings == 0 and "warnings" not in shown
    assert [event.kind for event in house.events(1)].count("noted") == 1
    assert f"image        {job.note}\n" in shown and "\nnote " not in shown


def test_the_name_of_a_vm_is_no_number(paused: House) -> None:
    refused = typed(paused, "cancel", "web01")
    assert refused.returncode == 2 and "Select the jobs of a VM by its name: --vm web01" in refused.stderr


def test_a_job_that_waits_for_its_time_says_when_it_starts(paused: House) -> None:
    typed(paused, "submit", written(paused, "later", "plan", not_before="2099-01-01 00:00"))
    assert "its not_before, starts after 2099-01-01 00:00:00" in typed(paused, "show", "4").stdout
    assert "starts after 2099-01-01 00:00:00" in typed(paused, "list").stdout
    assert "not before" not in typed(paused, "show", "1").stdout


def test_a_report_that_is_gone(house: House) -> None:
    house.start()
    typed(house, "submit", written(house, "web01", "plan", "convert", "publish"))
    house.reaches(1, State.SUCCEEDED)
    assert "[report-unreadable]" in typed(house, "report", "1").stderr


# ---------------------------------------------------------------- verbs


def test_cancel_says_what_happens(house: House) -> None:
    house.start()
    typed(house, "submit", written(house, "web01", "plan", "start convert", f"wait {house.root}/go"))
    typed(house, "submit", written(house, "db01", f"wait {house.root}/go"))
    house.reaches(1, State.RUNNING)
    converting = "which is converting; its working folder is kept for a retry"
    answers = []
    while not any(event.message == "convert" for event in house.events(1)):
        pass
    answers = typed(house, "cancel", "1", "2").stdout.splitlines()
    assert answers[0] == f"cancelling job 1 (web01), {converting}"
    assert answers[1] in ("cancelling job 2 (db01), which is starting", "cancelled job 2 (db01)")
    house.reaches(1, State.CANCELLED)


def test_the_queue_says_what_follows(house: House) -> None:
    house.start()
    typed(house, "submit", written(house, "web01", f"wait {house.root}/go"))
    house.reaches(1, State.RUNNING)
    paused = typed(house, "pause").stdout
    assert paused == "the queue is paused: 1 running job continues\n"
    typed(house, "submit", written(house, "db01", "plan"))
    assert typed(house, "pause").stdout.endswith("; 1 queued job waits for `h2kvmctl resume`\n")
    (house.root / "go").touch()
    house.reaches(1, State.SUCCEEDED)
    drained = typed(house, "drain", "--wait").stdout.splitlines()
    assert drained == [
        "the queue is draining: the daemon stops; 1 queued job stays in the queue",
        "the daemon has stopped",
    ]
    assert house.process is not None and house.process.wait(60) == 0


# ---------------------------------------------------------------- submit


def test_duplicates_are_named_and_exit_4(paused: House) -> None:
    again = typed(paused, "submit", "a.yaml")
    assert (again.returncode, again.stdout) == (4, "a.yaml: already active as job 1 (a, queued)\n")
    (found,) = document(paused, "submit", "a.yaml")
    assert (found["id"], found["duplicate"]) == (1, True)
    (paused.root / "both.yaml").write_text(
        "\n---\n".join((paused.root / f"{name}.yaml").read_text() for name in ("b", "c"))
    )
    assert typed(paused, "submit", "both.yaml").returncode == 0


def test_patterns_and_directories(paused: House) -> None:
    (paused.root / "more").mkdir()
    for name in ("x", "y"):
        written(paused, name, "plan").rename(paused.root / "more" / f"{name}.yaml")
    refused = typed(paused, "submit", "more")
    assert refused.returncode == 2
    assert "more is a directory. Name its files: `h2kvmctl submit more/*.yaml`. [file-unreadable]" in refused.stderr
    assert typed(paused, "submit", "more/*.yaml").stdout.splitlines() == [
        "more/x.yaml: job 4 (x) is queued",
        "more/y.yaml: job 5 (y) is queued",
    ]
    none = typed(paused, "submit", "none*.yaml")
    assert none.returncode == 2
    assert "no file matches none*.yaml. Correct the pattern, or name the files. [file-unreadable]" in none.stderr


def test_submit_waits_and_ends_as_the_jobs_do(house: House) -> None:
    house.start()
    good, bad = written(house, "good", "plan", "convert", "publish"), written(house, "bad", "plan", "fail permanent")
    assert typed(house, "submit", "--wait", good).returncode == 0
    failed = typed(house, "submit", "--wait", bad)
    assert failed.returncode == 1 and "told to fail" in failed.stdout
    both = typed(house, "submit", "--wait", written(house, "more", "plan", "convert", "publish"), bad)
    assert both.stdout.splitlines()[-1] == "2 jobs: 1 succeeded, 1 failed (4 bad)"
    (job,) = document(house, "submit", "--wait", bad)
    assert job["state"] == "failed"

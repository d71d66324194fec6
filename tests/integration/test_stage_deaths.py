"""A worker is killed at a line of its own code; the next attempt gives what a clean run gives, whatever is on record.

The order of the next attempt knows of no finished stage: the daemon died as well, before it had recorded one.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from hyper2kvmd import worker
from hyper2kvmd.host import placing, stage_record, workspace
from hyper2kvmd.model.jobs import Stage
from hyper2kvmd.targets import directory, machine_files
from tests.support.attempts import Attempts
from tests.support.file_systems import file_system
from tests.support.killed_lines import Line, killed_before, lines_of

WATCHED = [
    Path(str(module.__file__)) for module in (placing, stage_record, workspace, directory, machine_files, worker)
]
AT_LEAST = 150
"""Lines that a run goes through in these files."""
EVERY = 40


def _attempts(root: Path) -> Attempts:
    root.mkdir()
    return Attempts(root, target="qemu", checksum=True)


def _identities(out: Path) -> dict[str, tuple[int, int]]:
    """Of the files that have their names."""
    found = {path.name: path.stat() for path in out.iterdir() if not path.name.startswith(".")} if out.exists() else {}
    return {name: (facts.st_ino, facts.st_mtime_ns) for name, facts in found.items()}


def _die_and_go_on(root: Path, line: Line, out: Path | None = None) -> None:
    job = _attempts(root)
    if out is not None:
        job.out, job.result = out, out / "web01.raw"
        job.order = job.order.with_changes(output_dir=out)
    if not killed_before(line, job.run):
        return
    before = _identities(job.out)
    if before and not job.folder.exists():
        return  # all was on record before the folder was removed
    _, code = job.run()
    assert code == "", line
    after = _identities(job.out)
    assert before.items() <= after.items(), f"{line}: a file changed under its name"
    assert set(after) == {"web01.raw", "web01.raw.sha256", "web01.report.json", "web01.report.md", "web01.sh"}, line
    assert {path.name for path in job.out.iterdir()} == set(after), line
    assert job.result.read_bytes() == job.source.read_bytes(), line
    assert json.loads((job.out / "web01.report.json").read_text())["verdict"]["evidence"], line
    assert list(job.conversions.iterdir()) == [], line


def _lines(root: Path) -> tuple[Line, ...]:
    found = lines_of(_attempts(root / "clean").run, WATCHED)
    assert len(found) > AT_LEAST
    return found


def test_some_lines(tmp_path: Path) -> None:
    for number, line in enumerate(_lines(tmp_path)[::EVERY]):
        _die_and_go_on(tmp_path / str(number), line)


@pytest.mark.slow
def test_every_line(tmp_path: Path) -> None:
    for number, line in enumerate(_lines(tmp_path)):
        _die_and_go_on(tmp_path / str(number), line)


def test_lines_of_a_copy_to_another_file_system(tmp_path: Path) -> None:
    lines = [line for line in _lines(tmp_path) if line[0] in (str(WATCHED[0]), str(WATCHED[3]))]
    with file_system(tmp_path, 400) as output:
        for number, line in enumerate(lines[::EVERY]):
            out = output / str(number)
            out.mkdir()
            _die_and_go_on(tmp_path / str(number), line, out)
            shutil.rmtree(out)


def test_what_was_published_counts_even_if_its_source_is_gone(tmp_path: Path) -> None:
    """Killed when all has its name, and before that was on record anywhere."""
    job = _attempts(tmp_path / "job")
    before = len(Stage)

    def die(stage: Stage) -> None:
        if stage is Stage.PUBLISH:
            os._exit(9)

    child = os.fork()
    if child == 0:
        try:
            job.run(die)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    record = job.folder / workspace.RECORD
    kept = json.loads(record.read_text())
    kept["finished"]["artifact"] = None
    record.write_text(json.dumps(kept))
    published = _identities(job.out)
    job.source.unlink()
    started, code = job.run()
    assert (len(started), code) == (before, "")
    assert published.items() <= _identities(job.out).items()

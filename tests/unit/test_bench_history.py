"""The jobs that `bench/` records are read by the store like jobs that ran."""

from __future__ import annotations

from pathlib import Path

from bench.history import fill
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.jobs import JobFilter, State

NUMBER = 14


def test_the_store_reads_what_the_benchmark_records(tmp_path: Path) -> None:
    fill(tmp_path / "jobs.sqlite3", NUMBER)
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    try:
        listed = store.list()
        assert [job.id for job in listed] == list(range(NUMBER, 0, -1))
        assert {job.vm_name for job in listed} == {f"vm{number:06}" for number in range(1, NUMBER + 1)}
        assert len({job.content_key for job in listed}) == NUMBER
        failed = store.list(JobFilter(states=(State.FAILED,)))
        assert [job.problems[0].code for job in failed] == ["source-missing"] * 2
        assert store.count(JobFilter(warned=True)) == 2
        succeeded = [job.id for job in listed if job.state is State.SUCCEEDED]
        artifacts = store.artifacts(succeeded)
        assert [artifacts[number].disks[0].path.name for number in succeeded] == [
            f"vm{number:06}.qcow2" for number in succeeded
        ]
        assert store.misplaced() == [] and store.events(1)[-1].kind == "succeeded"
    finally:
        store.close()

"""The status pages of a real daemon, as a browser without scripts sees them."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
from functools import partial
from pathlib import Path

import pytest

from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin, Submission
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.guest import Change, Guest
from hyper2kvmd.model.jobs import State
from hyper2kvmd.model.results import Verdict
from tests.support.house import House, until

HOSTNAME = socket.gethostname()


@pytest.fixture
def busy(house: House) -> House:
    """Jobs 1 to 4 ended in four ways, job 5 runs, job 6 waits."""
    house.configure(max_concurrent_jobs=1)
    house.start()
    ends = {
        "good": ("plan", "convert", "publish"),
        "warned": ("warn disk2 is <b>small</b>", "plan", "convert", "publish"),
        "bad": ("plan", "fail permanent source-missing"),
    }
    for name, words in ends.items():
        house.drop(f"{name}.yaml", house.migration(name, *words))
        until(partial(ended, house, name), f"{name} has ended")
    house.drop("ugly.yaml", "vm_name: '<script>alert(1)</script>'\n")
    house.rejection("ugly.yaml")
    house.drop("live.yaml", house.migration("live", "start convert", "progress 1 4", f"wait {house.root}/go"))
    until(lambda: any(job.progress == 0.25 for job in house.status().running), "it runs")
    house.drop("next.yaml", house.migration("next", "plan"))
    house.reaches(6, State.QUEUED)
    return house


def ended(house: House, name: str) -> bool:
    return any(job.vm_name == name and not job.state.active for job in house.jobs())


def seen(house: House, path: str, *, code: int = 200) -> str:
    """The words of a page, without its tags."""
    answered, page = house.browse(path)
    assert answered == code, page
    assert f"hyper2kvmd on {HOSTNAME}" in page
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def names(house: House, path: str) -> list[str]:
    page = house.browse(path)[1]
    return re.findall(r'data-label="VM"[^>]*>([^<]*)<', page)


def test_the_overview_shows_what_runs_waits_and_has_ended(busy: House) -> None:
    words = seen(busy, "/")
    assert f"hyper2kvmd on {HOSTNAME} is running" in words
    assert "Running (1 of 1)" in words and "25%" in words and "Copying" in words
    assert "1 to 1 of 1" in words
    assert names(busy, "/")[:2] == ["live", "next"]
    assert set(names(busy, "/")[2:]) == {"good", "warned", "bad", "ugly"}
    assert "1 warning" in words and "told to fail source-missing" in words


def test_filters_are_in_the_address(busy: House) -> None:
    assert names(busy, "/jobs?state=failed") == ["bad"]
    assert set(names(busy, "/jobs?state=failed&state=queued")) == {"bad", "next"}


def test_a_filter_names_warnings_submitters_machines_and_times(busy: House) -> None:
    assert names(busy, "/jobs?warned=1") == ["warned"]
    assert names(busy, "/jobs?vm=good") == ["good"]
    assert names(busy, "/jobs?submitter=root&sort=oldest")[0] == "good"
    assert names(busy, "/jobs?submitter=4711") == []
    assert "bad" in names(busy, "/jobs?since=1h") and names(busy, "/jobs?since=2100-01-01&state=failed") == []


def test_long_lists_have_pages(house: House) -> None:
    house.configure(max_concurrent_jobs=1)
    house.start()
    house.ask("POST", "/v1/queue/pause")
    for number in range(52):
        house.drop(f"vm{number}.yaml", house.migration(f"vm{number}", "plan"))
    until(lambda: len(house.jobs()) == 52, "all are queued")
    assert "1 to 50 of 52" in seen(house, "/") and "51 to 52 of 52" in seen(house, "/?page=2")
    assert len(names(house, "/")) == 50 and len(names(house, "/?page=2")) == 2
    assert set(names(house, "/jobs")) | set(names(house, "/jobs?page=2")) == {f"vm{number}" for number in range(52)}
    assert 'href="/jobs?page=2" rel="next"' in house.browse("/jobs")[1]
    assert "is paused" in seen(house, "/")


def test_a_batch_has_its_page(house: House) -> None:
    house.start()
    good = json.loads(house.migration("web01", "plan", "convert", "publish"))
    bad = json.loads(house.migration("web02", "fail permanent source-missing"))
    house.drop("wave <1>.yaml", json.dumps({"vms": [good, bad]}))
    until(partial(ended, house, "web01"), "the first has ended")
    until(partial(ended, house, "web02"), "the second has ended")
    assert "wave &lt;1&gt;" in seen(house, "/batches") and "2 of 2" in seen(house, "/batches")
    page = seen(house, "/batches/1")
    assert "1 succeeded" in page and "1 failed" in page
    assert names(house, "/batches/1") == ["web02", "web01"]
    assert 'href="/batches/1"' in house.browse("/jobs/1")[1]
    code, report = house.browse("/batches/1.csv")
    assert code == 200 and [line.split(",")[1:3] for line in report.splitlines()[1:]] == [
        ["web01", "succeeded"],
        ["web02", "failed"],
    ]
    code, report = house.browse("/batches/1.md")
    assert code == 200 and "| web02 | failed |" in report and str(house.root) not in report
    assert house.browse("/batches/9.csv")[0] == 404
    assert "there is no batch 9" in seen(house, "/batches/9", code=404)


def test_the_report_of_a_large_batch_is_complete_and_written_in_parts(house: House) -> None:
    """As text of its own, the report would stay in the memory of the daemon."""
    store = Store(f"sqlite:///{house.root}/state/jobs.sqlite3")
    origin = Origin(submitter="root", uid=0)
    machines = [Migration(vm_name=f"vm{number}", vmdk=(Path("/a.vmdk"),), batch="all") for number in range(1001)]
    store.submit_file([Submission(one, one.vm_name, origin, batch="all") for one in machines])
    store.set_paused(True)
    store.close()
    house.start()
    code, report = house.browse("/batches/1.csv")
    assert code == 200
    assert [line.split(",")[1] for line in report.splitlines()[1:]] == [one.vm_name for one in machines]
    code, report = house.browse("/batches/1.md")
    assert code == 200 and report.count("| queued |") == len(machines)


def test_the_page_of_a_job_has_its_timeline_its_warnings_and_its_remedies(busy: House) -> None:
    good, warned, bad = seen(busy, "/jobs/1"), seen(busy, "/jobs/2"), seen(busy, "/jobs/3")
    assert "Job 1 on" in good and "publish finished" in good and "register not started" in good
    assert "disk2 is &lt;b&gt;small&lt;/b&gt;" in warned
    assert "told to fail" in bad and "What to do: Tell it otherwise." in bad
    assert 'href="/errors/source-missing"' in busy.browse("/jobs/3")[1]
    assert "25%" in seen(busy, "/jobs/5")


def test_the_page_of_a_job_shows_its_report_without_the_texts_of_the_guest(busy: House) -> None:
    change = Change(fix="fstab", path="/etc/fstab", summary="2 <names>", diff="-/dev/secret")
    guest = Guest(os_name="Debian 12", changes=(change,) * 210)
    verdict = Verdict(level="boot", evidence=("it asked for a login",))
    parts = {"guest": guest.model_dump(mode="json"), "verdict": verdict.model_dump(mode="json"), "version": "1"}
    (busy.root / "images" / "good.json").write_text(json.dumps(parts))
    words, page = seen(busy, "/jobs/1"), busy.browse("/jobs/1")[1]
    assert "Debian 12" in words and "it asked for a login" in words
    assert page.count("2 &lt;names&gt;") == 200 and "10 more repairs" in words
    assert "secret" not in page
    (busy.root / "images" / "warned.json").write_text("{}")
    assert "Report" not in seen(busy, "/jobs/2")


def test_the_catalogue_explains_each_code(busy: House) -> None:
    words = seen(busy, "/errors/source-missing")
    assert "Usual causes" in words and "What to do" in words
    assert "has no such error code" in seen(busy, "/errors/no-such-code", code=404)


def test_the_host_page_shows_space_slots_and_versions(busy: House) -> None:
    words = seen(busy, "/host")
    assert str(busy.conversions) in words and "1 of 1 slots" in words and "Kernel" in words
    said = subprocess.run(["qemu-img", "--version"], capture_output=True, text=True, check=True).stdout
    assert f"qemu-img {said.split()[2]}" in words


def test_no_page_names_a_source(busy: House) -> None:
    for path in ("/", "/jobs", *(f"/jobs/{number}" for number in range(1, 7)), "/batches"):
        assert str(busy.root) not in busy.browse(path)[1]


@pytest.mark.parametrize(
    ("path", "code", "fact"),
    [
        ("/jobs/99", 404, "there is no job 99"),
        ("/jobs?state=lost", 400, "state must be one of"),
        ("/jobs?limit=100000", 400, "limit is no filter"),
        ("/jobs?page=99999999", 400, "page must be a number"),
        (f"/jobs?vm={'x' * 1500}", 400, "too long"),
        ("/nowhere", 404, "Not Found"),
        ("/v1/jobs", 404, "Not Found"),
    ],
)
def test_what_is_not_there_is_said(house: House, path: str, code: int, fact: str) -> None:
    house.start()
    assert fact in seen(house, path, code=code)


def test_no_page_says_which_accounts_the_host_has(house: House) -> None:
    house.start()
    for name in ("root", "nobody-of-that-name"):
        assert "submitter has no job on record" in seen(house, f"/jobs?submitter={name}", code=400)


def test_pages_only_read(house: House) -> None:
    house.start()
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        connection = http.client.HTTPConnection("127.0.0.1", house.port, timeout=60)
        connection.request(method, "/jobs")
        answer = connection.getresponse()
        assert answer.status == 405
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        connection.close()


def test_a_reader_may_have_the_page_loaded_again(house: House) -> None:
    house.start()
    for path, refresh in (("/", None), ("/?refresh=10", "10"), ("/jobs?refresh=60", "60")):
        connection = http.client.HTTPConnection("127.0.0.1", house.port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.headers["Refresh"] == refresh
        assert b"http-equiv" not in answer.read()
        connection.close()

"""Words of strangers in logs, pages and metrics: shown as they are, never as ours."""

from __future__ import annotations

import re
import urllib.request

import pytest

from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.model.jobs import State
from tests.support.house import House

FORGED = "2026-01-01 00:00:00,000 INFO job 7: succeeded"
EVIL = {
    "a line break": f"x\n{FORGED}",
    "a carriage return": f"x\r{FORGED}",
    "a line separator": f"x\u2028{FORGED}",
    "a journal priority": f"x\n<2>{FORGED}",
    "a terminal's escape": "x\x1b[2J\x1b]0;owned\x07",
    "text turned around": "x\u202eegami",
    "a NUL": "x\0y",
}


HOSTILE = {
    "markup": "hostile <script>alert(1)</script><img src=x onerror=alert(1)>",
    "a terminal's escape": "hostile \x1b[2J\x1b]0;owned\x07",
    "text turned around": "hostile \u202eegami",
}


@pytest.mark.parametrize("name", EVIL)
def test_a_guests_words_are_one_line_of_the_log(house: House, name: str) -> None:
    house.start()
    (house.root / "evil").write_bytes(EVIL[name].encode())
    house.drop("web01.yaml", house.migration("web01", "plan", f"warn-file {house.root}/evil"))
    house.reaches(1, State.SUCCEEDED)
    lines = house.log.split("\n")
    assert not any(line.startswith((FORGED, f"<2>{FORGED}")) for line in lines)
    assert [line for line in lines if "WARNING job 1: x" in line]
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)<script>.yaml",
        "a\n<2>forged line.yaml",
        "\x1b[2Jx.yaml",
        "' onmouseover='x.yaml",
        "&lt;b&gt;.yaml",
    ],
)
def test_a_files_name_means_nothing_anywhere(house: House, name: str) -> None:
    house.start()
    (house.spool / "draft").write_text("vm_name: '<img src=x onerror=alert(1)>'\n")
    (house.spool / "draft").rename(house.spool / "incoming" / name)
    house.reaches(1, State.REJECTED)
    code, page = house.browse("/")
    assert code == 200
    assert not re.search(r"<(script|img|2)|onmouseover='|\x1b", page)
    lines = house.log.split("\n")
    assert all(line.isprintable() for line in lines) and not any(line.startswith("<2>") for line in lines)
    metrics = house.browse("/metrics")[1]
    assert not re.search("alert|img|onmouseover", metrics)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_guests_words_mean_nothing_on_any_page(house: House, name: str) -> None:
    house.start()
    (house.root / "evil").write_text(HOSTILE[name])
    house.drop("web01.yaml", house.migration("web01", "plan", f"warn-file {house.root}/evil"))
    house.reaches(1, State.SUCCEEDED)
    for path in ("/", "/jobs", "/jobs/1", "/jobs?vm=web01&warned=1"):
        code, page = house.browse(path)
        assert code == 200
        assert all(line.isprintable() for line in page.split("\n"))
        assert not re.search(r"<(script|img)|onmouseover='", page)
    assert "hostile" in house.browse("/jobs/1")[1]


def test_a_browser_is_told_to_run_nothing(house: House) -> None:
    house.start()
    with urllib.request.urlopen(f"http://127.0.0.1:{house.port}/", timeout=60) as answer:
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_and_the_metrics_listen_here_alone() -> None:
    assert DaemonConfig().metrics_listen.startswith("127.0.0.1:")

"""Notifications as mail, by a real sendmail and a mail server on the loopback."""

from __future__ import annotations

import email
import email.policy
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd.client import Client
from hyper2kvmd.model.jobs import State
from tests.support.ctl import ctl
from tests.support.house import House, until
from tests.support.own_host import LAYERS
from tests.support.receivers import Letter, mailbox

SBIN = Path("/usr/sbin")
SENDMAIL = SBIN / "sendmail"
SETTINGS = Path("/etc/msmtprc")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    house.configure()
    yield house
    house.close()


@pytest.fixture
def sbin() -> Iterator[None]:
    """A layer above the programs of this host, for this process and its children."""
    upper, work = (LAYERS / f"{kind}-usr-sbin" for kind in ("upper", "work"))
    for folder in (upper, work):
        folder.mkdir(exist_ok=True)
    layers = f"lowerdir={SBIN},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", SBIN], check=True)
    SENDMAIL.unlink(missing_ok=True)
    yield
    subprocess.run(["umount", "--lazy", SBIN], check=True)


@pytest.fixture
def letters(sbin: None) -> Iterator[list[Letter]]:
    """What arrives by the host's sendmail, which is msmtp."""
    with mailbox() as (port, letters):
        SENDMAIL.symlink_to("/usr/bin/msmtp")
        SETTINGS.write_text(f"account default\nhost 127.0.0.1\nport {port}\nfrom bounces@example.com\ntls off\n")
        yield letters
        SETTINGS.unlink()


def test_failure_and_batch_arrive_as_plain_text(house: House, letters: list[Letter]) -> None:
    house.configure(notify=[{"mail": ["ops@example.com", "b@example.com"], "from": "h2k@example.com"}])
    house.start()
    machine = json.loads(house.migration("web", "plan", "fail permanent"))
    house.drop("wave.yaml", json.dumps({**machine, "batch": "Bcc: victim@example.com"}))
    until(lambda: len(letters) == 2, f"both arrive: {house.log}")
    assert {letter.receivers for letter in letters} == {("ops@example.com", "b@example.com")}
    failure, batch = (email.message_from_bytes(letter.text, policy=email.policy.default) for letter in letters)
    assert failure["Subject"] == "[hyper2kvm] web (job 1) failed: told to fail. Tell it otherwise. [told-to]"
    assert (failure["From"], failure["Auto-Submitted"]) == ("h2k@example.com", "auto-generated")
    assert "More: h2kvmctl show 1" in failure.get_content()
    assert batch["Subject"] == "[hyper2kvm] batch Bcc: victim@example.com is done: 1 failed" and batch["Bcc"] is None
    assert "job,vm,state" in batch.get_content()


def test_without_a_sendmail_the_mail_waits_and_both_checks_say_so(house: House, sbin: None) -> None:
    path = house.configure(notify=[{"mail": "ops@example.com", "on": "success"}])
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", "convert", "publish"))
    house.reaches(1, State.SUCCEEDED)
    (tried,) = Client(house.socket).test_notifications()
    assert tried.problem is not None and tried.problem.code == "notify-program"
    (state,) = until(lambda: [one for one in house.status().notifications if one.last_error], "it is tried")
    assert state.pending == 1 and "/usr/sbin/sendmail" in state.last_error
    answer = json.loads(ctl("doctor", "--json", "--config", path, cwd=house.root).stdout)
    (line,) = (line for one in answer["sections"] if one["title"] == "Notifications" for line in one["lines"])
    assert line["level"] == "error" and "/usr/sbin/sendmail" in line["fact"]


def test_a_sendmail_that_fails_is_tried_again(house: House, letters: list[Letter]) -> None:
    settings = SETTINGS.read_text()
    SETTINGS.write_text(settings.replace("port ", "port 1\n# "))
    house.configure(notify=[{"mail": "ops@example.com", "on": "success"}])
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", "convert", "publish"))
    until(lambda: [one for one in house.status().notifications if "cannot connect" in one.last_error], "it fails")
    SETTINGS.write_text(settings)
    until(lambda: letters, f"it arrives: {house.log}")

"""Destinations in the configuration, and what is sent to them."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hyper2kvmd import config, effective
from hyper2kvmd.daemon.notify import mail, notifier
from hyper2kvmd.errors import BrokenInstallation
from hyper2kvmd.model.jobs import Problem, State
from hyper2kvmd.model.notifications import Destination, JobFacts, Notification

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "hyper2kvmd.yaml"
    path.write_text(text)
    return path


def test_destinations_have_names_kinds_and_events(tmp_path: Path) -> None:
    text = """
notify:
  - {mail: ops@example.com}
  - webhook: https://chat.example.com/x
    secret-file: /etc/key
    on: success
    name: chat
  - {hook_dir: /etc/hyper2kvm/notify.d, on: [stall, space]}
  - {name: second, mail: [root, a+b@example.com], from: h2k@example.com}
"""
    one, two, three, four = config.load(written(tmp_path, text)).notify
    assert [each.label for each in (one, two, three, four)] == ["mail", "chat", "hook_dir", "second"]
    assert (one.mail, one.on, two.on) == (("ops@example.com",), ("failure", "batch"), ("success",))
    assert (three.on, four.from_) == (("stall", "space"), "h2k@example.com")


@pytest.mark.parametrize(
    ("text", "line", "fact"),
    [
        ("notify:\n  - {mail: a}\n  - {mail: b}", 3, "two destinations of notify have the name mail"),
        ("notify:\n  - {mail: a}\n  - {on: failure}", 3, "no kind"),
        ("notify:\n  - {mail: a, webhook: 'http://a/'}", 2, "several kinds"),
        ("notify:\n  - {mail: a, secret_file: /k}", 2, "has a secret_file"),
        ("notify:\n  - {webhook: 'http://a/', from: a}", 2, "has a sender"),
        ("notify:\n  - {webhook: 'ftp://a/'}\n  - {webhook: 'http://a/'}", 2, "notify.webhook"),
        ("notify:\n  - {mail: 'a, b'}\n  - {mail: b, name: c}", 2, "notify.mail"),
        ("notify:\n  - {mail: '-oQ/tmp'}", 2, "notify.mail"),
        ("notify:\n  - {mail: a, from: 'a\\nBcc: b'}", 2, "notify.from"),
        ("notify:\n  - {mail: a, on: [never]}", 2, "notify.on"),
        ("notify:\n  - {mail: a, name: 'a b'}", 2, "notify.name"),
        ("notify:\n  - {mail: a, on: []}", 2, "no events in `on`"),
        ("notify:\n  - {hook_dir: notify.d}", 2, "notify.hook_dir"),
    ],
)
def test_each_fault_has_its_own_line(tmp_path: Path, text: str, line: int, fact: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(BrokenInstallation) as caught:
        config.load(path)
    (found,) = caught.value.message.splitlines()[1:]
    assert found.startswith(f"  {path}:{line}:") and fact in found


def test_the_effective_settings_have_the_same_destinations(tmp_path: Path) -> None:
    text = "notify: [{mail: [a, b], from: c, on: [stall]}, {webhook: 'https://a/b', secret_file: /k}]\nstall_after: 5\n"
    loaded = config.load_with_origins(written(tmp_path, text))
    again = config.load(written(tmp_path, "\n".join(effective.lines(loaded))))
    assert again == loaded.config and len(again.notify) == 2


def test_no_text_of_others_adds_a_header_or_a_receiver() -> None:
    evil = "x\r\nBcc: victim@example.com\r\n\r\n.\r\nTo: victim\u2028@example.com\x1b[31m"
    facts = JobFacts(
        id=1,
        vm_name=evil,
        state=State.FAILED,
        stage=None,
        attempt=1,
        submitter=evil,
        batch=evil,
        note=evil,
        problems=(Problem(code="told-to", message=evil, hint=evil, kind="permanent"),),
        warnings=1,
        created=NOW,
        started=None,
        finished=None,
    )
    told = Notification(
        id="0" * 32, event="failure", at=NOW, host="kvm01", summary=evil, job=facts, batch_report=f"a,b\r\n{evil}\r\n"
    )
    text = mail.message(Destination(mail=("ops@example.com",), from_="h2k@example.com"), told).as_bytes()
    parsed = email.message_from_bytes(text, policy=email.policy.default)
    assert sorted(parsed.keys()) == sorted(
        [
            *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"),
            *("MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
        ]
    )
    assert (parsed["To"], parsed["From"], parsed.get_content_type()) == (
        "ops@example.com",
        "h2k@example.com",
        "text/plain",
    )
    assert b"\r" not in text and b"\x1b" not in text and max(map(len, text.splitlines())) < 998
    assert b"victim" in (header := text.partition(b"\n\n")[0]) and b"\nBcc" not in header and b"\n." not in header


def test_the_time_between_tries_grows_up_to_an_hour() -> None:
    for tries, longest in ((0, 2.0), (1, 4.0), (5, 64.0), (20, 3600.0), (10**6, 3600.0)):
        drawn = {notifier.delay_seconds(tries) for _ in range(50)}
        assert len(drawn) > 1 and longest / 2 <= min(drawn) and max(drawn) <= longest

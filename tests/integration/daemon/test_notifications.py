"""Notifications among receivers that fail and daemons that die."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.client import Client
from hyper2kvmd.errors import InvalidInput
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.jobs import State
from tests.support.ctl import PROJECT, ctl
from tests.support.doc_blocks import blocks
from tests.support.house import House, free_port, until
from tests.support.receivers import Post, webhook

KEY = b"a key of thirty-two random bytes"


def secret(folder: Path, mode: int = 0o600) -> Path:
    path = folder / "webhook.key"
    path.write_bytes(KEY + b"\n")
    path.chmod(mode)
    return path


def hook(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def told(post: Post) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(post.body)
    return found


def signed(post: Post) -> bool:
    """As a receiver checks it."""
    headers: Mapping[str, str] = post.headers
    signed_text = headers["Hyper2kvm-Timestamp"].encode() + b"." + post.body
    expected = "sha256=" + hmac.new(KEY, signed_text, hashlib.sha256).hexdigest()
    recent = abs(time.time() - int(headers["Hyper2kvm-Timestamp"])) < 300
    return recent and hmac.compare_digest(expected, headers["Hyper2kvm-Signature"])


def pending(house: House) -> dict[str, tuple[int, str]]:
    return {one.destination: (one.pending, one.last_error) for one in house.status().notifications}


def delivered(house: House, text: str) -> None:
    """Wait until the metrics have this line."""
    until(lambda: text in house.browse("/metrics")[1], f"{text}: {house.log}")


def test_a_webhook_that_fails_redirects_and_accepts_gets_one_notification(house: House) -> None:
    with webhook(500, 302) as there:
        house.configure(notify=[{"webhook": f"{there.url}/in", "secret_file": str(secret(house.root))}])
        house.start()
        house.drop("a.yaml", house.migration("a", "plan", "fail permanent"))
        until(lambda: there.accepted, f"it is delivered: {house.log}")
        delivered(house, 'hyper2kvm_notifications_total{destination="webhook",outcome="delivered"} 1.0')
        assert [post.path for post in there.posts] == ["/in"] * 3  # no redirect was followed
        assert len({told(post)["id"] for post in there.posts}) == 1 and all(map(signed, there.posts))
        body = told(there.accepted[0])
        assert (body["event"], body["job"]["vm_name"], body["job"]["problems"][0]["code"]) == (
            "failure",
            "a",
            "told-to",
        )
        assert pending(house) == {"webhook": (0, "")}
        page = house.browse("/metrics")[1]
        assert 'hyper2kvm_notifications_total{destination="webhook",outcome="failed"} 2.0' in page
        assert 'hyper2kvm_notifications_pending{destination="webhook"} 0.0' in page
        assert "redirects are not followed" in house.log and "said much" in house.log and len(house.log) < 20_000


def test_a_receiver_that_hangs_delays_neither_others_nor_jobs(house: House) -> None:
    with webhook(0) as hanging, webhook() as there:
        house.configure(
            notify=[
                {"name": "hanging", "webhook": hanging.url, "on": "success"},
                {"name": "there", "webhook": there.url, "on": ["success"]},
            ]
        )
        house.start()
        for name in ("a", "b"):
            house.drop(f"{name}.yaml", house.migration(name, "plan", "convert", "publish"))
            house.reaches({"a": 1, "b": 2}[name], State.SUCCEEDED)
        until(lambda: len(there.accepted) == 2, "the other one gets both")
        assert len(hanging.posts) == 1 and pending(house)["hanging"][0] == 2
        assert house.stop() == 0


def test_a_daemon_that_dies_between_event_and_delivery_delivers_after_its_restart(house: House) -> None:
    with webhook(*[503] * 1000) as there:
        house.configure(notify=[{"webhook": there.url, "on": "success"}])
        house.start()
        house.drop("a.yaml", house.migration("a", "plan", "convert", "publish"))
        house.reaches(1, State.SUCCEEDED)
        until(lambda: there.posts, "it is tried")
        house.stop(signal.SIGKILL)
        first = told(there.posts[0])["id"]
        there.answers.clear()
        house.start()
        until(lambda: there.accepted, f"it is delivered: {house.log}")
        assert told(there.accepted[0])["id"] == first


def test_what_the_daemon_never_tried_before_it_died_is_delivered(house: House) -> None:
    """The notification is on record with the event: here no daemon has looked at it."""
    with webhook() as there:
        house.configure(notify=[{"webhook": there.url, "on": "held"}])
        house.start()
        house.ask("POST", "/v1/queue/pause")
        house.drop("a.yaml", house.migration("a", "plan"))
        house.reaches(1, State.QUEUED)
        house.stop(signal.SIGKILL)
        store = Store(f"sqlite:///{house.root}/state/jobs.sqlite3")
        store.hold(1, "root")
        store.close()
        house.start()
        until(lambda: there.accepted, f"it is delivered: {house.log}")
        assert told(there.accepted[0])["summary"] == "a (job 1) is held: root"


def test_a_batch_is_reported_with_all_its_jobs(house: House) -> None:
    with webhook() as there:
        house.configure(notify=[{"webhook": there.url}])
        house.start()
        good = json.loads(house.migration("good", "plan", "convert", "publish"))
        bad = json.loads(house.migration("bad", "plan", "fail permanent"))
        house.drop("wave.yaml", json.dumps({"vms": [good, bad]}))
        until(lambda: len(there.accepted) == 2, f"failure and batch arrive: {house.log}")
        by_event = {told(post)["event"]: told(post) for post in there.accepted}
        assert by_event["batch"]["batch"]["counts"]["failed"] == 1
        heading, *lines = by_event["batch"]["batch_report"].splitlines()
        assert heading.startswith("job,vm,state") and [line.split(",")[1:3] for line in lines] == [
            ["good", "succeeded"],
            ["bad", "failed"],
        ]


def test_a_stalled_job_gets_a_warning_and_continues(house: House) -> None:
    with webhook() as there:
        house.configure(notify=[{"webhook": there.url, "on": ["stall", "warning"]}], stall_after=1)
        house.start()
        words = ("plan", "start convert", "progress 1 2", f"wait {house.root}/go", "convert", "publish")
        house.drop("a.yaml", house.migration("a", *words))
        until(lambda: there.accepted, f"the stall is noticed: {house.log}")
        stall = told(there.accepted[0])
        assert (stall["event"], stall["job"]["state"]) == ("stall", "running")
        assert "has moved no byte for 1" in stall["summary"] and "convert: Copying" in stall["summary"]
        (house.root / "go").touch()
        assert house.reaches(1, State.SUCCEEDED).warnings == 1
        until(lambda: len(there.accepted) == 2, "success with a warning")
        assert next(event.message for event in house.events(1) if event.kind == "warned").endswith("[job-stalled]")


def test_programs_run_in_order_and_a_failed_one_is_run_again(house: House) -> None:
    folder, out = house.root / "notify.d", house.root / "out"
    hook(folder, "10-first", f'cat >> {out}.first; echo "$HYPER2KVM_EVENT $HYPER2KVM_JOB $#" >> {out}.env')
    hook(folder, "20-second", f"test -e {out}.allowed || {{ echo not yet >&2; exit 3; }}; cat > {out}.second")
    (folder / "README").write_text("no program")
    hook(folder, ".hidden", f"touch {out}.hidden")
    house.configure(notify=[{"hook_dir": str(folder), "on": "success"}])
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", "convert", "publish"))
    until(lambda: pending(house)["hook_dir"][1], "the second one fails")
    assert "20-second failed: exit status 3: not yet" in pending(house)["hook_dir"][1]
    Path(f"{out}.allowed").touch()
    until(lambda: pending(house)["hook_dir"] == (0, ""), f"both succeed: {house.log}")
    first, *again = [json.loads(line) for line in Path(f"{out}.first").read_text().splitlines()]
    assert again and all(one["id"] == first["id"] for one in again)
    assert json.loads(Path(f"{out}.second").read_text())["job"]["vm_name"] == "a"
    assert Path(f"{out}.env").read_text().splitlines()[0] == "success 1 0"
    assert not Path(f"{out}.hidden").exists()


def test_nobody_elses_program_is_run_and_no_readable_key_is_used(house: House) -> None:
    folder = house.root / "notify.d"
    hook(folder, "10-theirs", f"touch {house.root}/ran").chmod(0o777)
    with webhook() as there:
        house.configure(
            notify=[
                {"hook_dir": str(folder)},
                {"webhook": there.url, "secret_file": str(secret(house.root, 0o640))},
            ]
        )
        house.start()
        tried = {one.destination: one for one in Client(house.socket).test_notifications()}
        codes = {name: one.problem.code if one.problem else "" for name, one in tried.items()}
        assert codes == {"hook_dir": "notify-program", "webhook": "notify-secret"}
        assert not there.posts and not (house.root / "ran").exists()


def test_an_operator_sends_a_test_and_sees_what_is_undelivered(house: House) -> None:
    with webhook(200, 500) as there:
        house.configure(notify=[{"name": "chat", "webhook": f"{there.url}/token", "on": "held"}])
        house.start()
        good = ctl("notify-test", "chat", "--socket", house.socket, cwd=house.root)
        assert (good.returncode, good.stdout) == (0, "chat: delivered\n"), good.stderr
        assert told(there.accepted[0])["event"] == "test"
        bad = ctl("notify-test", "--socket", house.socket, cwd=house.root)
        assert bad.returncode == 1 and "chat: not delivered" in bad.stdout and "HTTP status 500" in bad.stdout
        assert "token" not in bad.stdout
        with pytest.raises(InvalidInput, match="chat"):
            Client(house.socket).test_notifications("nowhere")
        there.answers[:] = [500] * 1000
        house.ask("POST", "/v1/queue/pause")
        house.drop("a.yaml", house.migration("a", "plan"))
        house.reaches(1, State.QUEUED)
        house.ask("POST", "/v1/jobs/1/hold")
        until(lambda: pending(house)["chat"][1], "it is tried")
        shown = ctl("status", "--socket", house.socket, cwd=house.root).stdout
        assert "1 undelivered to chat" in shown and "HTTP status 500" in " ".join(shown.split())


def test_a_reload_changes_the_destinations_and_drops_what_went_to_removed_ones(house: House) -> None:
    with webhook(*[500] * 1000) as old, webhook() as new:
        house.configure(notify=[{"name": "old", "webhook": old.url, "on": "held"}])
        process = house.start()
        house.ask("POST", "/v1/queue/pause")
        house.drop("a.yaml", house.migration("a", "plan"))
        house.reaches(1, State.QUEUED)
        house.ask("POST", "/v1/jobs/1/hold")
        until(lambda: old.posts, "the old one is tried")
        house.configure(notify=[{"name": "new", "webhook": new.url, "on": "held"}])
        process.send_signal(signal.SIGHUP)
        until(lambda: "new" in pending(house), "it is reloaded")
        house.ask("POST", "/v1/jobs/1/release")
        house.ask("POST", "/v1/jobs/1/hold")
        until(lambda: new.accepted, f"the new one gets it: {house.log}")
        house.stop()
        house.start()
        delivered(house, 'hyper2kvm_notifications_total{destination="old",outcome="given-up"} 1.0')
        assert set(pending(house)) == {"new"} and "notifications to old given up: 1" in house.log


def test_the_relay_of_the_documentation_escapes_and_checks(house: House) -> None:
    page = PROJECT / "docs/howto/notifications.md"
    (program,) = (block.text for block in blocks(page) if block.name == "relay.py")
    key, port = secret(house.root), free_port()
    with webhook() as chat:
        environment = {**os.environ, "KEY_FILE": str(key), "CHAT_URL": chat.url, "PORT": str(port)}
        relay = subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.DEVNULL)
        try:
            to = {"webhook": f"http://127.0.0.1:{port}/", "on": "batch"}
            house.configure(notify=[{**to, "secret_file": str(key)}, {**to, "name": "unsigned"}])
            house.start()
            house.ask("POST", "/v1/queue/pause")
            house.drop("a.yaml", house.migration("a", "plan", batch="<!channel>&"))
            house.reaches(1, State.QUEUED)
            house.ask("POST", "/v1/jobs/1/cancel")
            until(lambda: chat.accepted, f"it arrives: {house.log}")
            assert told(chat.accepted[0]) == {"text": "batch &lt;!channel&gt;&amp; is done: 1 cancelled"}
            until(lambda: "HTTP status 403" in pending(house)["unsigned"][1], "the unsigned one is refused")
        finally:
            relay.kill()
            relay.wait()


def test_proxies_of_the_environment_are_not_used(house: House) -> None:
    with webhook() as there:
        house.configure(notify=[{"webhook": there.url}])
        house.start({"http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"})
        assert [one.delivered for one in Client(house.socket).test_notifications()] == [True]

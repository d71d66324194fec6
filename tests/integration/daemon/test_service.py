"""The daemon as systemd, Prometheus, an operator and a second daemon meet it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hyper2kvmd.daemon.wire import RateAnswer, RefusalBody
from hyper2kvmd.errors import BrokenInstallation
from hyper2kvmd.model.jobs import Job, PastRate, Stage, State
from tests.support.ctl import configured, ctl
from tests.support.filtered import without_landlock
from tests.support.house import House, notify_socket, until
from tests.support.small_worker import DATA, SECONDS

PROGRAM = Path(sys.executable).with_name("hyper2kvmd")


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=90)


# ---------------------------------------------------------------- systemd


def test_systemd_hears_ready_status_watchdog_and_stopping(house: House) -> None:
    with notify_socket(house.root / "notify") as heard:
        house.start({"NOTIFY_SOCKET": str(house.root / "notify")})
        messages: list[str] = []

        def said(pattern: str) -> bool:
            messages.extend(heard())
            return any(re.search(pattern, message) for message in messages)

        until(lambda: said("^READY=1$"), "READY=1")
        until(lambda: said("^WATCHDOG=1$"), "WATCHDOG=1")
        until(lambda: said("^STATUS=idle; 0 queued$"), "idle")
        words = ("plan", "warn the clock is off", "start convert", "progress 43 100", f"wait {house.root}/go")
        house.drop("web01.yaml", house.migration("web01", *words))
        until(lambda: said("^STATUS=1 running: web01 convert 43 %; 0 queued$"), f"the progress: {messages}")
        (house.root / "go").touch()
        ended = "^STATUS=idle; 0 queued; last: web01 succeeded with 1 warning$"
        until(lambda: said(ended), f"the end: {messages}")
        house.stop()
        until(lambda: said("STOPPING=1"), "STOPPING=1")
    order = [next(i for i, message in enumerate(messages) if word in message) for word in ("READY", "STOPPING")]
    assert order == sorted(order)


@pytest.mark.parametrize("missing", [False, True])
def test_a_kernel_without_landlock_is_told_of(house: House, missing: bool) -> None:
    house.start(preexec_fn=without_landlock if missing else None)
    assert house.status().confinement_available is not missing
    assert house.log.count("no Landlock") == missing


def test_healthz_is_503_while_the_database_does_not_answer(house: House) -> None:
    with notify_socket(house.root / "notify") as heard:
        house.start({"NOTIFY_SOCKET": str(house.root / "notify")})
        until(lambda: "WATCHDOG=1" in heard(), "it is fed")
        with contextlib.closing(sqlite3.connect(house.root / "state" / "jobs.sqlite3", isolation_level=None)) as thief:
            until(lambda: locked(thief), "the database is locked")
            assert house.browse("/healthz") == (503, "the job database does not respond\n")
        until(lambda: "WATCHDOG=1" in heard(), "it is fed again")
        assert house.browse("/healthz")[0] == 200


def locked(connection: sqlite3.Connection) -> bool:
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute("BEGIN EXCLUSIVE")
        return True
    return False


def test_sighup_reloads_what_can_be_reloaded(house: House) -> None:
    house.configure(max_concurrent_jobs=1)
    with notify_socket(house.root / "notify") as heard:
        house.start({"NOTIFY_SOCKET": str(house.root / "notify")})
        for name in ("a", "b"):
            house.drop(f"{name}.yaml", house.migration(name, "plan", f"wait {house.root}/go"))
        house.reaches(1, State.RUNNING)
        house.reaches(2, State.QUEUED)
        heard()
        house.configure(max_concurrent_jobs=2, state_dir=str(house.root / "elsewhere"), database_url="sqlite:////x")
        assert house.process is not None
        house.process.send_signal(signal.SIGHUP)
        house.reaches(2, State.RUNNING)
        said: list[str] = []
        messages = until(lambda: more(said, heard()), "READY=1 again")
        reloading = next(message for message in messages if message.startswith("RELOADING=1"))
        assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", reloading)
        assert messages.index(reloading) < messages.index("READY=1")
        assert "state_dir takes effect after a restart" in house.log
        assert house.status().max_concurrent_jobs == 2

        (house.root / "hyper2kvmd.yaml").write_text("max_concurrent_jobs: many\n")
        house.process.send_signal(signal.SIGHUP)
        until(lambda: "READY=1" in heard(), "READY=1 after a bad file too")
        assert "the configuration is unchanged" in house.log
        remedy = r"^\S+ \S+ ERROR Correct these lines, then start or reload the daemon\. \[config-invalid\]$"
        assert re.search(remedy, house.log, re.MULTILINE)
        assert house.status().max_concurrent_jobs == 2


def test_the_log_begins_with_addresses_folders_and_limits(house: House) -> None:
    house.configure(max_concurrent_jobs=3, bandwidth_limit="200M")
    house.start()
    assert f"control socket: {house.root / 'control.sock'}; status page: http://127.0.0.1:" in house.log
    assert f"folders: spool {house.spool}, state " in house.log
    assert "limits: 3 jobs at the same time; for each, threads: one for each core, 200.0 MiB/s, " in house.log


def test_an_output_directory_among_the_services_own(house: House) -> None:
    """Neither a start nor a reload takes it, by whatever name."""
    (house.root / "way").symlink_to(house.spool)
    house.configure(output_dir=str(house.root / "way/images"))
    assert house.start(ready=False).wait(60) == BrokenInstallation.exit_code
    assert "[config-invalid]" in house.log
    house.configure()
    process = house.start()
    house.configure(output_dir=str(house.root / "way/images"), max_concurrent_jobs=7)
    process.send_signal(signal.SIGHUP)
    until(lambda: "the configuration is unchanged: output_dir" in house.log, "the reload is refused")
    assert house.status().max_concurrent_jobs != 7


def more(messages: list[str], news: list[str]) -> list[str]:
    """All messages, once READY=1 is among them."""
    messages.extend(news)
    return messages if "READY=1" in messages else []


def test_log_lines_carry_the_level_and_the_job(house: House) -> None:
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", "warn two\\nlines", "fail permanent"))
    house.reaches(1, State.FAILED)
    house.stop()
    lines = [line.split(maxsplit=2)[-1] for line in house.log.splitlines()]
    assert any(line.startswith("INFO job 1: plan") for line in lines)
    assert "WARNING job 1: two / lines" in lines
    assert "ERROR job 1: a failed: told to fail. Tell it otherwise. [told-to]" in lines


def test_the_machine_is_in_the_log_and_the_history_of_its_job(house: House) -> None:
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", "machine CPUs: 4; disk 1: virtio", "publish"))
    house.reaches(1, State.SUCCEEDED)
    assert [one.message for one in house.events(1) if one.kind == "machine"] == ["CPUs: 4", "disk 1: virtio"]
    house.stop()
    assert "INFO job 1: CPUs: 4" in house.log and "INFO job 1: disk 1: virtio" in house.log


def test_the_rate_of_conversions_can_be_asked_for(house: House) -> None:
    """An attempt that continues another one's conversion shows no rate."""
    house.start()
    assert house.ask("GET", "/v1/rate") == (200, b'{"rate":null}')
    house.drop("b.yaml", house.migration("b", "die-once", "plan", "convert"))
    house.reaches(1, State.SUCCEEDED)
    assert house.ask("GET", "/v1/rate") == (200, b'{"rate":null}')
    house.drop("a.yaml", house.migration("a", "plan", "convert"))
    house.reaches(2, State.SUCCEEDED)
    rate = RateAnswer.model_validate_json(house.ask("GET", "/v1/rate")[1]).rate
    assert rate == PastRate(bytes_per_second=DATA / SECONDS[Stage.CONVERT], conversions=1)
    (house.root / "disk.yaml").write_text(f"vmdk: {filled_disk(house.root / 'disk.raw')}\nguest: none\n")
    with configured(house.root, control_socket=house.socket) as mounts:
        shown = ctl("plan", house.root / "disk.yaml", cwd=house.root, mounts=mounts).stdout
        assert "by the daemon  the conversion takes less than a minute, at 512.0 KiB/s: its only one so far" in shown
        answer = json.loads(ctl("plan", "--json", house.root / "disk.yaml", cwd=house.root, mounts=mounts).stdout)
        assert answer["past_rate"] == rate.model_dump(mode="json")
        house.stop()
        done = ctl("plan", house.root / "disk.yaml", cwd=house.root, mounts=mounts)
    assert (done.returncode, done.stderr) == (0, "") and "takes" not in done.stdout


def filled_disk(path: Path) -> Path:
    """A raw disk of 16 MiB with 1 MiB of data."""
    path.write_bytes(b"data" * (1 << 18))
    os.truncate(path, 16 << 20)
    return path


# ---------------------------------------------------------------- Prometheus and people


def samples(house: House) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    code, text = house.browse("/metrics")
    assert code == 200
    families = list(text_string_to_metric_families(text))
    assert all(family.name.startswith(("hyper2kvm_", "process_")) for family in families)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_have_their_names_and_no_names_of_guests(house: House) -> None:
    house.start()
    house.drop(
        "good.yaml",
        house.migration("secretname", "helper mount", "plan", "start convert", "progress 70 100", "convert"),
    )
    house.reaches(1, State.SUCCEEDED)
    house.drop("bad.yaml", house.migration("secretbad", "fail permanent"))
    house.reaches(2, State.FAILED)
    house.drop("ugly.yaml", "banana: 1")
    house.rejection("ugly.yaml")
    house.drop("live.yaml", house.migration("secretlive", "start convert", "progress 25 100", f"wait {house.root}/go"))
    until(lambda: any(job.progress == 0.25 for job in house.status().running), "it runs")
    assert house.ask("POST", "/v1/queue/pause")[0] == 200
    house.drop("queued.yaml", house.migration("secretqueued", "plan"))
    queued = house.reaches(5, State.QUEUED)
    seen = samples(house)

    def value(name: str, **labels: str) -> float | None:
        return seen.get((f"hyper2kvm_{name}", tuple(sorted(labels.items()))))

    states = {state: value("jobs", state=state.value) for state in State}
    assert states == {**dict.fromkeys(State, 1), State.HELD: 0, State.CANCELLED: 0}
    assert value("jobs_completed_total", outcome="succeeded", reason="") == 1
    assert value("jobs_completed_total", outcome="failed", reason="told-to") == 1
    assert value("stage_duration_seconds_count", stage="plan") == 1
    assert value("stage_duration_seconds_sum", stage="convert") == 2.0
    assert value("queue_wait_seconds_count") == 3
    assert value("oldest_queued_timestamp_seconds") == queued.created.timestamp()
    assert value("bytes_read_total") == 70 + 25
    assert value("bytes_written_total") == 4096
    assert value("job_progress_ratio", job_id="4") == 0.25
    assert (value("conversion_dir_free_bytes") or 0) > 0
    assert value("conversion_dir_reserved_bytes") == 0
    assert sum(number for (name, _), number in seen.items() if name == "hyper2kvm_spool_rejected_total") == 1
    assert value("helper_requests_total", verb="mount", outcome="ok") == 1
    assert [labels for name, labels in seen if name == "hyper2kvm_build_info"]
    assert not any("secret" in text or "/" in text for _, labels in seen for _, text in labels)

    house.stop()
    house.start()
    again = samples(house)
    assert again["hyper2kvm_jobs", (("state", "succeeded"),)] == 1
    assert not any(name == "hyper2kvm_job_progress_ratio" for name, _ in again), "nothing runs while paused"
    house.ask("POST", "/v1/queue/resume")
    (house.root / "go").touch()
    house.reaches(5, State.SUCCEEDED)
    house.reaches(4, State.SUCCEEDED)
    oldest = "hyper2kvm_oldest_queued_timestamp_seconds"
    until(lambda: not any(name == oldest for name, _ in samples(house)), "the metrics show that nothing is queued")


def test_the_status_page_escapes_what_others_wrote(house: House) -> None:
    house.start()
    house.drop("<b>&.yaml", "vm_name: '<script>alert(1)</script>'\n")
    house.rejection("<b>&.yaml")
    house.drop("web01.yaml", house.migration("web01", "start convert", "progress 1 4", f"wait {house.root}/go"))
    until(lambda: any(job.progress == 0.25 for job in house.status().running), "it runs")
    code, page = house.browse("/")
    assert code == 200
    assert "web01" in page and "25%" in page and " is running" in page
    assert "<script" not in page and "<b>&" not in page and "&lt;b&gt;&amp;" in page


def test_healthz_and_what_is_not_served(house: House) -> None:
    house.start()
    assert house.browse("/healthz") == (200, "ok\n")
    assert house.browse("/v1/jobs")[0] == 404
    assert house.ask("GET", "/metrics")[0] == 404


# ---------------------------------------------------------------- the control socket


def refusal(answer: tuple[int, bytes], code: int) -> str:
    assert answer[0] == code, answer
    problem = RefusalBody.model_validate_json(answer[1]).problems[0]
    assert problem.message and problem.hint
    return problem.code


def test_the_socket_is_for_the_owner_and_the_group(house: House) -> None:
    house.start()
    assert stat.S_IMODE(house.socket.stat().st_mode) == 0o660
    assert stat.S_IMODE((house.root / "state" / "jobs.sqlite3").stat().st_mode) == 0o600


def test_submission_through_the_socket(house: House) -> None:
    house.start()
    house.ask("POST", "/v1/queue/pause")
    text = house.migration("web01", "plan")
    code, body = house.ask("POST", "/v1/jobs", {"text": text, "base": None, "name": "web01"})
    job = Job.model_validate_json(body)
    assert (code, job.state, job.vm_name, job.submitter) == (201, State.QUEUED, "web01", "root")
    code, body = house.ask("POST", "/v1/jobs", {"text": text, "base": "/somewhere", "name": "web01"})
    assert (code, Job.model_validate_json(body).id) == (200, job.id), "the text is the same, wherever it is sent from"
    house.drop("web01.yaml", text)
    assert f"the same content as job {job.id}, " in house.rejection("web01.yaml").problems[0].message
    house.ask("POST", "/v1/queue/resume")
    house.reaches(1, State.SUCCEEDED)


def test_relative_paths_make_the_directory_part_of_the_content(house: House) -> None:
    house.start()
    house.ask("POST", "/v1/queue/pause")
    for folder in ("one", "two"):
        (house.root / folder).mkdir()
        submission = {"text": "vmdk: disk.vmdk\n", "base": str(house.root / folder), "name": "web01"}
        code, body = house.ask("POST", "/v1/jobs", submission)
        migration = Job.model_validate_json(body).migration
        assert code == 201 and migration is not None and migration.vmdk == (house.root / folder / "disk.vmdk",)


def test_what_the_socket_refuses(house: House) -> None:
    house.start()
    bad = house.ask("POST", "/v1/jobs", {"text": "vmdk: /a\nbanana: 1\nmemory: x\n", "base": None, "name": "a"})
    assert bad[0] == 422 and len(RefusalBody.model_validate_json(bad[1]).problems) >= 2
    assert refusal(house.ask("POST", "/v1/jobs", {"text": "vmdk: /a\n"}), 400) == "request-invalid"
    assert refusal(house.ask("POST", "/v1/jobs", {"text": "#" * 70000, "name": "a"}), 400) == "request-invalid"
    assert refusal(house.ask("GET", "/v1/jobs/7"), 404) == "job-unknown"
    assert refusal(house.ask("GET", "/v1/jobs/7/events"), 404) == "job-unknown"
    assert refusal(house.ask("POST", "/v1/jobs/7/cancel"), 404) == "job-unknown"
    assert refusal(house.ask("GET", "/v1/jobs?state=banana"), 400) == "request-invalid"
    assert refusal(house.ask("GET", "/v1/nothing"), 404) == "request-invalid"
    assert refusal(house.ask("DELETE", "/v1/jobs"), 405) == "request-invalid"
    house.drop("a.yaml", house.migration("a", "plan"))
    house.reaches(1, State.SUCCEEDED)
    for verb in ("cancel", "retry", "hold", "release"):
        assert refusal(house.ask("POST", f"/v1/jobs/1/{verb}"), 409) == "job-state"
    assert [job.id for job in house.jobs()] == [1]


def test_a_dead_daemons_socket_is_replaced_and_a_live_one_respected(house: House) -> None:
    house.start()
    house.stop(signal.SIGKILL)
    assert house.socket.exists()
    house.start()
    house.stop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(house.socket))
        other.listen()
        assert house.start(ready=False).wait(90) == 78
        assert "[socket-in-use]" in house.log
    house.socket.unlink()
    house.socket.write_text("precious")
    assert house.start(ready=False).wait(90) == 78
    assert house.socket.read_text() == "precious"


# ---------------------------------------------------------------- the program


def test_a_second_daemon_is_refused(house: House) -> None:
    house.start()
    assert house.process is not None
    second = program("--config", house.root / "hyper2kvmd.yaml")
    assert second.returncode == 78
    assert f"another hyper2kvmd uses it (process {house.process.pid} on " in second.stderr.splitlines()[-1]
    assert house.status().state == "running"


def test_errors_of_the_installation_end_with_78_and_one_line(house: House) -> None:
    (house.root / "state").mkdir()
    (house.root / "state" / "jobs.sqlite3").write_bytes(b"not a database" * 1000)
    broken = program("--config", house.root / "hyper2kvmd.yaml")
    assert (broken.returncode, broken.stderr.count("\n")) == (78, 1) and "[database-corrupt]" in broken.stderr
    (house.root / "state" / "jobs.sqlite3").unlink()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", house.port))
        taken.listen()
        broken = program("--config", house.root / "hyper2kvmd.yaml")
    assert broken.returncode == 78 and broken.stderr.splitlines()[-1].endswith("[metrics-unusable]")
    house.configure(banana=1)
    assert program("--config", house.root / "hyper2kvmd.yaml").returncode == 78
    assert program("--config", house.root / "missing.yaml").returncode == 78
    assert program("--daemonize").returncode == 2
    assert program("--banana").returncode == 2


def test_daemonize_returns_when_ready_and_holds_its_pidfile(house: House) -> None:
    pidfile = house.root / "daemon.pid"
    pidfile.write_text("1\n")  # a stale one
    started = program("--config", house.root / "hyper2kvmd.yaml", "--daemonize", "--pidfile", pidfile)
    assert (started.returncode, started.stdout, started.stderr) == (0, "", "")
    daemon = psutil.Process(int(pidfile.read_text()))
    try:
        assert house.status().state == "running", "it was ready when the command returned"
        assert daemon.cwd() == "/" and daemon.terminal() is None
        links = {number: str(Path(f"/proc/{daemon.pid}/fd/{number}").readlink()) for number in (0, 1, 2)}
        log = str(house.root / "state" / "hyper2kvmd.log")
        assert links == {0: "/dev/null", 1: log, 2: log}
        assert re.search(r"^Umask:\s+0027$", Path(f"/proc/{daemon.pid}/status").read_text(), re.MULTILINE)

        house.configure(state_dir=str(house.root / "other"), control_socket=str(house.root / "other.sock"))
        second = program("--config", house.root / "hyper2kvmd.yaml", "--daemonize", "--pidfile", pidfile)
        assert second.returncode == 78 and "[already-running]" in second.stderr
        house.configure()
        third = program("--config", house.root / "hyper2kvmd.yaml", "--daemonize", "--pidfile", house.root / "p2")
        assert third.returncode == 78 and "another hyper2kvmd" in third.stderr
        assert int(pidfile.read_text()) == daemon.pid
    finally:
        daemon.terminate()
        until(lambda: not daemon.is_running() or daemon.status() == psutil.STATUS_ZOMBIE, "it ended")
    assert not pidfile.exists() and not house.socket.exists()

"""Short runs of what `make fuzz` does for long."""

from __future__ import annotations

from tests.fuzz import archives, drivers, event_logs, hives, ovf, requests, texts, vmx


def test_a_damaged_yaml_is_a_migration_or_a_list_of_problems() -> None:
    ends, wrong = texts.fuzz(seed=1, count=4000)
    assert not wrong, wrong[0]
    assert {
        "accepted",
        "batch",
        "key-unsupported",
        "yaml-refused",
        "yaml-syntax",
        "key-unknown",
        "value-invalid",
    } <= set(ends)


def test_a_damaged_vmx_is_a_machine_or_one_failure() -> None:
    ends, wrong = vmx.fuzz(seed=1, count=1500)
    assert not wrong, wrong[0]
    assert {"a machine", "a snapshot", "vmx-disk-missing", "snapshot-unknown", "vmx-without-disks"} <= set(ends)


def test_a_damaged_request_is_understood_or_refused() -> None:
    ends, wrong = requests.fuzz(seed=1, count=5000)
    assert not wrong, wrong[0]
    assert {"probe", "mount", "bad-request", "bad-fd", "bad-range"} == set(ends)


def test_a_damaged_ovf_is_read_or_refused() -> None:
    ends, wrong = ovf.fuzz(seed=1, count=1500)
    assert not wrong, wrong[0]
    kinds = ("unreadable", "href-unsafe", "system-unclear", "configuration-unclear", "value-unclear", "disk-unclear")
    assert {"read", *(f"ovf-{kind}" for kind in kinds)} <= set(ends)


def test_a_damaged_archive_is_read_or_refused() -> None:
    ends, wrong = archives.fuzz(seed=1, count=3000)
    assert not wrong, wrong[0]
    assert {"tar", "zip", "gzip", "other", "archive-unsafe", "source-corrupt", "source-truncated"} <= set(ends)


def test_a_damaged_hive_is_read_and_edited_or_refused() -> None:
    ends, wrong = hives.fuzz(seed=1, count=600)
    assert not wrong, wrong[0]
    assert {"read", "replayed", "registry-damaged", "registry-log-unfit"} == set(ends)


def test_a_damaged_source_of_drivers_is_read_or_refused() -> None:
    ends, wrong = drivers.fuzz(seed=1, count=600)
    assert not wrong, wrong[0]
    assert {"an INF", "an image", "packages", "one signature", "no signature", "virtio-win-unreadable"} <= set(ends)


def test_a_damaged_event_log_is_read() -> None:
    ends, wrong = event_logs.fuzz(seed=1, count=1500)
    assert not wrong, wrong[0]
    assert {"no log", "new", "nothing new", "partly understood"} == set(ends)

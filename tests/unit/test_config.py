"""The daemon's configuration file: defaults, and every error in one message."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hyper2kvmd import config
from hyper2kvmd.cli import daemon
from hyper2kvmd.errors import BrokenInstallation
from hyper2kvmd.host import space
from hyper2kvmd.model.orders import Limits

SAMPLE = Path(__file__).parents[2] / "packaging" / "hyper2kvmd.yaml"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "hyper2kvmd.yaml"
    path.write_text(text)
    return path


def refusal(path: Path) -> BrokenInstallation:
    with pytest.raises(BrokenInstallation) as caught:
        config.load(path)
    assert (caught.value.code, caught.value.exit_code) == ("config-invalid", 78)
    return caught.value


def test_only_the_default_path_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "missing.yaml" in refusal(tmp_path / "missing.yaml").message
    monkeypatch.setattr(config, "DEFAULT_PATH", tmp_path / "default.yaml")
    assert config.load(tmp_path / "default.yaml") == config.DaemonConfig()


def test_values_lists_and_sections(tmp_path: Path) -> None:
    text = """
state-dir: /srv/h2k
max_concurrent_jobs: 4
allowed_source_dirs: [/srv/exports, /mnt/nfs]
space_reserve: 10000000000
threads: 3
bandwidth-limit: 100000000
io_priority: idle
retry:
  max-attempts: 5
  delay: 1.5
retention: {conversions: 0}
helper: [sudo, -n, /opt/helper]
"""
    loaded = config.load(write(tmp_path, text))
    assert loaded.state_dir == Path("/srv/h2k")
    assert loaded.database_url == "sqlite:////srv/h2k/jobs.sqlite3"
    assert loaded.allowed_source_dirs == (Path("/srv/exports"), Path("/mnt/nfs"))
    assert loaded.limits == Limits(threads=3, bandwidth_limit=100_000_000, io_priority="idle")
    assert loaded.space_reserve == "10000000000"
    assert (loaded.retry.max_attempts, loaded.retry.delay, loaded.retry.backoff) == (5, 1.5, 2.0)
    assert (loaded.retention.conversions, loaded.retention.spool) == (0, 90)
    assert loaded.helper == ("sudo", "-n", "/opt/helper")


def test_sizes_may_have_a_unit(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, "bandwidth_limit: 200M\nspace_reserve: 50G\n"))
    assert loaded.bandwidth_limit == 200 << 20
    assert space.kept(loaded.space_reserve, 1 << 40) == 50 << 30
    assert space.kept("5%", 1000) == 50
    assert space.kept("512", 1000) == 512


def check(path: Path) -> Result:
    return CliRunner().invoke(daemon.main, ["--check", "--config", str(path)])


def test_the_effective_settings_are_a_configuration_with_origins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "state_dir: /srv/h2k\nbandwidth-limit: 200M\nretry:\n  delay: 1.5\nhooks: {cmdb: /opt/cmdb}\n"
    path = write(tmp_path, text)
    monkeypatch.setenv(config.CONVERSION_DIR_VARIABLE, "/srv/conversions")
    result = check(path)
    assert result.exit_code == 0
    origins = dict(re.findall(r"^ *(\w+): .*  # (.*)$", result.output, re.MULTILINE))
    assert origins["state_dir"] == f"{path}, line 1"
    assert origins["delay"] == f"{path}, line 4"
    assert origins["max_attempts"] == "default"
    assert origins["conversion_dir"] == "environment variable HYPER2KVM_CONVERSION_DIR"
    monkeypatch.delenv(config.CONVERSION_DIR_VARIABLE)
    effective = write(tmp_path, result.output)
    assert config.load(effective) == config.load(write(tmp_path, f"{text}conversion_dir: /srv/conversions\n"))


def test_a_check_lists_all_errors_with_their_remedies(tmp_path: Path) -> None:
    path = write(tmp_path, "threads: many\nlog_level: loud\n")
    result = check(path)
    assert result.exit_code == 78
    first, *errors, remedy = result.output.splitlines()
    assert first == f"hyper2kvmd: the configuration {path} cannot be used:"
    assert [line.split()[0] for line in errors] == [f"{path}:1:10:", f"{path}:2:12:"]
    assert errors[1].endswith("Write debug, info, warning or error.")
    assert remedy == "Correct these lines, then start or reload the daemon. [config-invalid]"


def test_a_check_hides_the_password_of_the_database(tmp_path: Path) -> None:
    result = check(write(tmp_path, "database_url: postgresql://h2k:secret@db/h2k\n"))
    assert "database_url: postgresql://h2k:***@db/h2k " in result.output
    assert "secret" not in result.output


def test_the_helper_is_a_command_or_a_socket(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, "helper: /run/hyper2kvm-helper.sock\n"))
    assert loaded.helper == Path("/run/hyper2kvm-helper.sock")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_concurent_jobs: 2\n", "1:1: the key max_concurent_jobs is not known. Did you mean max_concurrent_jobs?"),
        ("retry: {delai: 2}\n", "1:9: the key delai is not known. Did you mean delay?"),
        ("retry:\n  max_attempts: 0\n", "2:17: retry.max_attempts is 0"),
        ("retry: 3\n", "1:8: retry is not a mapping"),
        ("allowed_source_dirs: /srv\n", "1:22: allowed_source_dirs is not a list"),
        ("allowed_source_dirs: [/srv, here]\n", "1:29: allowed_source_dirs is the relative path here"),
        ("helper: []\n", "1:9: helper is empty"),
        (
            "helper: sudo -n /opt/helper\n",
            "1:9: helper is the relative path sudo -n /opt/helper. Write the command",
        ),
        (
            "helper: {socket: /run/x}\n",
            "1:9: helper is a mapping, neither a word nor a list. Write the command",
        ),
        ("helper: ~\n", "1:9: helper begins with ~"),
        ("metrics_listen: 127.0.0.1:99999\n", "1:17: metrics_listen is 127.0.0.1:99999, whose port is invalid"),
        ("metrics_listen: '9180'\n", "1:17: metrics_listen is 9180"),
        ("space_reserve: 100%\n", "1:16: space_reserve is 100%"),
        ("space_reserve: 5 GB\n", "1:16: space_reserve is 5 GB"),
        ("threads: 1000\n", "1:10: threads is 1000"),
        ("bandwidth_limit: fast\n", "1:18: bandwidth_limit is fast"),
        ("bandwidth_limit: 5 G\n", "1:18: bandwidth_limit is 5 G, not a size. Write bytes a second"),
        ("bandwidth_limit: 999999999T\n", "1:18: bandwidth_limit is 999999999T, not a size"),
        ("space_reserve: 999999999T\n", "1:16: space_reserve is 999999999T, too large"),
        ("space_reserve: 5P\n", "1:16: space_reserve is 5P"),
        ("io_priority: low\n", "1:14: io_priority is low"),
        (
            "allowed_libvirt_uris: [qemu:///system, xen:///system]\n",
            "1:23: allowed_libvirt_uris has xen:///system, which is not the address of a QEMU/KVM host",
        ),
        (
            "allowed_libvirt_uris: [qemu+libssh2://kvm02/system]\n",
            "1:23: allowed_libvirt_uris has qemu+libssh2://kvm02/system, whose SSH library reads",
        ),
        (
            "allowed_libvirt_uris: ['qemu+ssh://kvm02/system?command=/x']\n",
            "1:23: allowed_libvirt_uris has qemu+ssh://kvm02/system?command=/x, which is not the address",
        ),
        ("allowed_libvirt_uris: qemu+ssh://kvm02/system\n", "1:23: allowed_libvirt_uris is not a list"),
        ("log_level: noisy\n", "1:12: log_level is noisy"),
        ("spool_dir: &a /x\nstate_dir: *a\n", "2:12: the alias *a is refused"),
        ("a: [\n", "not valid YAML"),
    ],
)
def test_errors_carry_their_place(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refusal(write(tmp_path, text)).message


def test_all_errors_in_one_message(tmp_path: Path) -> None:
    path = write(tmp_path, "log_level: x\nspool: /a\nretry:\n  delay: soon\n  backoff: 0\nmetrics_listen: a:70000\n")
    places = [line.split(": ")[0].removeprefix(f"  {path}:") for line in refusal(path).message.splitlines()[1:]]
    assert places == ["1:12", "2:1", "4:10", "5:12", "6:17"]


def test_every_wrong_uri_is_named(tmp_path: Path) -> None:
    text = "allowed_libvirt_uris: [esx://a/, qemu+ssh://-oX/system, qemu+ssh://root@kvm02:22/system]\nthreads: x\n"
    lines = refusal(write(tmp_path, text)).message.splitlines()[1:]
    assert [line.split(", ")[0].split()[-1] for line in lines[:2]] == ["esx://a/", "qemu+ssh://-oX/system"]
    assert len(lines) == 3


def test_uris_of_other_hosts_reach_the_bounds(tmp_path: Path) -> None:
    uris = ("qemu+ssh://root@kvm02:22/system", "qemu+tls://kvm03.example.org/system", "qemu+ssh://[fd00::1]/system")
    loaded = config.load(write(tmp_path, f"allowed_libvirt_uris: {list(uris)}\n"))
    assert loaded.bounds.libvirt_uris == uris


def test_pools_reach_the_bounds(tmp_path: Path) -> None:
    assert config.load(write(tmp_path, "allowed_libvirt_pools: [fast, slow]\n")).bounds.libvirt_pools == (
        "fast",
        "slow",
    )
    assert config.load(write(tmp_path, "log_level: info\n")).bounds.libvirt_pools == ()


def test_the_configured_output_directory_is_always_allowed(tmp_path: Path) -> None:
    """A migration that names none ends there."""
    loaded = config.load(write(tmp_path, "output_dir: /srv/images\nallowed_output_dirs: [/srv/teams]\n"))
    assert loaded.bounds.output_dirs == (Path("/srv/teams"), Path("/srv/images"))
    assert config.load(write(tmp_path, "output_dir: /srv/images\n")).bounds.output_dirs == ()


def test_the_packaged_file_is_all_comments_and_every_line_a_default(tmp_path: Path) -> None:
    text = SAMPLE.read_text()
    assert config.load(write(tmp_path, text)) == config.DaemonConfig()
    settings = "\n".join(line[1:] for line in text.splitlines() if line.startswith("#") and not line.startswith("##"))
    loaded = config.load(write(tmp_path, settings))
    assert loaded == config.DaemonConfig()
    given = {line.split(":")[0] for line in settings.splitlines() if not line.startswith(" ")}
    assert given == set(config.DaemonConfig.model_fields)


def test_hooks_are_programs_by_name(tmp_path: Path) -> None:
    text = "hooks:\n  cmdb: /etc/hyper2kvm/hooks/cmdb\n"
    assert config.load(write(tmp_path, text)).bounds.hooks == {"cmdb": Path("/etc/hyper2kvm/hooks/cmdb")}


@pytest.mark.parametrize(
    ("line", "place"), [("hooks:\n  ../cmdb: /bin/true\n", ":2:12:"), ("hooks:\n  freeze: sync\n", ":2:11:")]
)
def test_a_wrong_hook_is_shown(tmp_path: Path, line: str, place: str) -> None:
    with pytest.raises(BrokenInstallation) as caught:
        config.load(write(tmp_path, line))
    assert place in caught.value.message

"""The image and the manifests ask for what the program, its units and its packages are, and for no privilege."""

from __future__ import annotations

import re
import shlex
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from hyper2kvmd import config, errors, spec
from hyper2kvmd.cli import oneshot
from hyper2kvmd.cli.ctl import cli
from hyper2kvmd.cli.daemon import main
from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon.pages.server import Web
from hyper2kvmd.daemon.pages.shared import ANSWER_SECONDS
from tests.support.host import REPOSITORY, unit_settings
from tests.support.parsed import only_migration

PLACE = REPOSITORY / "packaging" / "container"
MANIFESTS = ("job.yaml", "pod.yaml")
PROGRAMS: dict[str, click.Command] = {"h2kvmctl": cli, "hyper2kvmd": main}
UID = 10180
NOT_IN_THE_IMAGE = {
    "python3-venv": "the environment is made in a stage of its own",
    "util-linux": "essential",
    "procps": "for the unit's ExecReload",
    "sudo": "setuid",
    "fuse3": "setuid",
    "libnbd-bin": "needs fuse3",
}
CONFIGURATION = "/etc/hyper2kvm"


def steps() -> list[tuple[str, str]]:
    """The Containerfile's instructions."""
    text = re.sub(r"\\\n", " ", (PLACE / "Containerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def last(instruction: str) -> str:
    return [rest for word, rest in steps() if word == instruction][-1]


def shell(beginning: str) -> list[str]:
    """The words of the last command in the Containerfile that begins so."""
    commands = [command.strip() for word, rest in steps() if word == "RUN" for command in rest.split("&&")]
    return shlex.split([command for command in commands if command.startswith(beginning)][-1])


def manifest(name: str, kind: str) -> Any:
    documents = yaml.safe_load_all((PLACE / name).read_text())
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def pod_of(name: str) -> Any:
    return manifest(name, "Pod")["spec"] if name == "pod.yaml" else manifest(name, "Job")["spec"]["template"]["spec"]


def container_of(name: str) -> Any:
    (container,) = pod_of(name)["containers"]
    return container


def texts_of(name: str) -> dict[str, str]:
    data: dict[str, str] = manifest(name, "ConfigMap")["data"]
    return data


def daemon_config(name: str, folder: Path) -> DaemonConfig:
    file = folder / "hyper2kvmd.yaml"
    file.write_text(texts_of(name)["hyper2kvmd.yaml"])
    return config.load(file)


def mount_of(name: str, path: Path) -> Any:
    """The mount that `path` lies in: the innermost."""
    mounts = [mount for mount in container_of(name)["volumeMounts"] if path.is_relative_to(mount["mountPath"])]
    return max(mounts, key=lambda mount: len(mount["mountPath"]))


def writable(name: str, path: Path) -> bool:
    return not mount_of(name, path).get("readOnly", False)


# ---------------------------------------------------------------- the image


def test_the_image_has_what_the_program_needs_and_can_use_there() -> None:
    block = (REPOSITORY / "packaging" / "debian-packages.txt").read_text().split("\n\n")[1]
    needed = set(re.findall("^([a-z0-9.-]+)", block, re.MULTILINE))
    words = shell("apt-get install")
    packages = {word for word in words[2:] if not word.startswith("-")}
    assert packages == needed - set(NOT_IN_THE_IMAGE)
    assert set(NOT_IN_THE_IMAGE) <= needed


def test_the_images_programs_are_those_of_the_wheel() -> None:
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    *targets, folder = shell("ln -s")[2:]
    assert folder == "/usr/bin/" and {Path(target).name for target in targets} == set(PROGRAMS) <= set(scripts)
    assert last("CMD") in [f'["{name}"]' for name in PROGRAMS]
    assert not [word for word, _ in steps() if word == "ENTRYPOINT"], "examples/container.yaml names the program"


def test_the_images_user_is_the_services() -> None:
    user, group = shell("useradd"), shell("groupadd")
    assert f"--uid {UID} " in " ".join(user) and f"--gid {UID} " in " ".join(group)
    assert last("USER") == f"{UID}:{UID}"
    (line,) = re.findall(r'^u (\S+) - ".*" (\S+)$', sysusers(), re.MULTILINE)
    assert (user[-1], user[user.index("--home-dir") + 1]) == line
    assert group[-1] == user[-1] and last("ENV") == f"HOME={line[1]}"


def sysusers() -> str:
    return (REPOSITORY / "packaging" / "sysusers.d" / "hyper2kvm.conf").read_text()


def test_the_example_for_containers_converts_within_its_volume() -> None:
    text = (REPOSITORY / "examples" / "container.yaml").read_text()
    asked = only_migration(spec.parse(text, default_name="container"))
    assert asked.output_dir is not None and asked.conversion_dir is not None
    assert asked.conversion_dir.is_relative_to(asked.output_dir) and asked.conversion_dir != asked.output_dir
    (command,) = re.findall(r"IMAGE \\\n#\s+(.+)$", text, re.MULTILINE)
    understood(shlex.split(command))


# ---------------------------------------------------------------- the manifests


def understood(words: list[str]) -> dict[str, Any]:
    """What the program makes of its command line. Raises click.UsageError."""
    return PROGRAMS[words[0]].make_context(words[0], words[1:]).params


@pytest.mark.parametrize("name", MANIFESTS)
def test_nothing_is_privileged(name: str) -> None:
    pod = pod_of(name)
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": UID,
        "runAsGroup": UID,
        "fsGroup": UID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for container in (*pod["initContainers"], container_of(name)):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(pod)


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_image_is_the_one_that_the_text_builds(name: str) -> None:
    (built,) = re.findall(r"--tag (\S+)", (PLACE / "README.md").read_text())
    for container in (*pod_of(name)["initContainers"], container_of(name)):
        assert container["image"] == built


@pytest.mark.parametrize("name", MANIFESTS)
def test_volumes_and_mounts_belong_together(name: str) -> None:
    volumes = {volume["name"]: volume for volume in pod_of(name)["volumes"]}
    mounts = container_of(name)["volumeMounts"]
    assert {mount["name"] for mount in mounts} == set(volumes)
    assert volumes["configuration"]["configMap"]["name"] == manifest(name, "ConfigMap")["metadata"]["name"]
    assert mount_of(name, Path(CONFIGURATION))["name"] == "configuration"
    assert config.DEFAULT_PATH.parent == Path(CONFIGURATION)
    assert volumes["exports"]["persistentVolumeClaim"]["readOnly"] is True
    assert all("sizeLimit" in volume["emptyDir"] for volume in volumes.values() if "emptyDir" in volume)


@pytest.mark.parametrize("name", MANIFESTS)
def test_it_converts_in_a_folder_of_its_own_of_a_volume_that_is_open_to_all(name: str, tmp_path: Path) -> None:
    (first,) = pod_of(name)["initContainers"]
    (volume,) = first["volumeMounts"]
    mount = mount_of(name, Path("/work"))
    assert volume["name"] == mount["name"] and "readOnly" not in volume
    *command, folder = first["command"]
    assert folder == f"{volume['mountPath']}/{mount['subPath']}"
    for _ in range(2):  # the volume outlives a container
        subprocess.run([*command, tmp_path / "own"], check=True)
        assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o700


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_nodes_helper_is_reached_where_it_listens(name: str, tmp_path: Path) -> None:
    path = unit_settings("hyper2kvm-helper.socket")["ListenSequentialPacket"]
    (volume,) = [volume for volume in pod_of(name)["volumes"] if volume["name"] == "helper"]
    assert volume["hostPath"] == {"path": path, "type": "Socket"}
    assert mount_of(name, Path(path))["mountPath"] == path
    assert daemon_config(name, tmp_path).helper == Path(path)


@pytest.mark.parametrize("name", MANIFESTS)
def test_it_may_take_as_long_to_stop_as_the_unit(name: str) -> None:
    seconds = int(unit_settings("hyper2kvmd.service")["TimeoutStopSec"])
    assert pod_of(name)["terminationGracePeriodSeconds"] == seconds


def test_the_job_migrates_what_its_configuration_says(tmp_path: Path) -> None:
    container = container_of("job.yaml")
    file = understood(container["command"])["files"][0]
    assert file.parent == Path(CONFIGURATION)
    asked = only_migration(spec.parse(texts_of("job.yaml")[file.name], default_name=file.stem))
    assert "vm_name" in asked.model_fields_set and not asked.libvirt_import
    assert asked.output_dir is not None and writable("job.yaml", asked.output_dir)
    assert [writable("job.yaml", disk) for disk in asked.vmdk] == [False]
    ((variable, value),) = [(entry["name"], Path(entry["value"])) for entry in container["env"]]
    assert variable == oneshot.VARIABLE
    assert writable("job.yaml", value) and mount_of("job.yaml", value)["mountPath"] == str(value.parent)
    assert daemon_config("job.yaml", tmp_path).model_fields_set <= {"helper", "database_url"}


def test_the_job_is_not_repeated_for_what_time_does_not_cure() -> None:
    (rule,) = manifest("job.yaml", "Job")["spec"]["podFailurePolicy"]["rules"]
    failures: list[type[errors.Failure]] = [errors.Failure, *errors.Failure.__subclasses__()]
    assert rule["onExitCodes"]["containerName"] == container_of("job.yaml")["name"]
    assert set(rule["onExitCodes"]["values"]) == {one.exit_code for one in failures if one.kind != errors.Kind.RETRY}
    assert pod_of("job.yaml")["restartPolicy"] == "Never"


def test_the_daemon_finds_its_places(tmp_path: Path) -> None:
    understood(container_of("pod.yaml")["command"])
    here = daemon_config("pod.yaml", tmp_path)
    for path in (here.spool_dir, here.state_dir, here.conversion_dir, here.output_dir, here.control_socket.parent):
        assert writable("pod.yaml", path)
    assert mount_of("pod.yaml", here.conversion_dir)["mountPath"] == str(here.conversion_dir.parent)
    assert [writable("pod.yaml", folder) for folder in here.allowed_source_dirs] == [False]
    assert here.allowed_output_dirs == (here.output_dir,)


def test_the_daemon_is_asked_where_it_answers(tmp_path: Path) -> None:
    container = container_of("pod.yaml")
    (port,) = container["ports"]
    host, _, number = daemon_config("pod.yaml", tmp_path).metrics_listen.rpartition(":")
    assert (host, int(number)) == ("0.0.0.0", port["containerPort"])  # noqa: S104 - the kubelet asks from outside
    nothing: Any = None
    served = {resource.canonical for resource in Web(nothing, nothing, nothing).application().router.resources()}
    for probe in (container["livenessProbe"], container["readinessProbe"]):
        assert probe["httpGet"]["port"] == port["name"] and probe["httpGet"]["path"] in served
        assert probe["timeoutSeconds"] > ANSWER_SECONDS
    watchdog = int(unit_settings("hyper2kvmd.service")["WatchdogSec"])
    assert container["livenessProbe"]["periodSeconds"] * container["livenessProbe"]["failureThreshold"] == watchdog
    assert pod_of("pod.yaml")["restartPolicy"] == "OnFailure"

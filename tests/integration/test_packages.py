"""What `make deb`, `make rpm` and `make wheel` build: looked into, and run from where it was unpacked.

How the Debian package installs, upgrades and is purged, tests/system shows in a machine of its own; the RPM has a root
without a machine.
"""

from __future__ import annotations

import marshal
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from hyper2kvmd import __version__
from tests.guests.build import base
from tests.guests.guest import cache, locked
from tests.support.disks import sh
from tests.support.host import USER, as_service
from tests.support.packages import built

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGING = REPOSITORY / "packaging"
PRIVATE = Path("usr/lib/hyper2kvmd")
PROGRAMS = ("hyper2kvmd", "h2kvmctl", "hyper2kvm")
MAN_PAGES = ("h2kvmctl.1", "hyper2kvm.1", "hyper2kvm-migration.5", "hyper2kvmd.yaml.5", "hyper2kvmd.8")
INTERNAL = ("hyper2kvm-ssh",)
"""Not on PATH: other programs start them."""


@dataclass(frozen=True)
class Package:
    file: Path
    root: Path
    """Where it is unpacked."""
    entries: dict[str, tuple[str, str]]
    """Of each path, without a slash in front: mode as `ls` writes it, and owner/group."""


@pytest.fixture(scope="module")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Package:
    (file,) = built(PACKAGING / "deb.sh")
    root = tmp_path_factory.mktemp("deb")
    sh("dpkg-deb", "--extract", file, root)
    lines = [line.split(maxsplit=5) for line in sh("dpkg-deb", "--contents", file).splitlines()]
    entries = {line[5].split(" -> ")[0].strip("./"): (line[0], line[1]) for line in lines}
    return Package(file, root, entries)


@pytest.fixture(scope="module")
def rpm(tmp_path_factory: pytest.TempPathFactory) -> Package:
    file, _source = built(PACKAGING / "rpm.sh")
    root = tmp_path_factory.mktemp("rpm")
    sh("bash", "-euo", "pipefail", "-c", f"cd {root} && rpm2cpio {file} | cpio --extract --make-directories --quiet")
    query = "[%{FILENAMES}\t%{FILEMODES:perms}\t%{FILEUSERNAME}/%{FILEGROUPNAME}\n]"
    lines = [
        line.split("\t") for line in sh("rpm", "--query", f"--queryformat={query}", "--package", file).splitlines()
    ]
    return Package(file, root, {path.strip("/"): (mode, owner) for path, mode, owner in lines})


@pytest.fixture(params=["deb", "rpm"])
def package(request: pytest.FixtureRequest) -> Package:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Package)
    return found


def test_modes_and_owners(package: Package) -> None:
    assert {owner for _, owner in package.entries.values()} == {"root/root"}
    modes = {path: mode for path, (mode, _) in package.entries.items()}
    assert modes["etc/sudoers.d/hyper2kvm"] == "-r--r-----"
    assert modes["usr/libexec/hyper2kvm/helper"] == "-rwxr-xr-x"
    assert modes["etc/hyper2kvm/hyper2kvmd.yaml"] == "-rw-r--r--"
    writable = [path for path, mode in modes.items() if mode[0] != "l" and ("w" in (mode[5], mode[8]) or "s" in mode)]
    assert writable == []


def below(folder: str, source: Path) -> set[str]:
    """Where the files of `source` are when they lie in `folder`."""
    return {f"{folder}/{path.relative_to(source)}" for path in source.rglob("*") if path.is_file()}


def test_everything_has_its_place(package: Package) -> None:
    wanted = {
        *(f"usr/bin/{name}" for name in PROGRAMS),
        *(f"usr/share/bash-completion/completions/{name}" for name in PROGRAMS),
        *(f"usr/share/fish/vendor_completions.d/{name}.fish" for name in PROGRAMS),
        *(f"usr/share/man/man{name[-1]}/{name}.gz" for name in MAN_PAGES),
        *below("usr/share/doc/hyper2kvmd/docs", REPOSITORY / "docs"),
        *below("usr/share/doc/hyper2kvmd/examples", REPOSITORY / "examples"),
        *below("usr/share/doc/hyper2kvmd/packaging/container", PACKAGING / "container"),
        *below("usr/share/hyper2kvmd", PACKAGING / "hyper2kvmd.service.d"),
        *below("usr/share/hyper2kvmd/monitoring", PACKAGING / "monitoring"),
        *below("usr/share/hyper2kvmd/selinux", PACKAGING / "selinux"),
        *below("usr/lib/sysusers.d", PACKAGING / "sysusers.d"),
        *below("usr/lib/tmpfiles.d", PACKAGING / "tmpfiles.d"),
        *below("usr/lib/udev/rules.d", PACKAGING / "udev"),
    }
    assert wanted - package.entries.keys() == set()
    profiles = {path for path in package.entries if re.match(r"etc/apparmor\.d/(.*/)?hyper2kvm", path)}
    assert profiles == (below("etc/apparmor.d", PACKAGING / "apparmor") if package.file.suffix == ".deb" else set())
    zsh = {Path(path).name for path in package.entries if "/zsh/" in path}
    units = {Path(path).name for path in package.entries if "lib/systemd/system/" in path}
    assert zsh >= {f"_{name}" for name in PROGRAMS}
    assert units >= {path.name for path in (REPOSITORY / "systemd").iterdir()}


def test_links_in_its_texts_lead_to_what_it_has(package: Package) -> None:
    texts = [*(package.root / "usr/share/doc/hyper2kvmd").rglob("*.md")]
    links = [(text, link) for text in texts for link in re.findall(r"\]\(([^)#]+)", text.read_text())]
    inside = [(text, link) for text, link in links if "://" not in link]
    assert len(texts) > 5 and len(inside) > 10
    assert [(text.name, link) for text, link in inside if not (text.parent / link).exists()] == []


def test_sources_are_shipped_as_they_are(package: Package) -> None:
    for ours, theirs in (
        ("hyper2kvmd/helper/helper.py", "usr/libexec/hyper2kvm/helper"),
        ("sudoers.d/hyper2kvm", "etc/sudoers.d/hyper2kvm"),
        ("packaging/hyper2kvmd.yaml", "etc/hyper2kvm/hyper2kvmd.yaml"),
    ):
        assert (package.root / theirs).read_bytes() == (REPOSITORY / ours).read_bytes()


def test_the_environment_is_whole_and_of_no_build(package: Package) -> None:
    site = next(iter((package.root / PRIVATE / "lib").iterdir())) / "site-packages"
    locked = re.findall("^([A-Za-z0-9._-]+)==([^ ]+)", (REPOSITORY / "requirements.lock").read_text(), re.MULTILINE)
    there = {re.sub("[-_.]+", "-", name.stem.rpartition("-")[0]).lower() for name in site.glob("*.dist-info")}
    assert there == {"hyper2kvmd", *(name.lower() for name, _ in locked)}  # pip and setuptools among others are not
    programs = sorted((package.root / PRIVATE / "bin").iterdir())
    assert [path.name for path in programs] == sorted((*PROGRAMS, *INTERNAL, "python3"))
    for path in programs:
        if path.name != "python3":
            assert path.read_text().startswith("#!/usr/lib/hyper2kvmd/bin/python3 -I\n")
    assert [*site.glob("*.dist-info/direct_url.json"), *site.glob("*.dist-info/RECORD")] == []
    here = str(REPOSITORY).encode()
    naming = [path for path in package.root.rglob("*") if path.is_file() and here in path.read_bytes()]
    assert naming == []
    for source in site.glob("hyper2kvmd/**/*.py"):
        compiled = source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
        content = compiled.read_bytes()
        assert content[4:8] == b"\x01\0\0\0", f"{compiled} is looked up by time or content"
        assert marshal.loads(content[16:]).co_filename == f"/{source.relative_to(package.root)}"  # noqa: S302 - ours


def run(package: Package, *words: str) -> str:
    """One of its programs, by its own interpreter, which on the target is the system's."""
    target = package.root / "usr/bin/python3"
    interpreter = package.root / PRIVATE / "bin/python3"
    if not interpreter.exists():
        target.symlink_to("/usr/bin/python3")
    program = package.root / PRIVATE / "bin" / words[0]
    return sh(interpreter, "-IB", program, *words[1:])


def test_its_programs_run_where_it_is_unpacked(package: Package) -> None:
    assert run(package, "h2kvmctl", "--version") == f"h2kvmctl, version {__version__}\n"
    assert "--daemonize" in run(package, "hyper2kvmd", "--help")
    assert ": valid" in run(package, "hyper2kvm", "check", str(REPOSITORY / "examples/service.yaml"))


BASH = """
    . "$1/usr/share/bash-completion/completions/$2"
    complete -p "$2" >/dev/null
    COMP_WORDS=("$2" sub) COMP_CWORD=1
    "_$2_completion" "$2" sub "$2"
    echo "${COMPREPLY[@]}"
"""
ZSH = """
    fpath=(${~:-$1/usr/share/zsh/*} $fpath)
    _describe() { print -rl -- ${${(P)3}%%:*} }
    words=($2 sub) CURRENT=2
    autoload -Uz _$2
    _$2
"""
FISH = """
    source $argv[2]/usr/share/fish/vendor_completions.d/$argv[3].fish
    complete --do-complete "$argv[3] sub" | string replace --regex '\\t.*' ''
"""


@pytest.mark.parametrize(
    "shell",
    [("bash", "--norc", "-euc", BASH), ("zsh", "-feuc", ZSH), ("fish", "--no-config", "--command", FISH)],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("name", ["h2kvmctl", "hyper2kvm"])
def test_shells_complete_commands(
    package: Package, shell: tuple[str, ...], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packaged files, where the packaged program is on PATH."""
    run(package, name, "--version")  # the interpreter's link is there
    program = tmp_path / name
    program.write_text(f'#!/bin/sh\nexec {package.root / PRIVATE}/bin/python3 -IB {package.root}/usr/bin/{name} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert sh(*shell, shell[0], package.root, name) == "submit\n"


def test_configuration_is_the_administrators(deb: Package, rpm: Package) -> None:
    wanted = {"/etc/hyper2kvm/hyper2kvmd.yaml", "/etc/sudoers.d/hyper2kvm"}
    conffiles = set(sh("dpkg-deb", "--info", deb.file, "conffiles").split())
    assert conffiles >= wanted
    assert conffiles == {
        f"/{path}" for path, (mode, _) in deb.entries.items() if re.match("etc/", path) and mode[0] == "-"
    }
    assert set(sh("rpm", "--query", "--configfiles", "--package", rpm.file).split()) >= wanted


def test_lintian_has_no_complaint(deb: Package) -> None:
    sh("lintian", "--allow-root", "--fail-on", "error", deb.file)


INSIDE = """
    mount --bind /dev "$1/dev"
    mount -t proc proc "$1/proc"
    mount -t sysfs sysfs "$1/sys"
    exec chroot "$1" sh /root/life.sh
"""
RPM_LIFE = """
    cd /root
    rpm --install --nodeps hyper2kvmd.rpm
    id --name --groups hyper2kvm
    h2kvmctl --version
    visudo --check --file /etc/sudoers.d/hyper2kvm
    stat --format "%A %U %G" /var/lib/hyper2kvm/conversions /var/spool/hyper2kvm/incoming
    rpm --verify --nodeps hyper2kvmd
    cd /etc/systemd/system && echo enabled: *.wants/hyper2kvm*

    echo "# ours" >>/etc/hyper2kvm/hyper2kvmd.yaml
    rm /etc/sudoers.d/hyper2kvm
    rpm --upgrade --force --nodeps "$OLDPWD/hyper2kvmd.rpm"
    tail -n 1 /etc/hyper2kvm/hyper2kvmd.yaml
    echo back: $(find /etc/sudoers.d -name "hyper2kvm*")

    systemctl enable hyper2kvm-helper.socket
    rpm --erase --nodeps hyper2kvmd
    echo left: $(find /etc /usr /var -name "*hyper2kvm*" ! -path "*/run/*" | sort)
"""


def test_the_rpm_installs_upgrades_and_goes(rpm: Package, tmp_path: Path) -> None:
    """By rpm itself, on this release of Debian, whose presets enable what a package asks for; nothing runs in there."""
    with locked(cache() / "lock"):
        archive = base(platform.freedesktop_os_release()["VERSION_CODENAME"], ("systemd", "sudo", "python3", "rpm"))
    root = tmp_path / "root"
    root.mkdir()
    sh("tar", "--extract", "--numeric-owner", "--exclude=./dev/*", "--file", archive, "--directory", root)
    (root / "root/life.sh").write_text(f"set -eu\n{RPM_LIFE}")
    shutil.copy(rpm.file, root / "root/hyper2kvmd.rpm")
    said = sh("unshare", "--mount", "sh", "-euc", INSIDE, "sh", root)
    assert said.splitlines() == [
        "hyper2kvm hyper2kvm-submit kvm libvirt",
        f"h2kvmctl, version {__version__}",
        "/etc/sudoers.d/hyper2kvm: parsed OK",
        "drwx------ hyper2kvm hyper2kvm",
        "drwxrws--T hyper2kvm hyper2kvm-submit",
        "enabled: multi-user.target.wants/hyper2kvmd.service timers.target.wants/hyper2kvm-cleanup.timer",
        "# ours",
        "back:",
        "left: /etc/hyper2kvm /etc/hyper2kvm/hyper2kvmd.yaml.rpmsave /var/lib/hyper2kvm /var/spool/hyper2kvm",
    ]


def scripts(deb: Package) -> dict[str, str]:
    names = ("preinst", "postinst", "prerm", "postrm")
    return {name: sh("dpkg-deb", "--info", deb.file, name) for name in names}


def test_the_debian_package_starts_the_service_but_not_the_helpers_socket(deb: Package) -> None:
    postinst = scripts(deb)["postinst"]
    invoked = re.findall(r"deb-systemd-invoke (.*) >", postinst)
    assert invoked == ["start 'hyper2kvm-cleanup.timer' 'hyper2kvmd.service'"]
    assert "enable 'hyper2kvmd.service'" in postinst
    assert not re.search(
        r"^\tif deb-systemd-helper --quiet was-enabled 'hyper2kvm-helper.socket'", postinst, re.MULTILINE
    )
    users, folders, start = (postinst.index(word) for word in ("systemd-sysusers", "systemd-tmpfiles", invoked[0]))
    assert users < folders < start


def test_the_daemon_stands_still_while_its_files_are_replaced(deb: Package) -> None:
    """And the helper's socket listens on."""
    ((condition, order),) = re.findall(r"^if (.*) ; then\n\t(.*) >", scripts(deb)["preinst"], re.MULTILINE)
    assert '[ "$1" = upgrade ]' in condition
    assert order == "deb-systemd-invoke stop 'hyper2kvm-cleanup.timer' 'hyper2kvmd.service'"


def test_purge_spares_images(deb: Package, tmp_path: Path) -> None:
    """The script itself, with a folder for the root of the file system."""
    state, spool, settings = (tmp_path / name for name in ("var/lib/hyper2kvm", "var/spool/hyper2kvm", "etc/hyper2kvm"))
    purge = scripts(deb)["postrm"].split("# Automatically added")[0]
    script = re.sub(r"(?<![\w$])/(?=var/|etc/)", f"{tmp_path}/", purge)
    assert script.count(str(tmp_path)) == 4
    rules = tmp_path / "etc/apparmor.d/local/hyper2kvmd-sudo"
    rules.parent.mkdir(parents=True)
    rules.touch()

    def made(*names: str) -> None:
        for path in (state / name for name in names):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
        for folder in (spool / "incoming", settings, state / "images", state / "conversions" / "web01.1"):
            folder.mkdir(parents=True, exist_ok=True)

    made("jobs.sqlite3", "jobs.sqlite3-journal", "jobs.sqlite3.lock", "backups/jobs-1.sqlite3", "cleanup.json")
    made("cleanup.lock")
    made("daemon.lock", ".hyper2kvmd.lock", ".hyper2kvmd.queue", "images/.hyper2kvmd.lock", "hyper2kvmd.log")
    made("images/.hyper2kvmd.trial")
    made("images/web01.qcow2")
    sh("sh", "-euc", script, "postrm", "remove")
    assert spool.exists() and (state / "jobs.sqlite3").exists() and rules.exists()
    said = sh("sh", "-euc", script, "postrm", "purge")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["web01.qcow2"]
    assert not spool.exists() and not settings.exists() and str(state) in said and said.count("\n") == 1
    (state / "images" / "web01.qcow2").unlink()
    made("daemon.lock")
    assert sh("sh", "-euc", script, "postrm", "purge") == ""
    assert not state.exists()
    assert sh("sh", "-euc", script, "postrm", "purge") == ""  # a second time


def test_dependencies_fit_the_environment(deb: Package, rpm: Package) -> None:
    version = next(iter((deb.root / PRIVATE / "lib").iterdir())).name.removeprefix("python")
    major, minor = map(int, version.split("."))
    depends = sh("dpkg-deb", "--field", deb.file, "Depends").strip().split(", ")
    assert {f"python3 (>= {version})", f"python3 (<< {major}.{minor + 1})"} < set(depends)
    assert any(re.match(r"libc6 \(>= ", word) for word in depends)
    requires = sh("rpm", "--query", "--requires", "--package", rpm.file).splitlines()
    assert f"python(abi) = {version}" in requires
    assert not any(".so" in word for word in requires), "private libraries are nobody's to provide"
    provides = sh("rpm", "--query", "--provides", "--package", rpm.file).splitlines()
    assert {word.split("(")[0].split(" ")[0] for word in provides} == {"hyper2kvmd", "config"}


def test_what_the_service_needs_the_debian_package_names() -> None:
    needed = (PACKAGING / "debian-packages.txt").read_text().split("# what the demo")[0]
    wanted = set(re.findall("^([a-z0-9.-]+)", needed, re.MULTILINE))
    control = (PACKAGING / "debian/control").read_text().split("\nPackage: ")[1]
    # essential, computed, or of no use where the environment comes ready
    assert wanted - set(re.findall("[a-z0-9.-]+", control)) == {"util-linux", "python3-venv"}


def test_both_have_the_version_of_the_sources(deb: Package, rpm: Package) -> None:
    assert sh("dpkg-deb", "--field", deb.file, "Version").startswith(f"{__version__}~deb")
    assert sh("rpm", "--query", "--queryformat", "%{version}", "--package", rpm.file) == __version__


# ---------------------------------------------------------------- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel, built from the source archive, and that."""
    folder = tmp_path_factory.mktemp("dist")
    sh(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, REPOSITORY)
    sh(sys.executable, "-m", "twine", "check", "--strict", *folder.iterdir())
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def test_the_source_archive_has_no_leftovers(wheel: tuple[Path, Path]) -> None:
    with tarfile.open(wheel[1]) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    tracked = set(
        sh("git", "-C", REPOSITORY, "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard").splitlines()
    )
    assert set(names) - tracked == {"PKG-INFO"}
    assert {"packaging/debian/rules", "requirements.lock", "sudoers.d/hyper2kvm", "Makefile"} < set(names)


def test_the_wheel_on_a_workstation(wheel: tuple[Path, Path], service_folder: Path) -> None:
    """As pipx installs it, but for its libraries, which are those of this environment: it says what it lacks."""
    environment, disk, migration = (service_folder / name for name in ("venv", "web01.raw", "web01.yaml"))
    python = environment / "bin/python"
    sh(sys.executable, "-m", "venv", "--without-pip", environment)
    sh(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel[0])
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    (site,) = environment.glob("lib/python3.*/site-packages")
    (site / "libraries.pth").write_text(f"{libraries}\n")
    program = environment / "bin/h2kvmctl"
    assert ": valid" in sh(program, "check", REPOSITORY / "examples/workstation.yaml")

    sh("truncate", "--size=64M", disk)
    sh("mkfs.ext4", "-q", disk)
    migration.write_text(f"vmdk: {disk}\noutput_dir: {service_folder}\nconversion_dir: {service_folder}/work\n")
    shutil.chown(disk, USER)
    # where this host has a helper, that is out of sight
    alone = [
        "unshare",
        "--mount",
        "sh",
        "-euc",
        'mkdir -p /usr/libexec; mount -t tmpfs none /usr/libexec; exec "$@"',
        "sh",
    ]
    argv = [*alone, *as_service(program, "plan", migration)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    words = " ".join(done.stderr.split())
    assert done.returncode == 78, done
    assert f"0755 {site}/hyper2kvmd/helper/helper.py /usr/libexec/hyper2kvm/helper" in words

    # what needs no mount needs no helper
    sh("mkswap", disk)
    sh(*alone, *as_service(program, "--config", migration))
    sh("qemu-img", "compare", "-F", "qcow2", "-f", "raw", disk, service_folder / "web01.qcow2")

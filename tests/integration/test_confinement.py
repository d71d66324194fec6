"""AppArmor's, SELinux' and udev's files, judged by the tools that will read them. tests/system sees them in force."""

from __future__ import annotations

import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hyper2kvmd.host.run import PACKAGES
from tests.support.disks import sh
from tests.support.host import REPOSITORY, unit_settings
from tests.support.libvirtd import registered, xml_of

PACKAGING = REPOSITORY / "packaging"
PROFILES = PACKAGING / "apparmor"
VIRT_AA_HELPER = Path("/usr/lib/libvirt/virt-aa-helper")
RULES = Path("/run/udev/rules.d")


def tool(*argv: object, cwd: Path | None = None, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in argv]
    return subprocess.run(words, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=60, check=False)


# ---------------------------------------------------------------- AppArmor


def compiled(profile: Path) -> subprocess.CompletedProcess[str]:
    """By the parser, as it loads a profile into a kernel that knows all kinds of rules, but into none."""
    options = ("--skip-kernel-load", "--skip-cache", "--Werror", "--base=/etc/apparmor.d", f"--Include={PROFILES}")
    return tool("apparmor_parser", *options, "--kernel-features=/etc/apparmor.d/abi/3.0", profile)


@pytest.mark.parametrize("name", ["hyper2kvmd", "hyper2kvm-helper"])
def test_profiles_compile(name: str) -> None:
    result = compiled(PROFILES / name)
    assert result.returncode == 0, result.stderr


def test_the_parser_would_notice(tmp_path: Path) -> None:
    broken = tmp_path / "hyper2kvmd"
    broken.write_text((PROFILES / "hyper2kvmd").read_text().replace("network inet stream,", "network intern stream,"))
    assert compiled(broken).returncode != 0


@pytest.mark.parametrize("name", ["hyper2kvmd", "hyper2kvm-helper"])
def test_the_administrators_tools_read_them(tmp_path: Path, name: str) -> None:
    """They know less of the language than the parser, and read every profile of a host before they change one."""
    host = tmp_path / "apparmor.d"
    shutil.copytree("/etc/apparmor.d", host)
    shutil.copytree(PROFILES, host, dirs_exist_ok=True)
    result = tool("aa-complain", "--no-reload", "--dir", host, host / name)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(f"^profile {name} .*complain", (host / name).read_text(), re.MULTILINE)


def test_images_can_be_opened_to_all_of_libvirts_guests(tmp_path: Path) -> None:
    included = "".join(f"include <abstractions/{name}>\n" for name in ("libvirt-qemu", "hyper2kvm-images"))
    guest = tmp_path / "guest"
    guest.write_text(f"abi <abi/3.0>,\ninclude <tunables/global>\nprofile guest {{\n{included}}}\n")
    result = compiled(guest)
    assert result.returncode == 0, result.stderr


def test_units_enter_profiles_that_are_there() -> None:
    for unit in ("hyper2kvmd.service", "hyper2kvm-helper@.service"):
        name = unit_settings(unit)["AppArmorProfile"]
        assert name.startswith("-"), "a host without AppArmor runs it as well"
        assert re.search(f"^profile {name[1:]} ", (PROFILES / name[1:]).read_text(), re.MULTILINE)


def test_every_tool_may_be_started() -> None:
    """A transition for those that are setuid, none for the others: no_new_privs would forbid it."""
    rules = (PROFILES / "hyper2kvmd").read_text()
    (inherited,) = re.findall(r"^  /usr/bin/\{(qemu-img.*)\} mrix,$", rules, re.MULTILINE)
    changing = re.findall(r"^  /usr/bin/(\S+) Cx ", rules, re.MULTILINE)
    assert set(changing) == {"sudo", "fusermount3"}
    assert set(PACKAGES) <= {*inherited.split(","), *changing}


@pytest.mark.parametrize("form", ["qcow2", "raw"])
def test_libvirts_guests_get_their_own_images(tmp_path: Path, form: str) -> None:
    """So that hyper2kvm-images is needed by none; virt-aa-helper's own profile lets it look into files of this name."""
    domain = registered(tmp_path, out_format=form)
    text = xml_of(domain).read_text()
    (identity,) = re.findall("<uuid>(.*)</uuid>", text)
    said = tool(VIRT_AA_HELPER, "--create", "--dryrun", f"--uuid=libvirt-{uuid.UUID(identity)}", stdin=text)
    (image,) = tmp_path.glob(f"*.{form}")
    assert f'"{image}" rwk,' in said.stderr
    assert (
        f"/**.{'qcow{,2}' if form == 'qcow2' else 'raw'} r,"
        in Path("/etc/apparmor.d/usr.lib.libvirt.virt-aa-helper").read_text()
    )


# ---------------------------------------------------------------- SELinux

LABELS = {
    ("/usr/lib/hyper2kvmd/bin/hyper2kvmd", "file"): "hyper2kvmd_exec_t",
    ("/usr/lib/hyper2kvmd/bin/h2kvmctl", "file"): "bin_t",
    ("/usr/libexec/hyper2kvm/helper", "file"): "hyper2kvm_helper_exec_t",
    ("/etc/hyper2kvm/hyper2kvmd.yaml", "file"): "hyper2kvm_etc_t",
    ("/var/spool/hyper2kvm/incoming", "dir"): "hyper2kvm_spool_t",
    ("/var/spool/hyper2kvm/incoming/web01.yaml", "file"): "hyper2kvm_spool_t",
    ("/var/lib/hyper2kvm", "dir"): "hyper2kvm_var_lib_t",
    ("/var/lib/hyper2kvm/jobs.sqlite3", "file"): "hyper2kvm_var_lib_t",
    ("/var/lib/hyper2kvm/images", "dir"): "virt_image_t",
    ("/var/lib/hyper2kvm/images/web01.qcow2", "file"): "virt_image_t",
    ("/var/lib/hyper2kvm/conversions/web01.7/disk1.qcow2", "file"): "virt_image_t",
    ("/run/hyper2kvm/control.sock", "socket"): "hyper2kvm_runtime_t",
    ("/run/hyper2kvm-helper.sock", "socket"): "hyper2kvm_runtime_t",
    ("/var/run/hyper2kvm/control.sock", "socket"): "hyper2kvm_runtime_t",
    ("/var/run/hyper2kvm-helper.sock", "socket"): "hyper2kvm_runtime_t",
}
A_SITES_OWN = """
policy_module(site, 1.0.0)
gen_require(`
    type user_t;
    type sysadm_t;
    role sysadm_r;
')
hyper2kvm_submit(user_t)
hyper2kvm_admin(sysadm_t, sysadm_r)
"""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module, built as an administrator builds it, and a site's own that uses its interfaces."""
    folder = tmp_path_factory.mktemp("selinux") / "policy"
    shutil.copytree(PACKAGING / "selinux", folder)
    (folder / "site.te").write_text(A_SITES_OWN)
    built = tool(
        "make", "-f", "/usr/share/selinux/devel/Makefile", "NAME=default", "hyper2kvm.pp", "site.pp", cwd=folder
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert "deprecated" not in built.stdout + built.stderr
    sh("semodule_unpackage", folder / "hyper2kvm.pp", folder / "hyper2kvm.mod", folder / "contexts")
    sh("sefcontext_compile", "-o", folder / "contexts.bin", folder / "contexts")
    return folder


def test_the_policys_interfaces_are_for_others_to_use(policy: Path) -> None:
    assert (policy / "site.pp").stat().st_size > 0


def test_the_daemon_is_told_of_arrivals(policy: Path) -> None:
    """A watch has a permission of its own. Without it, files wait for the next scan, and each try is a denial."""
    rules = (policy / "tmp/hyper2kvm.tmp").read_text()
    assert re.search(r"^\s*allow hyper2kvmd_t hyper2kvm_spool_t:dir watch;", rules, re.MULTILINE)


@pytest.mark.parametrize(("path", "kind"), LABELS)
def test_files_are_labelled(policy: Path, path: str, kind: str) -> None:
    said = sh("selabel_lookup", "-b", "file", "-f", policy / "contexts", "-k", path, "-t", kind)
    assert f":object_r:{LABELS[path, kind]}:s0" in said


# ---------------------------------------------------------------- udev


@pytest.fixture
def rules() -> Iterator[None]:
    """Where udev looks first; no daemon is told."""
    RULES.mkdir(parents=True, exist_ok=True)
    copies = [Path(shutil.copy(rule, RULES)) for rule in (PACKAGING / "udev").iterdir()]
    yield
    for copy in copies:
        copy.unlink()
    with suppress(OSError):  # another's rules lie there
        RULES.rmdir()


def complaints() -> list[str]:
    """What udev finds wrong with any rule of this host that bears our name."""
    said = tool("udevadm", "test", "/sys/class/mem/null")
    return [line for line in (said.stdout + said.stderr).splitlines() if re.search(r"hyper2kvm\.rules:\d", line)]


def test_udev_understands_its_rules(rules: None) -> None:
    assert complaints() == []
    with (RULES / "61-hyper2kvm.rules").open("a") as file:
        file.write('KERNL=="nbd*"\n')
    assert len(complaints()) == 1


def test_udevs_own_rules_lie_between_ours() -> None:
    names = sorted(path.name for path in (PACKAGING / "udev").iterdir())
    assert names[0] < "60-block.rules" < "60-persistent-storage.rules" < names[1]

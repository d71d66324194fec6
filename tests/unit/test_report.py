"""The readable report says what a guest said, and lets it say nothing more."""

from __future__ import annotations

import json

from hyper2kvmd.daemon.pages.reported import of_report
from hyper2kvmd.model.guest import Change, DriverFileFact, Guest, Nic, WindowsAdapter, WindowsDriver, WindowsFacts
from hyper2kvmd.model.results import Verdict
from hyper2kvmd.report import Report, markdown
from tests.support.reports import CONCERN, PLAN, made

EVIL_PATH = "/boot/![x](http://evil/)\n# Evidence"


def test_a_guest_cannot_speak_in_the_reports_own_voice() -> None:
    diff = "-```\n+````\n+# Evidence\n"
    guest = Guest(
        nics=(Nic(name="ens192", mac="52:54:00:00:00:01", mac_is_new=True, network="<lan>"),),
        os_name="<b>evil</b> | good",
        changes=(Change(fix="fstab", path=EVIL_PATH, summary="<img>", diff=diff),),
        warnings=("a\n## Evidence\n", "`<b>`"),
    )
    verdict = Verdict(
        level="boot", evidence=("<i> asked for a login",), boot_seconds=31.25, console_tail=("```", "<i> login:")
    )
    report = made(guest, verdict)
    assert Report.model_validate_json(report.model_dump_json()) == report
    lines = markdown(report).splitlines()
    assert "| name | web01 (source: &lt;u&gt;\\|\\`evil\\`) |" in lines
    assert "| CPUs | 2 (default) |" in lines and "| Secure Boot | off |" in lines
    assert "| 1 | yes | virtio | 512 B | web01.qcow2 |" in lines
    assert "| 1 | 52:54:00:00:00:01 (new) | virtio | ens192 | &lt;lan&gt; -&gt; default |" in lines
    assert "| System | &lt;b&gt;evil&lt;/b&gt; \\| good |" in lines
    assert "- &lt;i&gt; asked for a login" in lines
    assert "### /boot/\\!\\[x\\](http\\://evil/) \\# Evidence" in lines
    assert "&lt;img&gt; (fstab)" in lines
    assert "- \\`&lt;i&gt;\\` has two .vmx \\[description-unclear\\]" in lines
    assert "- a \\#\\# Evidence" in lines and "- \\`&lt;b&gt;\\`" in lines
    assert "Time to boot: 31.2 s." in lines
    assert "\n".join(("````", "```", "<i> login:", "````")) in "\n".join(lines)
    start = lines.index("`````diff")
    assert lines[start + 1 : start + 5] == ["-```", "+````", "+# Evidence", "`````"]


def test_the_report_of_windows_has_drivers_adapters_and_the_first_boot() -> None:
    driver = WindowsDriver(
        name="viostor",
        version="100.1.2.3",
        signer="Evil | Corp",
        note="test signature",
        files=(DriverFileFact(name="viostor.sys", sha256="ab" * 32),),
    )
    adapter = WindowsAdapter(
        name="<b>Ethernet0",
        guid="{1}",
        mac="00:50:56:01:02:03",
        device="PCI\\VEN_15AD",
        dhcp=False,
        addresses=("192.0.2.10/24",),
        gateways=("192.0.2.1",),
        name_servers=("192.0.2.53",),
    )
    facts = WindowsFacts(
        build=20348,
        edition="ServerStandard",
        version="21H2",
        server=True,
        control_set="ControlSet001",
        system_root="C:\\Windows",
        drivers=(driver,),
        adapters=(adapter,),
        first_boot=("the card gets its address",),
    )
    lines = markdown(made(Guest(family="windows", os_name="Windows Server 2022", windows=facts))).splitlines()
    assert "| Windows | build 20348, 21H2, ServerStandard, C:\\\\Windows, ControlSet001 |" in lines
    assert "| viostor | 100.1.2.3 | Evil \\| Corp | test signature |" in lines
    assert f"| viostor.sys | viostor | {'ab' * 32} |" in lines
    shown = "192.0.2.10/24; gateway 192.0.2.1; DNS 192.0.2.53"
    assert f"| &lt;b&gt;Ethernet0 | 00:50:56:01:02:03 | {shown} | PCI\\\\VEN_15AD |" in lines
    assert lines[lines.index("## First boot") + 2] == "- the card gets its address"


def test_the_report_says_when_windows_gets_nothing() -> None:
    facts = WindowsFacts(build=9600, edition="", version="", server=False, control_set="C", system_root="C:\\Windows")
    lines = markdown(made(Guest(family="windows", windows=facts))).splitlines()
    assert lines[lines.index("## Drivers") + 2] == "None were added."
    assert lines[lines.index("## First boot") + 2].startswith("Nothing is left to do")


def test_what_is_left_comes_first_with_its_commands() -> None:
    facts = WindowsFacts(
        build=9600,
        edition="",
        version="",
        server=False,
        control_set="C",
        system_root="C:\\Windows",
        by_hand=("Give the card <b>: `netsh set NAME | x`",),
        agent=DriverFileFact(name="qemu-ga.msi", sha256="cd" * 32),
    )
    diff = "[HKEY]\n"
    changes = (
        Change(fix="a", path="SYSTEM", summary="one", diff=diff),
        Change(fix="b", path="x.sys", summary="a driver", diff="10 bytes", size=1 << 20, sha256="ab" * 32),
        Change(fix="c", path="SYSTEM", summary="two", diff=diff),
    )
    guest = Guest(family="windows", windows=facts, changes=changes, concerns=(CONCERN,))
    lines = markdown(made(guest)).splitlines()
    sections = [line for line in lines if line.startswith("## ")]
    assert sections[:4] == ["## Warnings", "## To do by hand", "## First boot", "## Machine"]
    assert sum("description-unclear" in line for line in lines) == 1, "plan and guest have the same concern"
    assert "1. Give the card &lt;b&gt;: `netsh set NAME \\| x`" in lines
    assert not any(line.startswith("Nothing is left to do") for line in lines)
    assert lines.count("### SYSTEM") == 1 and lines.count("```diff") == 2
    assert f"| x.sys | 1.0 MiB | {'ab' * 32} | a driver |" in lines and "10 bytes" not in lines
    assert f"| qemu-ga.msi | QEMU's guest agent | {'cd' * 32} |" in lines


def test_the_report_begins_with_the_number_of_warnings() -> None:
    quiet = made(Guest())
    assert markdown(quiet.with_changes(plan=PLAN)).splitlines()[2] == "Migrated without warnings."
    assert markdown(quiet).splitlines()[2] == "Migrated with 1 warning."
    guest = Guest(warnings=("the clock is wrong", "the clock is wrong"), concerns=(CONCERN,))
    assert markdown(made(guest)).splitlines()[2] == "Migrated with 2 warnings."


def test_the_page_of_a_job_has_the_report_but_no_content_no_paths_and_no_identities() -> None:
    card, uuid = Nic(name="ens192", mac="52:54:00:00:00:01", network="lan"), "11111111-2222-3333-4444-555555555555"
    step = "Give the card 52:54:00:00:00:01 the address 192.0.2.21/24: `netsh`"
    facts = WindowsFacts(
        build=9600,
        edition="",
        version="",
        server=False,
        control_set="C",
        system_root="C:\\Windows",
        drivers=(WindowsDriver(name="vioscsi", version="100.9", signer="Red Hat"),),
        adapters=(WindowsAdapter(name="Card", guid="{1}", mac=card.mac, device="e1000", dhcp=False),),
        first_boot=(step,),
        by_hand=(step,),
    )
    guest = Guest(
        family="windows",
        os_name="Windows 8.1",
        hostname="web01",
        nics=(card,),
        windows=facts,
        fstab_before="hidden",
        changes=(Change(fix="drivers", path="SYSTEM", summary="vioscsi starts", diff="hidden"),),
    )
    verdict = Verdict(level="boot", evidence=("it asked for a login",), boot_seconds=31.25, console_tail=("hidden",))
    report = made(guest, verdict)
    report = report.with_changes(hardware=report.hardware.with_changes(uuid=uuid, serial="hidden", genid=uuid))
    shown = of_report(report.model_dump_json().encode())
    assert shown is not None
    text = shown.model_dump_json()
    assert [one for one in ("hidden", card.mac, "192.0.2", uuid, '"/', "/o", "/c") if one in text] == []
    assert dict(shown.facts)["CPUs"] == "2 (default)" and dict(shown.facts)["host name"] == "web01"
    assert {table.title: table.rows for table in shown.tables} == {
        "Disks": (("1", "yes", "virtio", "512 B", "web01.qcow2"),),
        "Network cards": (("1", "virtio", "ens192", "lan -> default"),),
        "Images": (("web01.raw", "raw", "512 B", "512 B", "not computed (checksum: true)", "sparse: "),),
        "Drivers": (("vioscsi", "100.9", "Red Hat", ""),),
    }
    assert shown.evidence == ("it asked for a login", "the guest booted in 31.2 s")
    assert (shown.by_hand, shown.written_bytes, shown.more) == (1, 512, 0)


def test_a_report_of_another_version_is_shown_in_part() -> None:
    parts = made(Guest(os_name="Debian 12")).model_dump(mode="json")
    text = json.dumps({name: parts[name] for name in ("guest", "verdict")})
    shown = of_report(text.encode())
    assert shown is not None and shown.facts == (("guest", "Debian 12"),) and shown.written_bytes is None
    assert of_report(b"{}") is None

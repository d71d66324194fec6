"""INF files: text in any encoding, what they demand of Windows, and what their installation does."""

from __future__ import annotations

import uuid
from datetime import date

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.windows.drivers.inf import (
    REG_BINARY,
    REG_DWORD,
    REG_EXPAND_SZ,
    REG_MULTI_SZ,
    REG_SZ,
    CopiedFile,
    Decoration,
    Inf,
    Installation,
    RegistryLine,
    encoded,
    parse_decoration,
    parse_inf,
)
from hyper2kvmd.guest.windows.drivers.inf_text import LARGEST, LONGEST_LINE, MOST_LINES, read_text, split
from hyper2kvmd.guest.windows.drivers.releases import WindowsTarget, folder_rank
from tests.support.virtio_win import FILES, Stamp, inf

SERVER_2019 = WindowsTarget(17763, True, "amd64")
WINDOWS_10 = WindowsTarget(19045, False, "amd64")
HEAD = '[Version]\nSignature="$Windows NT$"\nClassGuid={4D36E97B-E325-11CE-BFC1-08002BE10318}\n'


def read(text: str) -> Inf:
    return parse_inf(text.encode(), "x.inf")


def refused(data: bytes) -> str:
    with pytest.raises(MigrationFailed) as caught:
        parse_inf(data, "x.inf")
    assert caught.value.code == "virtio-win-unreadable"
    return caught.value.message


# ---------------------------------------------------------------- text


@pytest.mark.parametrize(
    "data",
    [
        "[A]\nk = Müller\n".encode(),
        "[A]\r\nk = Müller\r\n".encode("utf-8-sig"),
        "[A]\rk = Müller\r".encode("utf-16"),
        b"\xfe\xff" + "[A]\nk = Müller\n".encode("utf-16-be"),
        "[A]\nk = Müller\n".encode("utf-16-le"),
        "[A]\nk = Müller\n".encode("cp1252"),
    ],
    ids=["utf-8", "utf-8 with mark", "utf-16", "utf-16 big-endian", "utf-16 without mark", "ansi"],
)
def test_text_in_any_encoding(data: bytes) -> None:
    assert read_text(data, "x.inf").value("a", "k") == "Müller"


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("a, b ,c", ["a", "b", "c"]),
        ("a,,c,", ["a", "", "c", ""]),
        ('"a, b", c', ["a, b", "c"]),
        ('"say ""yes""", b', ['say "yes"', "b"]),
        ('1 = %DiskId1%,,,""', ["1 = %DiskId1%", "", "", ""]),
        ('"open, a', ["open, a"]),
        ('x"1,2"y, z', ["x1,2y", "z"]),
        ("", []),
    ],
)
def test_fields(text: str, fields: list[str]) -> None:
    assert split(text, "x.inf") == fields


def test_lines_comments_and_strings() -> None:
    text = read_text(
        b'; [None]\nlost = 1\n[ Main ] ; title\nKey = "a;b", %Name% ; "c"\nlong = one, \\\n  two\n'
        b"[main]\nlater = %%x%%, %no%\n"
        b'[Strings]\nname = "Red Hat, Inc." ; not %self%\n[Strings.0409]\nname = other\nonly = "English"\n',
        "x.inf",
    )
    assert list(text.entries("MAIN")) == [
        ("Key", ["a;b", "Red Hat, Inc."]),
        ("long", ["one", "two"]),
        ("later", ["%x%", "%no%"]),
    ]
    assert text.strings["only"] == "English"


NO_INF = {
    "too large": (b"[A]\n" + b";" * LARGEST, "more than 524288"),
    "too many lines": (b"\n" * (MOST_LINES + 1), "lines"),
    "a line without end": (b"[A]\n" + b"k = a, \\\n" * LONGEST_LINE, "a line of this INF has more than"),
    "too many sections": (b"".join(b"[%d]\n" % number for number in range(3000)), "sections"),
    "too many fields": (HEAD.encode() + b"Provider = " + b"a," * 600, "fields"),
    "a text that grows": (
        HEAD.encode() + b"Provider = " + b"%s%" * 1000 + b"\n[Strings]\ns = " + b"x" * 4000,
        "a field of this INF",
    ),
    "NUL": (b"[A]\nk=\0\n", "NUL"),
    "half a character": (b"\xff\xfe[", "not valid UTF-16"),
    "of Windows 98": (b"[Version]\nSignature=$Chicago$\n", "no such signature"),
    "no class": (b'[Version]\nSignature="$Windows NT$"\nClassGuid=12\n', "ClassGuid"),
    "a catalogue elsewhere": (HEAD.encode() + b"CatalogFile=..\\x.cat\n", "not a plain file name"),
}


@pytest.mark.parametrize(("data", "fact"), NO_INF.values(), ids=NO_INF)
def test_what_is_no_inf(data: bytes, fact: str) -> None:
    assert fact in refused(data)


def test_more_ids_than_any_driver_has() -> None:
    found = read(HEAD + "[Manufacturer]\nx = M, NTamd64\n[M.NTamd64]\n" + "d = i" + ", PCI\\A\nd = i, PCI\\A" * 2001)
    with pytest.raises(MigrationFailed, match="more than 2000 hardware ids"):
        found.models(SERVER_2019)


# ---------------------------------------------------------------- decorations


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("NTamd64", Decoration(architecture="amd64")),
        ("NTamd64.6.1", Decoration(6, 1, architecture="amd64")),
        ("ntAMD64.10.0...17763", Decoration(10, 0, 17763, architecture="amd64")),
        ("NTamd64.10.0.3", Decoration(10, 0, kind=3, architecture="amd64")),
        ("NTx86.6.2.0x0000001", Decoration(6, 2, kind=1, architecture="x86")),
        ("NT.6.0", Decoration(6)),
        ("NTamd64.10.0..0x80.14393", Decoration(10, 0, 14393, architecture="amd64", suite=0x80)),
        ("amd64", None),
        ("NTamd64.10.0.1.0.1.1", None),
    ],
)
def test_a_decoration(written: str, found: Decoration | None) -> None:
    assert parse_decoration(written) == found


@pytest.mark.parametrize(
    ("written", "target", "fits"),
    [
        ("NTamd64.10.0...17763", SERVER_2019, True),
        ("NTamd64.10.0...17764", SERVER_2019, False),
        ("NTamd64.6.3", SERVER_2019, True),
        ("NTamd64.10.0", WindowsTarget(9600, True, "amd64"), False),
        ("NTamd64.6.1", WindowsTarget(7601, True, "amd64"), True),
        ("NTamd64.6.2", WindowsTarget(7601, True, "amd64"), False),
        ("NTamd64.10.0.1", SERVER_2019, False),
        ("NTamd64.10.0.1", WINDOWS_10, True),
        ("NTamd64.10.0.3", SERVER_2019, True),
        ("NTamd64.10.0.2", SERVER_2019, True),
        ("NTx86.10.0", SERVER_2019, False),
        ("NTarm64.10.0", SERVER_2019, False),
        ("NT.10.0", SERVER_2019, False),
        ("NT.10.0", WindowsTarget(19045, False, "x86"), True),
        ("NTamd64.10.0..0x80", SERVER_2019, False),
    ],
)
def test_a_decoration_fits_a_release(written: str, target: WindowsTarget, fits: bool) -> None:
    found = parse_decoration(written)
    assert found is not None
    assert found.fits(target) == fits


def test_the_section_that_demands_most_has_the_models() -> None:
    found = read(
        HEAD + "[Manufacturer]\nRed Hat = M, NTx86, NTamd64.6.1, NTamd64.10.0, NTamd64.10.0...99999\n"
        "[M.NTx86]\nd = i, PCI\\A\n[M.NTamd64.6.1]\nd = i, PCI\\B\n[M.NTamd64.10.0]\nd = i, pci\\c, PCI\\D\n"
        "[M.NTamd64.10.0...99999]\nd = i, PCI\\E\n"
    )
    decoration, models = found.models(SERVER_2019) or (None, ())
    assert decoration == Decoration(10, 0, architecture="amd64")
    assert [(model.manufacturer, model.ids) for model in models] == [("Red Hat", ("PCI\\C", "PCI\\D"))]
    assert found.models(WindowsTarget(3790, True, "amd64")) is None


def test_folders_of_virtio_win_are_ranked() -> None:
    folders = ["2k25", "w11", "w10", "2k22", "2k19", "2k16", "2k12R2", "drivers"]
    ranked = sorted(folders, key=lambda folder: folder_rank(f"viostor/{folder}/amd64/viostor.inf", SERVER_2019))
    assert ranked == ["w11", "2k22", "2k25", "drivers", "w10", "2k12R2", "2k16", "2k19"]


# ---------------------------------------------------------------- the drivers of virtio-win


@pytest.mark.parametrize("driver", FILES)
def test_a_driver_of_virtio_win(driver: str) -> None:
    found = read(inf(driver))
    name = FILES[driver]
    assert (found.provider, found.version, found.date) == ("Red Hat, Inc.", (100, 90, 104, 21500), date(2022, 1, 12))
    assert found.catalog.lower() == f"{name}.cat"
    _, models = found.models(SERVER_2019) or (None, ())
    assert len({one for model in models for one in model.ids}) == 4
    installation = found.installation(models[0], SERVER_2019)
    assert installation.files == (CopiedFile(f"{name}.sys", f"{name}.sys", 12),)
    assert installation.service.binary in installation.files
    assert installation.service.is_boot_start == (driver in ("viostor", "vioscsi"))


def test_the_whole_installation_of_a_disk_driver() -> None:
    found = read(inf("viostor"))
    assert found.class_guid == uuid.UUID("4D36E97B-E325-11CE-BFC1-08002BE10318")
    assert found.lockdown
    _, models = found.models(SERVER_2019) or (None, ())
    installation = found.installation(models[0], SERVER_2019)
    service = installation.service
    assert (service.name, service.type, service.start, service.error_control) == ("viostor", 1, 0, 1)
    assert (service.group, service.display_name, service.wdf_version) == ("SCSI miniport", "", "")
    assert service.registry == (
        RegistryLine("Parameters\\PnpInterface", "5", REG_DWORD, b"\1\0\0\0"),
        RegistryLine("Parameters", "BusType", REG_DWORD, b"\1\0\0\0"),
    )
    assert service.events == (
        RegistryLine("", "EventMessageFile", REG_EXPAND_SZ, encoded("%SystemRoot%\\System32\\IoLogMsg.dll")),
        RegistryLine("", "TypesSupported", REG_DWORD, b"\7\0\0\0"),
    )
    assert RegistryLine("Interrupt Management", "", None, b"") in installation.device
    assert installation.section == "scsi_inst"


def test_a_decorated_installation_with_the_framework() -> None:
    found = read(inf("vioserial"))
    _, models = found.models(SERVER_2019) or (None, ())
    installation = found.installation(models[0], SERVER_2019)
    assert installation.section == "VirtioSerial_Device.NT"
    assert installation.service.wdf_version == "1.15"
    assert installation.service.display_name == "%VirtioSerial.ServiceDesc%"


def test_a_driver_that_stays_in_the_store() -> None:
    found = read(inf("viostor", Stamp(decoration="amd64.10.0...22000", dirid=13)))
    windows_11 = WindowsTarget(22631, False, "amd64")
    _, models = found.models(windows_11) or (None, ())
    assert found.installation(models[0], windows_11).service.binary == CopiedFile("viostor.sys", "viostor.sys", 13)
    assert found.models(SERVER_2019) is None


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("HKR,,N,0x10000,a,b", (REG_MULTI_SZ, encoded("a\0b\0"))),
        ("HKR,,N,1,01,ff", (REG_BINARY, b"\1\xff")),
        ('HKR,,N,,"0"', (REG_SZ, encoded("0"))),
        ("HKR,,N,0x00010001,4294967295", (REG_DWORD, b"\xff\xff\xff\xff")),
        ("HKR,,N", (REG_SZ, encoded(""))),
        ("HKLM,Software,N,,x", None),
        ("HKR,,N,4", None),
        ("HKR,,N,0x50001,1", None),
        ("HKR,,N,1,xyz", None),
        ("HKR,,N,0x10001,many", None),
    ],
)
def test_a_line_of_addreg(line: str, found: tuple[int, bytes] | None) -> None:
    text = inf("viostor").replace('HKR, "Parameters", "BusType", %REG_DWORD%, 0x00000001', line)
    parsed = read(text)
    _, models = parsed.models(SERVER_2019) or (None, ())
    lines = parsed.installation(models[0], SERVER_2019).service.registry[1:]
    assert [(one.type, one.data) for one in lines if one.name == "N"] == ([found] if found else [])


@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        ("viostor.sys,,,2", "..\\viostor.sys,,,2", "not a plain file name"),
        ("viostor.sys,,,2", "viostor.sys,../evil.sys,,2", "not a plain file name"),
        ("AddService = viostor,", "AddService = a\\b,", "not a valid name"),
        ("ServiceBinary  = %12%\\viostor.sys", "ServiceBinary = %12%\\other.sys", "does not copy"),
        ("Files_Driver = 12", "Files_Driver = 52", "to the folder 52, which is not supported"),
        ("StartType      = %SERVICE_BOOT_START%", "", "no starttype"),
        ("[scsi_inst.Services]", "[elsewhere]", "no service"),
        ("scsi_inst, PCI", "nothing, PCI", "no usable section nothing"),
    ],
)
def test_an_installation_that_cannot_be(old: str, new: str, fact: str) -> None:
    text = inf("viostor")
    assert old in text
    parsed = read(text.replace(old, new))
    _, models = parsed.models(SERVER_2019) or (None, ())
    with pytest.raises(MigrationFailed) as caught:
        parsed.installation(models[0], SERVER_2019)
    assert (caught.value.code, fact in caught.value.message) == ("virtio-win-unreadable", True)


def installed(more: str) -> Installation:
    """The first device of a disk driver, whose INF has more lines."""
    found = read(inf("viostor") + more)
    models = found.models(SERVER_2019)
    assert models is not None
    return found.installation(models[1][0], SERVER_2019)


@pytest.mark.parametrize(
    ("section", "key", "line", "fact"),
    [
        ("scsi_inst", "CopyFiles", "{}.sys", "500 files"),
        ("scsi_inst.HW", "AddReg", "HKR,,{},,x", "2000 registry values"),
    ],
    ids=["files", "registry"],
)
def test_no_list_is_longer_than_that_of_any_driver(section: str, key: str, line: str, fact: str) -> None:
    lines = "\n".join(line.format(number) for number in range(500))
    lists = "".join(f"[list{number}]\n{lines}\n" for number in range(6))
    with pytest.raises(MigrationFailed) as caught:
        installed(f"\n[{section}]\n{key}={','.join(f'list{number}' for number in range(6))}\n{lists}")
    assert fact in caught.value.message and caught.value.code == "virtio-win-unreadable"


def test_a_list_counts_once() -> None:
    """So a small INF cannot ask for the same lines a million times."""
    names = ",".join(["viostor_Files_Driver", "VIOSTOR_files_driver"] * 60)
    assert installed(f"\n[scsi_inst]\nCopyFiles={names}\n") == installed("")


def test_strings_cannot_make_a_line_much_longer() -> None:
    """512 fields, each with the longest string."""
    text = read_text(f"[A]\nk={','.join(['%s%'] * 500)}\n[Strings]\ns={'x' * 4000}\n".encode(), "x.inf")
    with pytest.raises(MigrationFailed) as caught:
        text.fields(text.lines("a")[0])
    assert "65536 characters" in caught.value.message

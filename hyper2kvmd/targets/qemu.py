"""QEMU as a target: a POSIX shell script beside the images that starts the machine on any host.

The boot order is on the devices, since QEMU rejects it on drives. UEFI variables and the state of the TPM stay beside
the disks.
"""

from __future__ import annotations

from collections.abc import Iterator

from hyper2kvmd.model.machine import Hardware
from hyper2kvmd.targets.machine_files import Form, NewMachine
from hyper2kvmd.targets.shell import BEGIN, PRELUDE, command, one_line, script, word

NIC_DEVICES = {"virtio": "virtio-net-pci", "e1000e": "e1000e"}
SATA_PORTS = 6
"""Of one controller."""
FIRST_PORT_SLOT, FUNCTIONS = 0x10, 8
"""Where the PCI Express root ports are: eight of them share a slot, so that 26 disks and the cards have room."""

HEAD = """
#!/bin/sh
# {description}
#
# Usage: sh {name}.sh [--dry-run] [QEMU OPTION]...
#   --dry-run    print the commands, run nothing
# Environment:
#   QEMU         the emulator; default: qemu-system-x86_64
#   ACCEL        the accelerator, kvm or tcg; default: kvm if this host has it
"""
HEAD_UEFI = """
#   OVMF_CODE    the UEFI firmware; default: this host's
#   OVMF_VARS    with OVMF_CODE: the template of its variables
"""
ACCELERATOR = """
if [ -z "${ACCEL-}" ]; then
    ACCEL=tcg
    [ ! -w /dev/kvm ] || ACCEL=kvm
fi
"""
UEFI = """
# UEFI: this host's firmware, and the machine's own variables, which are made once
VARS={variables}
find_firmware() {{
    while read -r code template; do
        if [ ! -r "$code" ] || [ ! -r "$template" ]; then
            continue
        fi
        # variables of an earlier start only fit a firmware of the same size
        if [ -e "$VARS" ] && [ "$(wc -c <"$VARS")" -ne "$(wc -c <"$template")" ]; then
            continue
        fi
        OVMF_CODE=$code
        OVMF_VARS=$template
        return 0
    done <<'PLACES'
{places}
PLACES
    return 1
}}
if [ -z "${{OVMF_CODE-}}" ]; then
    find_firmware || fail '{missing}'
fi
if [ ! -e "$VARS" ] && [ -z "${{OVMF_VARS-}}" ]; then
    fail 'OVMF_VARS: not set. Set it to the template that belongs to OVMF_CODE.'
fi
{begin}
if [ ! -e "$VARS" ]; then
    run cp -- "$OVMF_VARS" "$VARS.partial"
    run chmod u+w "$VARS.partial"
    run mv -- "$VARS.partial" "$VARS"
fi
# QEMU writes a comma in a value as two
OVMF_CODE=$(printf '%s' "$OVMF_CODE" | sed 's/,/,,/g')
"""
MISSING = (
    "{kind} for virtual machines: not found. Install the package ovmf or edk2-ovmf, or set OVMF_CODE and OVMF_VARS."
)
PLACES = (
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/qemu/ovmf-x86_64-4m-code.bin", "/usr/share/qemu/ovmf-x86_64-4m-vars.bin"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
)
"""Debian and Ubuntu, Fedora and RHEL, Arch, openSUSE, older Debian: firmware without Secure Boot."""
SECURE_PLACES = (
    ("/usr/share/OVMF/OVMF_CODE_4M.ms.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd", "/usr/share/edk2/ovmf/OVMF_VARS.secboot.fd"),
    ("/usr/share/qemu/ovmf-x86_64-smm-ms-code.bin", "/usr/share/qemu/ovmf-x86_64-smm-ms-vars.bin"),
    ("/usr/share/OVMF/OVMF_CODE.ms.fd", "/usr/share/OVMF/OVMF_VARS.ms.fd"),
)
"""The same with Secure Boot, and Microsoft's keys in the variables. Arch has no such template."""
TPM = """
# TPM 2.0: swtpm ends with the machine, and its state stays
TPM={folder}
run mkdir -p "$TPM"
run chmod 700 "$TPM"
run rm -f "$TPM/socket"
start_tpm() {{
    swtpm socket --tpm2 --tpmstate "dir=$TPM" --ctrl "type=unixio,path=$TPM/socket" --terminate &
    trap 'kill $! 2>/dev/null || true' EXIT
    while [ ! -S "$TPM/socket" ]; do
        kill -0 $! 2>/dev/null || fail 'swtpm: did not start. Install the package swtpm, and start the machine once.'
        sleep 1
    done
}}
if [ -n "$dry_run" ]; then
    echo "$(show swtpm socket --tpm2 --tpmstate "dir=$TPM" --ctrl "type=unixio,path=$TPM/socket" --terminate) &"
else
    start_tpm
fi
"""
HYPERV = """
# Hyper-V's interfaces, which Windows uses and only KVM has
CPU=max
if [ "$ACCEL" = kvm ]; then
    CPU=max,hv-relaxed,hv-vapic,hv-spinlocks=0x1fff,hv-vpindex,hv-runtime,hv-synic,hv-stimer,hv-frequencies,hv-time
fi
"""


def start_script(machine: NewMachine) -> str:
    """The script that starts the machine."""
    hardware, name = machine.hardware, machine.name
    uefi = hardware.firmware == "uefi"
    head = HEAD.format(description=one_line(machine.description), name=name)
    return script(
        head.rstrip("\n") + HEAD_UEFI.rstrip("\n") * uefi,
        PRELUDE,
        ACCELERATOR,
        _uefi(hardware, name) if uefi else BEGIN,
        TPM.format(folder=f"{name}.tpm") if hardware.tpm else "",
        HYPERV if hardware.hyperv else "",
        "set -- " + command(['"${QEMU:-qemu-system-x86_64}"', *_options(machine), '"$@"']),
        'run "$@"',
    )


def _uefi(hardware: Hardware, name: str) -> str:
    places = SECURE_PLACES if hardware.secure_boot else PLACES
    kind = "UEFI firmware with Secure Boot" if hardware.secure_boot else "UEFI firmware"
    return UEFI.format(
        variables=f"{name}_VARS.fd",
        begin=BEGIN.strip(),
        places="\n".join(" ".join(pair) for pair in places),
        missing=MISSING.format(kind=kind),
    )


def _options(machine: NewMachine) -> Iterator[str]:
    """QEMU's options as shell text, one group a line."""
    hardware = machine.hardware
    smm = ",smm=on" if hardware.secure_boot else ""
    yield f"-name {machine.name} -nodefaults"
    yield f'-machine {hardware.machine}{smm},vmport=off,accel="$ACCEL"'
    yield '-cpu "$CPU"' if hardware.hyperv else "-cpu max"
    yield f"-m {hardware.memory} -smp {_processors(hardware)}"
    yield f"-rtc base={hardware.rtc}"
    yield from _identity(hardware)
    if hardware.firmware == "uefi":
        yield from ("-global driver=cfi.pflash01,property=secure,value=on",) if hardware.secure_boot else ()
        yield '-drive if=pflash,unit=0,format=raw,readonly=on,file="$OVMF_CODE"'
        yield '-drive if=pflash,unit=1,format=raw,file="$VARS"'
    yield "-vga std -serial mon:stdio"
    if hardware.tpm:
        yield '-chardev socket,id=tpm,path="$TPM/socket" -tpmdev emulator,id=tpm,chardev=tpm -device tpm-crb,tpmdev=tpm'
    yield from _devices(machine)


def _processors(hardware: Hardware) -> str:
    if hardware.cores_per_socket is None:
        return str(hardware.vcpus)
    return f"{hardware.vcpus},sockets={hardware.sockets},cores={hardware.cores_per_socket},threads=1"


def _identity(hardware: Hardware) -> Iterator[str]:
    if hardware.uuid:
        yield f"-uuid {hardware.uuid}"
    if hardware.serial:
        yield f"-smbios {word(f'type=1,serial={_value(hardware.serial)}')}"
    if hardware.genid:
        yield f"-device vmgenid,guid={hardware.genid}"


def _devices(machine: NewMachine) -> Iterator[str]:
    """Backends, and the devices on them."""
    hardware = machine.hardware
    for number, (backend, device) in enumerate(_pci_devices(machine)):
        if "q35" in hardware.machine:
            yield f"{_root_port(number)} {backend}-device {device},bus=port{number}"
        else:
            yield f"{backend}-device {device}"
    if "agent" in hardware.extras:
        yield f"-chardev socket,id=agent,path={machine.name}.agent,server=on,wait=off"
        yield "-device virtserialport,bus=serial.0,chardev=agent,name=org.qemu.guest_agent.0"
    if "usb" in hardware.extras:
        yield "-device usb-tablet,bus=usb.0"
    for disk in range(len(machine.disks) if hardware.disk_bus == "sata" else 0):
        port = f"bus=sata{disk // SATA_PORTS}.{disk % SATA_PORTS}"
        yield f"{_drive(machine, disk)}-device ide-hd,drive=disk{disk},{port}{_boots(hardware, disk)}"
    for disk in range(len(machine.disks) if hardware.disk_bus == "scsi" else 0):
        place = f"bus=scsi.0,scsi-id=0,lun={disk}"
        yield f"{_drive(machine, disk)}-device scsi-hd,drive=disk{disk},{place}{_boots(hardware, disk)}"
    for drive in range(hardware.cdroms):
        yield f"-device ide-cd,bus=optical.{drive}"


def _pci_devices(machine: NewMachine) -> Iterator[tuple[str, str]]:
    """In libvirt's order: each device and the backend in front of it."""
    hardware, disks = machine.hardware, len(machine.disks)
    for number, nic in enumerate(hardware.nics):
        backend = f"user,id=net{number}"
        if nic.network is not None:
            backend = word(f"bridge,id=net{number},br={_value(nic.network.removeprefix('bridge:'))}")
        yield f"-netdev {backend} ", f"{NIC_DEVICES[hardware.nic_model]},netdev=net{number},mac={nic.mac}"
    if "usb" in hardware.extras:
        yield "", "qemu-xhci,id=usb"
    if "agent" in hardware.extras:
        yield "", "virtio-serial-pci,id=serial"
    if hardware.disk_bus == "virtio":
        for number in range(disks):
            yield _drive(machine, number), f"virtio-blk-pci,drive=disk{number}{_boots(hardware, number)}"
    elif hardware.disk_bus == "scsi":
        yield "", "virtio-scsi-pci,id=scsi"
    else:
        yield from (("", f"ich9-ahci,id=sata{number}") for number in range(-(-disks // SATA_PORTS)))
    if hardware.cdroms:
        yield "", "ich9-ahci,id=optical"
    if "balloon" in hardware.extras:
        yield "", "virtio-balloon-pci"
    if "rng" in hardware.extras:
        yield "-object rng-random,id=entropy,filename=/dev/urandom ", "virtio-rng-pci,rng=entropy"


def _drive(machine: NewMachine, number: int) -> str:
    """The disk by a relative name: the script changes to its own directory, so that no path has to be quoted."""
    file = f"file.driver=file,file.filename={machine.disks[number].path.name}"
    return f"-blockdev driver={machine.artifact.format},node-name=disk{number},discard=unmap,{file} "


def _boots(hardware: Hardware, disk: int) -> str:
    return ",bootindex=1" if disk == hardware.boot_disk else ""


def _root_port(number: int) -> str:
    slot, function = divmod(number, FUNCTIONS)
    shared = ",multifunction=on" if function == 0 else ""
    address = f"{FIRST_PORT_SLOT + slot:#x}.{function}{shared}"
    return f"-device pcie-root-port,id=port{number},chassis={number + 1},addr={address}"


def _value(text: str) -> str:
    """A value in QEMU's options, where a comma is written as two."""
    return text.replace(",", ",,")


QEMU = Form({".sh": start_script})

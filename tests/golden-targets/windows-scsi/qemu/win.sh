#!/bin/sh
# win: Windows Server 2012 R2, migrated by hyper2kvmd
#
# Usage: sh win.sh [--dry-run] [QEMU OPTION]...
#   --dry-run    print the commands, run nothing
# Environment:
#   QEMU         the emulator; default: qemu-system-x86_64
#   ACCEL        the accelerator, kvm or tcg; default: kvm if this host has it

set -eu
CDPATH='' cd -- "$(dirname -- "$0")"

fail() {
    printf '%s\n' "$1" >&2
    exit 1
}

# print a command that can be pasted into a shell
show() {
    for word; do
        printf "'%s' " "$(printf '%s' "$word" | sed "s/'/'\\\\''/g")"
    done
    echo
}

run() {
    if [ -n "$dry_run" ]; then
        show "$@"
    else
        "$@"
    fi
}

dry_run=
if [ "${1-}" = --dry-run ]; then
    dry_run=yes
    shift
fi

if [ -z "${ACCEL-}" ]; then
    ACCEL=tcg
    [ ! -w /dev/kvm ] || ACCEL=kvm
fi

[ -z "$dry_run" ] || show cd -- "$(pwd)"

# Hyper-V's interfaces, which Windows uses and only KVM has
CPU=max
if [ "$ACCEL" = kvm ]; then
    CPU=max,hv-relaxed,hv-vapic,hv-spinlocks=0x1fff,hv-vpindex,hv-runtime,hv-synic,hv-stimer,hv-frequencies,hv-time
fi

set -- "${QEMU:-qemu-system-x86_64}" \
    -name win -nodefaults \
    -machine q35,vmport=off,accel="$ACCEL" \
    -cpu "$CPU" \
    -m 8192 -smp 4,sockets=1,cores=4,threads=1 \
    -rtc base=utc \
    -vga std -serial mon:stdio \
    -device pcie-root-port,id=port0,chassis=1,addr=0x10.0,multifunction=on -netdev user,id=net0 -device virtio-net-pci,netdev=net0,mac=00:50:56:bb:00:01,bus=port0 \
    -device pcie-root-port,id=port1,chassis=2,addr=0x10.1 -device qemu-xhci,id=usb,bus=port1 \
    -device pcie-root-port,id=port2,chassis=3,addr=0x10.2 -device virtio-serial-pci,id=serial,bus=port2 \
    -device pcie-root-port,id=port3,chassis=4,addr=0x10.3 -device virtio-scsi-pci,id=scsi,bus=port3 \
    -device pcie-root-port,id=port4,chassis=5,addr=0x10.4 -device virtio-balloon-pci,bus=port4 \
    -chardev socket,id=agent,path=win.agent,server=on,wait=off \
    -device virtserialport,bus=serial.0,chardev=agent,name=org.qemu.guest_agent.0 \
    -device usb-tablet,bus=usb.0 \
    -blockdev driver=qcow2,node-name=disk0,discard=unmap,file.driver=file,file.filename=win.qcow2 -device scsi-hd,drive=disk0,bus=scsi.0,scsi-id=0,lun=0 \
    -blockdev driver=qcow2,node-name=disk1,discard=unmap,file.driver=file,file.filename=win-disk2.qcow2 -device scsi-hd,drive=disk1,bus=scsi.0,scsi-id=0,lun=1,bootindex=1 \
    "$@"

run "$@"

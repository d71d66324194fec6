#!/bin/sh
# web01: Debian GNU/Linux 12 (bookworm), migrated by hyper2kvmd
#
# Usage: sh web01.sh [--dry-run] [QEMU OPTION]...
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

set -- "${QEMU:-qemu-system-x86_64}" \
    -name web01 -nodefaults \
    -machine q35,vmport=off,accel="$ACCEL" \
    -cpu max \
    -m 2048 -smp 2 \
    -rtc base=utc \
    -vga std -serial mon:stdio \
    -device pcie-root-port,id=port0,chassis=1,addr=0x10.0,multifunction=on -netdev user,id=net0 -device virtio-net-pci,netdev=net0,mac=00:50:56:01:02:03,bus=port0 \
    -device pcie-root-port,id=port1,chassis=2,addr=0x10.1 -device qemu-xhci,id=usb,bus=port1 \
    -device pcie-root-port,id=port2,chassis=3,addr=0x10.2 -device virtio-serial-pci,id=serial,bus=port2 \
    -device pcie-root-port,id=port3,chassis=4,addr=0x10.3 -blockdev driver=qcow2,node-name=disk0,discard=unmap,file.driver=file,file.filename=web01.qcow2 -device virtio-blk-pci,drive=disk0,bootindex=1,bus=port3 \
    -device pcie-root-port,id=port4,chassis=5,addr=0x10.4 -device virtio-balloon-pci,bus=port4 \
    -device pcie-root-port,id=port5,chassis=6,addr=0x10.5 -object rng-random,id=entropy,filename=/dev/urandom -device virtio-rng-pci,rng=entropy,bus=port5 \
    -chardev socket,id=agent,path=web01.agent,server=on,wait=off \
    -device virtserialport,bus=serial.0,chardev=agent,name=org.qemu.guest_agent.0 \
    -device usb-tablet,bus=usb.0 \
    "$@"

run "$@"

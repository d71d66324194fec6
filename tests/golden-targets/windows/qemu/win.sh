#!/bin/sh
# win: Windows Server 2022, migrated by hyper2kvmd
#
# Usage: sh win.sh [--dry-run] [QEMU OPTION]...
#   --dry-run    print the commands, run nothing
# Environment:
#   QEMU         the emulator; default: qemu-system-x86_64
#   ACCEL        the accelerator, kvm or tcg; default: kvm if this host has it
#   OVMF_CODE    the UEFI firmware; default: this host's
#   OVMF_VARS    with OVMF_CODE: the template of its variables

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

# UEFI: this host's firmware, and the machine's own variables, which are made once
VARS=win_VARS.fd
find_firmware() {
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
/usr/share/OVMF/OVMF_CODE_4M.fd /usr/share/OVMF/OVMF_VARS_4M.fd
/usr/share/edk2/ovmf/OVMF_CODE.fd /usr/share/edk2/ovmf/OVMF_VARS.fd
/usr/share/edk2/x64/OVMF_CODE.4m.fd /usr/share/edk2/x64/OVMF_VARS.4m.fd
/usr/share/qemu/ovmf-x86_64-4m-code.bin /usr/share/qemu/ovmf-x86_64-4m-vars.bin
/usr/share/OVMF/OVMF_CODE.fd /usr/share/OVMF/OVMF_VARS.fd
PLACES
    return 1
}
if [ -z "${OVMF_CODE-}" ]; then
    find_firmware || fail 'UEFI firmware for virtual machines: not found. Install the package ovmf or edk2-ovmf, or set OVMF_CODE and OVMF_VARS.'
fi
if [ ! -e "$VARS" ] && [ -z "${OVMF_VARS-}" ]; then
    fail 'OVMF_VARS: not set. Set it to the template that belongs to OVMF_CODE.'
fi
[ -z "$dry_run" ] || show cd -- "$(pwd)"
if [ ! -e "$VARS" ]; then
    run cp -- "$OVMF_VARS" "$VARS.partial"
    run chmod u+w "$VARS.partial"
    run mv -- "$VARS.partial" "$VARS"
fi
# QEMU writes a comma in a value as two
OVMF_CODE=$(printf '%s' "$OVMF_CODE" | sed 's/,/,,/g')

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
    -rtc base=localtime \
    -drive if=pflash,unit=0,format=raw,readonly=on,file="$OVMF_CODE" \
    -drive if=pflash,unit=1,format=raw,file="$VARS" \
    -vga std -serial mon:stdio \
    -device pcie-root-port,id=port0,chassis=1,addr=0x10.0,multifunction=on -netdev user,id=net0 -device e1000e,netdev=net0,mac=00:50:56:bb:00:01,bus=port0 \
    -device pcie-root-port,id=port1,chassis=2,addr=0x10.1 -device qemu-xhci,id=usb,bus=port1 \
    -device pcie-root-port,id=port2,chassis=3,addr=0x10.2 -device ich9-ahci,id=sata0,bus=port2 \
    -device usb-tablet,bus=usb.0 \
    -blockdev driver=qcow2,node-name=disk0,discard=unmap,file.driver=file,file.filename=win.qcow2 -device ide-hd,drive=disk0,bus=sata0.0,bootindex=1 \
    -blockdev driver=qcow2,node-name=disk1,discard=unmap,file.driver=file,file.filename=win-disk2.qcow2 -device ide-hd,drive=disk1,bus=sata0.1 \
    "$@"

run "$@"

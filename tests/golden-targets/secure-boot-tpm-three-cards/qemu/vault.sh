#!/bin/sh
# vault: Red Hat Enterprise Linux 9.4, migrated by hyper2kvmd
#
# Usage: sh vault.sh [--dry-run] [QEMU OPTION]...
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
VARS=vault_VARS.fd
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
/usr/share/OVMF/OVMF_CODE_4M.ms.fd /usr/share/OVMF/OVMF_VARS_4M.ms.fd
/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd /usr/share/edk2/ovmf/OVMF_VARS.secboot.fd
/usr/share/qemu/ovmf-x86_64-smm-ms-code.bin /usr/share/qemu/ovmf-x86_64-smm-ms-vars.bin
/usr/share/OVMF/OVMF_CODE.ms.fd /usr/share/OVMF/OVMF_VARS.ms.fd
PLACES
    return 1
}
if [ -z "${OVMF_CODE-}" ]; then
    find_firmware || fail 'UEFI firmware with Secure Boot for virtual machines: not found. Install the package ovmf or edk2-ovmf, or set OVMF_CODE and OVMF_VARS.'
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

# TPM 2.0: swtpm ends with the machine, and its state stays
TPM=vault.tpm
run mkdir -p "$TPM"
run chmod 700 "$TPM"
run rm -f "$TPM/socket"
start_tpm() {
    swtpm socket --tpm2 --tpmstate "dir=$TPM" --ctrl "type=unixio,path=$TPM/socket" --terminate &
    trap 'kill $! 2>/dev/null || true' EXIT
    while [ ! -S "$TPM/socket" ]; do
        kill -0 $! 2>/dev/null || fail 'swtpm: did not start. Install the package swtpm, and start the machine once.'
        sleep 1
    done
}
if [ -n "$dry_run" ]; then
    echo "$(show swtpm socket --tpm2 --tpmstate "dir=$TPM" --ctrl "type=unixio,path=$TPM/socket" --terminate) &"
else
    start_tpm
fi

set -- "${QEMU:-qemu-system-x86_64}" \
    -name vault -nodefaults \
    -machine q35,smm=on,vmport=off,accel="$ACCEL" \
    -cpu max \
    -m 8192 -smp 8,sockets=1,cores=8,threads=1 \
    -rtc base=utc \
    -uuid 564d1d2a-9f0e-4a3b-8c55-0123456789ab \
    -device vmgenid,guid=0a1b2c3d-0000-4000-8000-00000000beef \
    -global driver=cfi.pflash01,property=secure,value=on \
    -drive if=pflash,unit=0,format=raw,readonly=on,file="$OVMF_CODE" \
    -drive if=pflash,unit=1,format=raw,file="$VARS" \
    -vga std -serial mon:stdio \
    -chardev socket,id=tpm,path="$TPM/socket" -tpmdev emulator,id=tpm,chardev=tpm -device tpm-crb,tpmdev=tpm \
    -device pcie-root-port,id=port0,chassis=1,addr=0x10.0,multifunction=on -netdev bridge,id=net0,br=lan -device virtio-net-pci,netdev=net0,mac=00:50:56:aa:00:01,bus=port0 \
    -device pcie-root-port,id=port1,chassis=2,addr=0x10.1 -netdev user,id=net1 -device virtio-net-pci,netdev=net1,mac=00:50:56:aa:00:02,bus=port1 \
    -device pcie-root-port,id=port2,chassis=3,addr=0x10.2 -netdev bridge,id=net2,br=dmz -device virtio-net-pci,netdev=net2,mac=00:50:56:aa:00:03,bus=port2 \
    -device pcie-root-port,id=port3,chassis=4,addr=0x10.3 -device qemu-xhci,id=usb,bus=port3 \
    -device pcie-root-port,id=port4,chassis=5,addr=0x10.4 -device virtio-serial-pci,id=serial,bus=port4 \
    -device pcie-root-port,id=port5,chassis=6,addr=0x10.5 -blockdev driver=qcow2,node-name=disk0,discard=unmap,file.driver=file,file.filename=vault.qcow2 -device virtio-blk-pci,drive=disk0,bootindex=1,bus=port5 \
    -device pcie-root-port,id=port6,chassis=7,addr=0x10.6 -device ich9-ahci,id=optical,bus=port6 \
    -device pcie-root-port,id=port7,chassis=8,addr=0x10.7 -device virtio-balloon-pci,bus=port7 \
    -device pcie-root-port,id=port8,chassis=9,addr=0x11.0,multifunction=on -object rng-random,id=entropy,filename=/dev/urandom -device virtio-rng-pci,rng=entropy,bus=port8 \
    -chardev socket,id=agent,path=vault.agent,server=on,wait=off \
    -device virtserialport,bus=serial.0,chardev=agent,name=org.qemu.guest_agent.0 \
    -device usb-tablet,bus=usb.0 \
    -device ide-cd,bus=optical.0 \
    "$@"

run "$@"

#!/bin/sh
# vault: Red Hat Enterprise Linux 9.4, migrated by hyper2kvmd
#
# Usage, as root on a node of Proxmox VE, with the images in the directory of this script:
#   sh vault.proxmox.sh [--dry-run] ID STORAGE
#     --dry-run   print the command, run nothing
#     ID          number of the new machine; `pvesh get /cluster/nextid` shows a free one
#     STORAGE     storage for its disks, such as local-lvm
# Environment:
#   CPU           its CPU type; default: host

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

[ "$#" -eq 2 ] || fail 'Usage: sh vault.proxmox.sh [--dry-run] ID STORAGE'
id=$1
storage=$2
images=$(pwd)
case $images in
*,*) fail "$images: qm cannot import from a directory with a comma in its name. Rename it." ;;
esac

[ -z "$dry_run" ] || show cd -- "$(pwd)"

run qm create "$id" \
    --name vault \
    --ostype l26 \
    --machine q35 \
    --cpu "${CPU:-host}" \
    --sockets 1 --cores 8 \
    --memory 8192 \
    --localtime 0 \
    --bios ovmf \
    --efidisk0 "$storage:1,efitype=4m,pre-enrolled-keys=1" \
    --tpmstate0 "$storage:1,version=v2.0" \
    --smbios1 uuid=564d1d2a-9f0e-4a3b-8c55-0123456789ab \
    --vmgenid 0a1b2c3d-0000-4000-8000-00000000beef \
    --scsihw virtio-scsi-single \
    --virtio0 "$storage:0,import-from=$images/"vault.qcow2,discard=on \
    --boot order=virtio0 \
    --net0 virtio=00:50:56:AA:00:01,bridge=lan \
    --net1 virtio=00:50:56:AA:00:02,bridge=vmbr0 \
    --net2 virtio=00:50:56:AA:00:03,bridge=dmz,link_down=1 \
    --ide2 none,media=cdrom \
    --vga std --serial0 socket \
    --agent enabled=1 \
    --rng0 source=/dev/urandom

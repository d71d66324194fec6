#!/bin/sh
# db_Main.Example: Debian GNU/Linux 12 (bookworm), migrated by hyper2kvmd
#
# Usage, as root on a node of Proxmox VE, with the images in the directory of this script:
#   sh db_Main.Example.proxmox.sh [--dry-run] ID STORAGE
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

[ "$#" -eq 2 ] || fail 'Usage: sh db_Main.Example.proxmox.sh [--dry-run] ID STORAGE'
id=$1
storage=$2
images=$(pwd)
case $images in
*,*) fail "$images: qm cannot import from a directory with a comma in its name. Rename it." ;;
esac

[ -z "$dry_run" ] || show cd -- "$(pwd)"

run qm create "$id" \
    --name db-Main.Example \
    --ostype l26 \
    --machine q35 \
    --cpu "${CPU:-host}" \
    --sockets 2 --cores 2 \
    --memory 4096 \
    --localtime 0 \
    --bios ovmf \
    --efidisk0 "$storage:1,efitype=4m,pre-enrolled-keys=0" \
    --smbios1 uuid=564d1d2a-9f0e-4a3b-8c55-0123456789ab,base64=1,serial=Vk13YXJlLTU2IDRkIDFkIDJhLCAneCc= \
    --scsihw virtio-scsi-single \
    --virtio0 "$storage:0,import-from=$images/"db_Main.Example.qcow2,discard=on \
    --virtio1 "$storage:0,import-from=$images/"db_Main.Example-disk2.qcow2,discard=on \
    --boot order=virtio1 \
    --net0 virtio=52:54:00:01:02:04,bridge=vmbr0 \
    --vga std --serial0 socket \
    --agent enabled=1 \
    --rng0 source=/dev/urandom

#!/bin/sh
# win: Windows Server 2022, migrated by hyper2kvmd
#
# Usage, as root on a node of Proxmox VE, with the images in the directory of this script:
#   sh win.proxmox.sh [--dry-run] ID STORAGE
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

[ "$#" -eq 2 ] || fail 'Usage: sh win.proxmox.sh [--dry-run] ID STORAGE'
id=$1
storage=$2
images=$(pwd)
case $images in
*,*) fail "$images: qm cannot import from a directory with a comma in its name. Rename it." ;;
esac

[ -z "$dry_run" ] || show cd -- "$(pwd)"

run qm create "$id" \
    --name win \
    --ostype win11 \
    --machine q35 \
    --cpu "${CPU:-host}" \
    --sockets 1 --cores 4 \
    --memory 8192 \
    --localtime 1 \
    --bios ovmf \
    --efidisk0 "$storage:1,efitype=4m,pre-enrolled-keys=0" \
    --scsihw virtio-scsi-single \
    --sata0 "$storage:0,import-from=$images/"win.qcow2,discard=on \
    --sata1 "$storage:0,import-from=$images/"win-disk2.qcow2,discard=on \
    --boot order=sata0 \
    --net0 e1000e=00:50:56:BB:00:01,bridge=vmbr0 \
    --vga std --serial0 socket \
    --balloon 0

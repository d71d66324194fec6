#!/bin/sh
# win: Windows Server 2022, migrated by hyper2kvmd
#
# Usage, with the credentials of the project in the environment (OS_CLOUD or an openrc file):
#   sh win.openstack.sh [--dry-run] FLAVOR NETWORK
#     --dry-run   print the commands, run nothing
#     FLAVOR      one with at least 4 vCPUs and 8192 MiB of memory
#     NETWORK     the network of cards that network_map does not name

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

usage='Usage: sh win.openstack.sh [--dry-run] FLAVOR NETWORK'
case $# in
2) ;;
*) fail "$usage" ;;
esac
flavor=$1
network=${2-}

[ -z "$dry_run" ] || show cd -- "$(pwd)"

# the volume's identifier, once its image is on it
volume_id() {
    if [ -n "$dry_run" ]; then
        printf 'ID-of-%s' "$1"
        return
    fi
    while :; do
        status=$(openstack volume show -f value -c status "$1")
        case $status in
        available) break ;;
        error*) fail "$1: the volume cannot be created. See openstack volume message list." ;;
        esac
        sleep 5
    done
    openstack volume show -f value -c id "$1"
}

if [ -z "$dry_run" ] && openstack server show win >/dev/null 2>&1; then
    fail 'win: this project already has a server of that name. Rename or delete it.'
fi

run openstack image create \
    --disk-format qcow2 --container-format bare --file win.qcow2 \
    --property architecture=x86_64 \
    --property hypervisor_type=kvm \
    --property vm_mode=hvm \
    --property os_type=windows \
    --property hw_machine_type=q35 \
    --property hw_disk_bus=sata \
    --property hw_vif_model=e1000e \
    --property hw_video_model=vga \
    --property hw_firmware_type=uefi \
    --property hw_cpu_sockets=1 \
    --property hw_cpu_cores=4 \
    --property hw_cpu_threads=1 \
    win-disk1
run openstack image create \
    --disk-format qcow2 --container-format bare --file win-disk2.qcow2 \
    --property architecture=x86_64 \
    --property hypervisor_type=kvm \
    --property vm_mode=hvm \
    --property os_type=windows \
    --property hw_machine_type=q35 \
    --property hw_disk_bus=sata \
    --property hw_vif_model=e1000e \
    --property hw_video_model=vga \
    --property hw_firmware_type=uefi \
    --property hw_cpu_sockets=1 \
    --property hw_cpu_cores=4 \
    --property hw_cpu_threads=1 \
    win-disk2

run openstack volume create --size 60 --image win-disk1 --bootable win-disk1
run openstack volume create --size 200 --image win-disk2 --non-bootable win-disk2

run openstack port create --network "$network" --mac-address 00:50:56:bb:00:01 win-nic1

disk1=$(volume_id win-disk1)
disk2=$(volume_id win-disk2)

run openstack server create \
    --flavor "$flavor" \
    --volume "$disk1" \
    --block-device uuid="$disk2",source_type=volume,destination_type=volume,boot_index=-1 \
    --port win-nic1 \
    win

#!/bin/bash
# The first day of a submitter: a member of hyper2kvm-submit who is no operator. It ends with the first step that does
# not go as the documentation says. The argument is the number of a job of somebody else.
set -euo pipefail

others_job=$1
spool=/var/spool/hyper2kvm
cd "$(mktemp -d)"

step() { printf '\n## %s\n' "$*"; }
appears() {
    for _ in $(seq 600); do [ -e "$1" ] && return; sleep 1; done
    echo "$1 does not appear" >&2
    exit 1
}
fails() {
    local wanted=$1 status=0
    shift
    "$@" || status=$?
    [ "$status" -eq "$wanted" ] || { echo "$*: exit status $status, not $wanted" >&2; exit 1; }
}

step 'a file that is no migration'
touch "$spool/incoming/notes.txt"

step 'a migration: checked, then dropped'
printf 'vmdk: /exports/guest/empty.vmdk\nguest: none\n' >first.yaml
h2kvmctl check --spool first.yaml
mv first.yaml "$spool/incoming/"
appears "$spool/done/first.yaml.result.md"
cat "$spool/done/first.yaml.result.md"
grep '"state": "succeeded"' "$spool/done/first.yaml.result.json"

step 'a mistake'
printf 'vmdk: /exports/guest/empty.vmdk\nguest: nothing\n' >mistake.yaml
fails 2 h2kvmctl check --spool mistake.yaml
mv mistake.yaml "$spool/incoming/"
appears "$spool/rejected/mistake.yaml.reason.json"
code=$(grep -m 1 -o '"code": "[a-z-]*"' "$spool/rejected/mistake.yaml.reason.json" | cut -d '"' -f 4)
h2kvmctl explain "$code"

step 'a job over the control socket'
printf 'vmdk: /exports/guest/empty.vmdk\nguest: none\n' >second.yaml
h2kvmctl submit --wait second.yaml
h2kvmctl list --mine
second=$(h2kvmctl list --mine --vm second --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["id"])')
h2kvmctl show "$second"
h2kvmctl logs "$second"
h2kvmctl report "$second"

step 'a job that is taken back'
printf 'vmdk: /exports/guest/empty.vmdk\nguest: none\nnot_before: 2099-01-01 00:00\n' >later.yaml
mv later.yaml "$spool/incoming/"
for _ in $(seq 60); do [ -n "$(h2kvmctl list --mine --vm later --json | tr -d '[]\n')" ] && break; sleep 1; done
h2kvmctl list --mine --vm later
h2kvmctl cancel --mine --vm later --yes
appears "$spool/failed/later.yaml.reason.json"
grep '"state": "cancelled"' "$spool/failed/later.yaml.reason.json"

step 'what belongs to operators'
fails 1 h2kvmctl show "$others_job"
fails 1 h2kvmctl cancel "$others_job"
fails 2 h2kvmctl pause

step 'what became of the file that is no migration'
for _ in $(seq 60); do h2kvmctl status | grep notes.txt && break; sleep 1; done
rm "$spool/incoming/notes.txt"
echo 'the day is over'

#!/bin/bash
# The first day of an operator: a member of the group hyper2kvm. It ends with the first step that does not go as the
# documentation says.
set -euo pipefail

cd "$(mktemp -d)"

step() { printf '\n## %s\n' "$*"; }
ids() { h2kvmctl list --batch "$1" --sort oldest --json | python3 -c 'import json, sys
print(*(job["id"] for job in json.load(sys.stdin)))'; }

step 'the host, the configuration, the daemon'
h2kvmctl doctor || [ $? -eq 1 ]
hyper2kvmd --check
h2kvmctl status

step 'a wave of machines, while the queue is paused'
h2kvmctl pause
cat >wave.yaml <<'YAML'
guest: none
vms:
- {vm_name: db, vmdk: /exports/guest/empty.vmdk}
- {vm_name: app, vmdk: /exports/guest/empty.vmdk, after: db}
- {vm_name: old, vmdk: /exports/guest/empty.vmdk}
YAML
h2kvmctl check wave.yaml
h2kvmctl submit wave.yaml
h2kvmctl list --queue
read -r db app old <<<"$(ids wave)"
h2kvmctl priority "$old" 9
h2kvmctl hold "$old"
h2kvmctl show "$app" | grep 'waiting for'
h2kvmctl cancel "$old"

step 'the wave runs'
h2kvmctl resume
h2kvmctl watch "$db" "$app"
h2kvmctl batch wave
h2kvmctl batch wave --report csv
h2kvmctl report "$db" >/dev/null

step 'one more try'
h2kvmctl retry --all-cancelled --batch wave --yes
h2kvmctl watch "$old"
h2kvmctl list --since 1h --sort finished
h2kvmctl list --warnings

step 'seen from outside'
for page in '' jobs "jobs/$db" batches host metrics healthz; do
    curl --silent --show-error --fail --output /dev/null "http://127.0.0.1:9180/$page"
done
h2kvmctl schema >migration.schema.json
python3 -m json.tool migration.schema.json /dev/null
echo 'the day is over'

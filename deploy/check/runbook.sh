#!/usr/bin/env bash
# Carries out the blocks of docs/RUNBOOK.md that are marked `run`, in their order, against a gateway of its own:
# deploy/check/runbook.sh PROGRAM POLICIES
#
# After every section the gateway must be ready, and nothing degraded, it must know a request that was decided before the
# first, and the audit log must be what was signed.
set -euo pipefail
program=$(realpath "${1:?usage: deploy/check/runbook.sh PROGRAM POLICIES}")
policies=$(realpath "${2:?usage: deploy/check/runbook.sh PROGRAM POLICIES}")
runbook=$(realpath "$(dirname "$0")/../../docs/RUNBOOK.md")
store=sqlite
. "$(dirname "$0")/service.sh"
systemctl start countersign

# A decision that must outlive all that follows.
set -a
. "$work/etc/countersign.env"
. "$work/etc/secrets.env"
set +a
gate=http://$COUNTERSIGN_LISTEN
made=$(curl -sS --fail-with-body "$gate/api/guard/request" -H 'content-type: application/json' -d '{
  "action": "deploy_staging", "params": {"service": "web", "ref": "v1"},
  "meta": {"origin": {"repo": "acme/web"}, "requester": {"id": "U0DANA", "source": "slack"}, "justification": "before all"}}')
token=$(jq -r .token <<<"$made")
approver=$(jq -r '[.canAct[] | select(.act == "approve") | .who[]][0] // empty' <<<"$made")
countersign dev click --url "$gate" --user "${approver:-U0ALICE}" deny "$(jq -r .requestId <<<"$made")" >/dev/null

# One script out of all blocks: what one defines, the next ones use.
python3 - "$runbook" >"$work/script" <<'PYTHON'
import re, shlex, sys

section, blocks = "the beginning", 0
print("set -euo pipefail")
lines = iter(open(sys.argv[1], encoding="utf-8").read().splitlines())
fenced = False
for line in lines:
    if not fenced and line.startswith("## "):
        if blocks:
            print(f"after {shlex.quote(section)}")
        section, blocks = line[3:], 0
    if line.startswith("```sh run"):
        blocks += 1
        for command in iter(lambda: next(lines), "```"):
            print(command)
    elif line.startswith("```"):
        fenced = not fenced
if blocks:
    print(f"after {shlex.quote(section)}")
PYTHON
export token
after() {
  state=$(curl -sS "http://$COUNTERSIGN_OPS_LISTEN/readyz")
  [ "$(jq -r .status <<<"$state")" = ready ] || { echo "after '$1' the gateway is not ready: $state" >&2; exit 1; }
  countersign audit verify --store "$COUNTERSIGN_STORE" >/dev/null || { echo "after '$1' the audit log is not right" >&2; exit 1; }
  status=$(curl -sS "http://$COUNTERSIGN_LISTEN/api/guard/wait?token=$token&timeoutSec=0" | jq -r .status)
  [ "$status" = denied ] || { echo "after '$1' the first request is $status" >&2; exit 1; }
  echo "  $1" >&3
}
export -f after
if ! bash "$work/script" 3>&1 >"$work/said" 2>"$work/errors"; then
  tail -n 20 "$work/said" "$work/errors" >&2
  exit 1
fi

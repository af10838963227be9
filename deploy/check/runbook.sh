#!/usr/bin/env bash
# Carries out the blocks of docs/RUNBOOK.md that are marked `run`, in their order and twice, against a gateway of
# its own: deploy/check/runbook.sh PROGRAM POLICIES
#
# Each section has a shell of its own, with the block `variables` alone before it. After every section the gateway must be
# ready, and nothing degraded, it must know a request that was decided before the first, and the audit log must be what was
# signed. What somebody else puts into the policy set before the second time must stay there.
set -euo pipefail
program=$(realpath "${1:?usage: deploy/check/runbook.sh PROGRAM POLICIES}")
policies=$(realpath "${2:?usage: deploy/check/runbook.sh PROGRAM POLICIES}")
runbook=$(realpath "$(dirname "$0")/../../docs/RUNBOOK.md")
store=sqlite secret=
. "$(dirname "$0")/service.sh"
systemctl start countersign
settings
countersign health --ready --wait-sec 60 >/dev/null

# A decision that must outlive all that follows.
gate=http://$COUNTERSIGN_LISTEN
made=$(curl -sS --fail-with-body "$gate/api/guard/request" -H 'content-type: application/json' -d '{
  "action": "deploy_staging", "params": {"service": "web", "ref": "v1"},
  "meta": {"origin": {"repo": "acme/web"}, "requester": {"id": "U0DANA", "source": "slack"}, "justification": "before all"}}')
token=$(jq -r .token <<<"$made")
approver=$(jq -r '[.canAct[] | select(.act == "approve") | .who[]][0] // empty' <<<"$made")
countersign dev click --url "$gate" --user "${approver:-U0ALICE}" deny "$(jq -r .requestId <<<"$made")" >/dev/null

# A script for each section, in the order of their numbers; its first line is the name. Blocks marked `once` are left out the
# second time.
mkdir "$work/first" "$work/second"
python3 - "$runbook" "$work" <<'PYTHON'
import pathlib, re, sys

text = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")
(variables,) = re.findall(r"^```sh run variables\n((?:.*\n)*?)```$", text, re.M)
# Until the gateway, if it runs, has signed a checkpoint, which on a busy machine takes longer than being ready.
a_day_later = """
while shown=$(curl -fsS "http://$COUNTERSIGN_OPS_LISTEN/metrics" 2>/dev/null) && ! grep -q '^audit_signed_entries [1-9]' <<<"$shown"; do
  sleep 0.1
done
"""
for round in ["first", "second"]:
    for number, part in enumerate(re.split(r"^## ", text, flags=re.M)):
        name = part.splitlines()[0].replace("# Runbook", "the beginning")
        blocks = re.findall(r"^```sh run\b(.*)\n((?:.*\n)*?)```$", part, re.M)
        script = a_day_later.join(block for marks, block in blocks if round == "first" or "once" not in marks)
        if script:
            script = script if script == variables else variables + script
            pathlib.Path(sys.argv[2], round, f"{number:02}").write_text(f"# {name}\n{script}")
PYTHON

admin() {
  curl -sS --fail-with-body -H "authorization: Bearer $(sed -n 's/^ADMIN_TOKEN=//p' "$ETC/secrets.env")" \
    "http://$COUNTERSIGN_OPS_LISTEN/api/admin/$1" "${@:2}"
}
active() { admin policy-sets/active | jq -r .hash; }
fail() { echo "$round, after '$name' $1" >&2; exit 1; }
after() {
  local state status open
  countersign health --ready --wait-sec 60 >/dev/null || fail "the gateway is not ready"
  state=$(curl -sS "http://$COUNTERSIGN_OPS_LISTEN/readyz")
  [ "$(jq -r .status <<<"$state")" = ready ] || fail "the gateway is not ready: $state"
  runuser -u countersign -- countersign audit verify --store "$COUNTERSIGN_STORE" >/dev/null || fail "the audit log is not right"
  status=$(curl -sS "$gate/api/guard/wait?token=$token&timeoutSec=0" | jq -r .status)
  [ "$status" = denied ] || fail "the first request is $status"
  open=$(find "$DATA" -type f -perm /077 -not -path "$DATA/candidate/*")
  [ -z "$open" ] || fail "others can read: $open"
  [ "$round" = first ] || grep -q '^# somebody else' "$COUNTERSIGN_POLICIES/policy-set.yaml" || fail "an older policy set is back"
  [ "$(grep -cE '^[A-Z_]+=[^=]+$' "$ETC/secrets.env")" = 2 ] || fail "secrets.env is damaged"
}
for round in first second; do
  if [ "$round" = second ]; then
    sed -i -e 's/timeout: 20m/timeout: 10m/' -e '1i # somebody else' "$COUNTERSIGN_POLICIES/policy-set.yaml"
    admin reload-policy -X POST >/dev/null
  fi
  for script in "$work/$round"/*; do
    name=$(sed -n '1s/^# //p' "$script")
    [ "$name" != "Change the policy set" ] || before=$(active)
    if ! bash -euo pipefail "$script" >"$work/said" 2>"$work/errors"; then
      echo "$round time, '$name':" >&2
      tail -n 20 "$work/said" "$work/errors" "$work/log" >&2
      exit 1
    fi
    [ "$name" != "Roll the policy set back" ] || [ "$(active)" = "$before" ] || fail "another policy set is in force"
    after
    [ "$round" = second ] || echo "  $name"
  done
done
echo "  all of it again"

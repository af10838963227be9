#!/usr/bin/env bash
# Rehearses the loss of a store, as docs/RUNBOOK.md says what to do: deploy/check/disaster.sh PROGRAM POLICIES STORE [SECRET]
#
# STORE is `sqlite` or `redis`; with any SECRET the gateway has `COUNTERSIGN_SECRET`, and no key file. While callers ask and decide, a backup is made; then gateway and store are killed and their
# data removed, the backup is restored, and the audit log compared with checkpoints that were kept elsewhere. What the
# backup had must be there, with the same receipts; what came after it must be gone as a whole, and be seen to be.
set -euo pipefail
# As most machines have it: the runbook says what is to be seen by nobody else.
umask 022
program=$(realpath "${1:?usage: deploy/check/disaster.sh PROGRAM POLICIES STORE}")
policies=$(realpath "${2:?usage: deploy/check/disaster.sh PROGRAM POLICIES STORE}")
store=${3:?usage: deploy/check/disaster.sh PROGRAM POLICIES STORE}
secret=${4:-}
runbook=$(realpath "$(dirname "$0")/../../docs/RUNBOOK.md")
. "$(dirname "$0")/service.sh"

export CHECKPOINTS=$work/elsewhere/checkpoints
cat >>"$work/etc/countersign.env" <<ENV
COUNTERSIGN_AUDIT_CHECKPOINT_FILE=$CHECKPOINTS
COUNTERSIGN_AUDIT_CHECKPOINT_SEC=1
RATE_LIMIT_CAPACITY=1000000
RATE_LIMIT_REFILL_PER_SEC=100000
ENV
settings
export STORE=$COUNTERSIGN_STORE
gate=http://$COUNTERSIGN_LISTEN
countersign() { runuser -u countersign -- countersign "$@"; }
[ "$store" = sqlite ] || systemctl start redis-server
systemctl start countersign
countersign health --ready --wait-sec 60 >/dev/null
countersign audit key --store "$STORE" >"$work/elsewhere/audit.key"

# block NAME: carries out the blocks of the runbook that have this name, with the variables that it sets first.
block() {
  local name
  : >"$work/block"
  for name in variables "$1"; do
    awk -v name="$name" '/^```/ { inside = !inside && $1 == "```sh" && $NF == name; next } inside' "$runbook" >"$work/part"
    [ -s "$work/part" ] || { echo "docs/RUNBOOK.md has no block \`$name\`" >&2; exit 1; }
    cat "$work/part" >>"$work/block"
  done
  bash -euo pipefail "$work/block" >"$work/said" 2>&1 || {
    echo "block \`$1\`:" >&2
    tail -n 20 "$work/said" "$work/log" >&2
    exit 1
  }
}

# private WHEN: nobody else can read what is in the folder of the data.
private() {
  local open
  open=$(find "$DATA" -type f -perm /077)
  [ -z "$open" ] || { echo "$1 others can read:" $open >&2; exit 1; }
}

# until_true WHAT COMMAND…: for five minutes at most, since the machine may be busy.
until_true() {
  local what=$1 tries
  shift
  for ((tries = 0; tries < 3000; tries++)); do
    ! "$@" || return 0
    sleep 0.1
  done
  echo "waited in vain for $what" >&2
  exit 1
}

# Asks, and ends what it asked for; writes down the token once the answer is there.
load() {
  local made token
  while [ ! -e "$work/enough" ]; do
    made=$(curl -fsS "$gate/api/guard/request" -H 'content-type: application/json' -d '{
      "action": "deploy_staging", "params": {"service": "web", "ref": "v1"},
      "meta": {"origin": {"repo": "acme/web"}, "requester": {"id": "U0DANA", "source": "slack"}, "justification": "load"}}') || continue
    token=$(jq -r .token <<<"$made")
    curl -fsS "$gate/api/guard/cancel" -H 'content-type: application/json' -d "{\"token\": \"$token\"}" >/dev/null || continue
    echo "$token" >>"$work/ended"
  done
}
ended() { wc -l <"$work/ended"; }
more_than() { [ "$(ended)" -gt "$1" ]; }
# state TOKEN: `200` or `404`, the status and the receipt.
state() {
  curl -sS -w '\n{"http": %{http_code}}' "$gate/api/guard/wait" -H 'content-type: application/json' -d "{\"token\": \"$1\"}" |
    jq -rs '"\(.[1].http) \(.[0].status) \(.[0].receipt)"'
}

touch "$work/ended"
loads=()
for _ in 1 2 3; do
  load 2>/dev/null &
  loads+=($!)
done
until_true "requests before the backup" more_than 10
cp "$work/ended" "$work/before"
first=$(head -1 "$work/before")
known=$(state "$first")
block "backup-$store"
private "after the backup"
until_true "requests after the backup" more_than $(($(ended) + 5))
touch "$work/enough"
wait "${loads[@]}"
verify() { countersign audit verify --store "$STORE" --key "$work/elsewhere/audit.key" "$@"; }
covered() { verify >"$work/now"; grep -q ' covers yet: 0$' "$work/now"; }
until_true "a checkpoint of what will be lost" covered

# The machines are gone. What was moved elsewhere is brought back.
mv "$DATA"/*backup* "$work/elsewhere/"
for pid in "$work"/*.pid; do
  kill -KILL "$(cat "$pid")"
  while kill -0 "$(cat "$pid")" 2>/dev/null; do sleep 0.05; done
done
rm -rf "$DATA" "$REDIS"
mkdir "$DATA" "$REDIS"
give "$DATA"
mv "$work"/elsewhere/*backup* "$DATA/"
block "restore-$store"
private "after the restore"

[ "$(state "$first")" = "$known" ] || { echo "the first request was $known, and is $(state "$first")" >&2; exit 1; }
while read -r token; do
  case $(state "$token") in
    "200 cancelled "*) ;;
    *) echo "a request that ended before the backup is $(state "$token")" >&2; exit 1 ;;
  esac
done <"$work/before"
lost=0
while read -r token; do
  case $(state "$token") in
    "200 "*) ;;
    "404 "*) lost=$((lost + 1)) ;;
    *) echo "a request is $(state "$token")" >&2; exit 1 ;;
  esac
done <"$work/ended"
[ "$lost" -ge 5 ] || { echo "only $lost requests are lost: it was no disaster" >&2; exit 1; }

# What is there is what was written; that something is missing shows against the checkpoints elsewhere alone.
log=$(head -1 "$CHECKPOINTS")
verify >"$work/said" || { cat "$work/said" >&2; exit 1; }
if verify --checkpoint "$CHECKPOINTS" >"$work/said" 2>&1 || ! grep -q '^cut off: ' "$work/said"; then
  echo "the log lacks entries, and is not seen to" >&2
  cat "$work/said" >&2
  exit 1
fi
degraded() { curl -sS "http://$COUNTERSIGN_OPS_LISTEN/readyz" | jq -r '.audit // [] | join(" ")'; }
[[ $(degraded) == *signing* ]] || { echo "the gateway goes on signing: $(degraded)" >&2; exit 1; }
block accept-loss
[ -z "$(degraded)" ] || { echo "after the loss was accepted: $(degraded)" >&2; exit 1; }
countersign audit key --store "$STORE" >>"$work/elsewhere/audit.key"
verify --checkpoint "$CHECKPOINTS" --ended-log "$log" >"$work/said" || { cat "$work/said" >&2; exit 1; }

# Where the secret is a variable, it is changed there, and what it was is needed by nothing in the end.
if [ -n "$secret" ]; then
  previous() { sed -n 's/^COUNTERSIGN_SECRET_PREVIOUS=//p' "$ETC/secrets.env"; }
  block rotate-variable
  [ "$(previous)" = "$COUNTERSIGN_SECRET" ] || { echo "the secret was not changed" >&2; exit 1; }
  # The file of checkpoints is written last; without the new signature at its end the next start is refused.
  taken_over() { [ "$(tail -n 2 "$CHECKPOINTS" | grep -c '^— ')" = 2 ]; }
  until_true "a checkpoint with both keys" taken_over
  block retire-variable
  [ -z "$(previous)" ] && ! grep -q '^previous ' "$work/said" || {
    echo "the previous secret is still there:" >&2
    cat "$work/said" >&2
    exit 1
  }
  [ "$(state "$first")" = "$known" ] || { echo "after the secret was changed the first request is $(state "$first")" >&2; exit 1; }
  [ -z "$(degraded)" ] || { echo "after the secret was changed: $(degraded)" >&2; exit 1; }
fi
echo "  $store${4:+ and a $4}: $(wc -l <"$work/before") requests ended before the backup, and are there; $lost of $(ended) came after it, and are gone"

#!/usr/bin/env bash
# Sends a gateway what its OpenAPI document allows and forbids, with all checks of schemathesis: deploy/check/schemathesis.sh PROGRAM POLICIES
#
# PROGRAM is a build of `countersign`, POLICIES what `cargo xtask policies` made. The gateways are its own, on loopback,
# with a store in memory: one without an access file, and one with, which is called by a caller and an admin who may do
# everything, and by some who may do little.
set -euo pipefail
program=$(realpath "${1:?usage: deploy/check/schemathesis.sh PROGRAM POLICIES}")
policies=$(realpath "${2:?usage: deploy/check/schemathesis.sh PROGRAM POLICIES}")
cd "$(dirname "$0")/../.."
here=$PWD/deploy/check/schemathesis

python=$PWD/target/tools/schemathesis-$(sha256sum "$here/requirements.txt" | cut -c1-12)
if [ ! -e "$python/done" ]; then
  rm -rf "$python"
  python3 -m venv "$python"
  "$python/bin/pip" install --quiet --disable-pip-version-check --require-hashes --requirement "$here/requirements.txt"
  touch "$python/done"
fi

work=$(mktemp -d)
touch "$work/headers"
found=0
gateway=
trap '[ -z "$gateway" ] || kill "$gateway" || true; rm -rf "$work"' EXIT

# start NAME WORD…: a gateway with these words on its command line; its address is then in `url`. Nothing of it reaches Slack.
start() {
  local name=$1
  shift
  [ -z "$gateway" ] || kill "$gateway"
  cp -r "$policies" "$work/policies-$name"
  SLACK_SIGNING_SECRET=$(openssl rand -hex 16) SLACK_BOT_TOKEN=xoxb-check SLACK_API_URL=http://127.0.0.1:9/api \
    COUNTERSIGN_POLICY_DEADLINE_MS=10000 RATE_LIMIT_CAPACITY=1000000 RATE_LIMIT_REFILL_PER_SEC=100000 \
    COUNTERSIGN_MAX_OPEN_REQUESTS=1000000 \
    "$program" serve --listen 127.0.0.1:0 --policies "$work/policies-$name" --store memory "$@" >"$work/log-$name" 2>&1 &
  gateway=$!
  until url=$(grep -om1 '^listening on http://.*' "$work/log-$name"); do
    kill -0 "$gateway" || { cat "$work/log-$name" >&2; exit 1; }
    sleep 0.1
  done
  url=${url#listening on }
}

# check WHAT: as ADMIN_KEY and CALLER_KEY say who calls. A request of MAKER_KEY that has ended is there to be asked about.
# All checks are on by default; `--checks all` would turn on those, too, that schemathesis.toml turns off for one operation.
check() {
  echo "== $1"
  local made
  [ -z "$MAKER_KEY" ] || printf 'authorization: Bearer %s' "$MAKER_KEY" >"$work/headers"
  made=$(asks request '{
    "action": "deploy_staging", "params": {"service": "web", "ref": "v1"},
    "meta": {"origin": {"repo": "acme/web"}, "requester": {"id": "U0DANA", "source": "slack"}, "justification": "check"}}')
  WAIT_TOKEN=$(jq -r .token <<<"$made") REQUEST_ID=$(jq -r .requestId <<<"$made")
  asks cancel "{\"token\": \"$WAIT_TOKEN\"}" >"$work/cancelled"
  export ADMIN_KEY CALLER_KEY WAIT_TOKEN REQUEST_ID
  # Its notes of the run stay out of the tree.
  (cd "$work" && PYTHONPATH=$here SCHEMATHESIS_HOOKS=hooks "$python/bin/schemathesis" \
    --config-file "$here/schemathesis.toml" run "$url/openapi.json" --phases examples,coverage,fuzzing \
    --max-examples "${EXAMPLES:-50}" --continue-on-failure) || found=1
}

asks() {
  curl -sS --fail-with-body "$url/api/guard/$1" -H @"$work/headers" -H 'content-type: application/json' -d "$2"
}

# key NAME: makes an API key, which is then in `key`, and the line of the access file for it in `line`.
key() {
  local made
  made=$("$program" access key "$1")
  key=$(grep -o 'cs_[0-9a-f]*' <<<"$made")
  line=$(grep -o '{ sha256: .* }' <<<"$made")
}

export ADMIN_TOKEN
ADMIN_TOKEN=$(openssl rand -hex 32)
start anonymous
ADMIN_KEY=$ADMIN_TOKEN CALLER_KEY='' MAKER_KEY='' check "without an access file"

unset ADMIN_TOKEN
{
  echo "version: 1"
  echo "callers:"
  key portal; portal=$key
  echo "  portal: { keys: [$line], requester: asserted, actions: ['*'] }"
  key nightly; nightly=$key
  echo "  nightly: { keys: [$line], requester: machine, owners: [dana], actions: [deploy_prod], limits: { open: 5 } }"
  echo "admins:"
  key ada; ada=$key
  echo "  ada: { keys: [$line], roles: [read, operate, activate] }"
  key dashboard; dashboard=$key
  echo "  dashboard: { keys: [$line], roles: read }"
  echo "people: { dana: { slack: U0DANA, github: '583231' } }"
} >"$work/access.yaml"
start access --access "$work/access.yaml"
ADMIN_KEY=$ada CALLER_KEY=$portal MAKER_KEY=$portal check "with an access file, for those who may do everything"
ADMIN_KEY=$dashboard CALLER_KEY=$nightly MAKER_KEY=$portal check "with an access file, for those who may do little"
exit $found

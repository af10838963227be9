#!/usr/bin/env bash
# Starts a build of `countersign` for arm64 in an emulator, and asks it: deploy/check/arm64.sh PROGRAM POLICIES
#
# POLICIES is what `cargo xtask policies` made. The program evaluates the scenarios of each of its policies, for which the
# sandbox compiles them to code for arm64, and judges a request under the set. Then it is a gateway with a store of its
# own: a request is made and denied, the gateway is stopped in order, started again, and must still know the decision.
set -euo pipefail
program=$(realpath "${1:?usage: deploy/check/arm64.sh PROGRAM POLICIES}")
policies=$(realpath "${2:?usage: deploy/check/arm64.sh PROGRAM POLICIES}")
cd "$(dirname "$0")/../.."
for needed in qemu-aarch64:qemu-user curl:curl jq:jq; do
  command -v "${needed%:*}" >/dev/null || { echo "${needed%:*} is needed (Debian: apt-get install ${needed#*:})" >&2; exit 1; }
done
# Where the libraries for arm64 are.
libraries=/usr/aarch64-linux-gnu
[ -e "$libraries/lib/ld-linux-aarch64.so.1" ] || { echo "$libraries has no C library (Debian: apt-get install libc6-dev-arm64-cross)" >&2; exit 1; }

arm64() { qemu-aarch64 -L "$libraries" "$program" "$@"; }
# Everything takes many times as long there.
export COUNTERSIGN_POLICY_DEADLINE_MS=30000

arm64 --version
for policy in quorum persona-gate override-guard; do
  arm64 policy test "$policies/modules/$policy.wasm" "policies/$policy/scenarios.yaml" | tail -1
done
judged=$(arm64 policy judge "$policies" --action deploy_prod --params '{"service": "web", "ref": "v1", "replicas": 2}' \
  --event 'U0SEC acknowledge security' --event 'U0RM1 acknowledge release' \
  --event 'U0ALICE approve replicas=4' --event 'U0BOB approve replicas=4' --format json | jq -r .status)
[ "$judged" = approved ] || { echo "the sample set judges a request that two people approve: $judged" >&2; exit 1; }

work=$(mktemp -d)
gateway=
trap '[ -z "$gateway" ] || kill "$gateway" 2>/dev/null || true; rm -rf "$work"' EXIT
# Nothing of this reaches Slack.
export SLACK_SIGNING_SECRET=0123456789abcdef0123456789abcdef SLACK_BOT_TOKEN=xoxb-check SLACK_API_URL=http://127.0.0.1:9/api
start() {
  # Not through the function: signals are for the emulator, which hands them on.
  qemu-aarch64 -L "$libraries" "$program" serve --listen 127.0.0.1:0 --ops-listen 127.0.0.1:0 --policies "$policies" \
    --store "sqlite:$work/countersign.db" --cache-dir "$work/cache" >"$work/out" 2>>"$work/log" &
  gateway=$!
  until callers=$(grep -om1 '^listening on http://.*' "$work/out"); do
    kill -0 "$gateway" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
  done
  callers=${callers#listening on }
  operations=$(sed -n 's|^operations on ||p' "$work/out")
  [ "$(curl --silent --show-error --fail --max-time 60 "$operations/healthz")" = ok ]
}
stop() {
  kill -TERM "$gateway"
  wait "$gateway" || { echo "the gateway ended with $?" >&2; cat "$work/log" >&2; exit 1; }
  gateway=
}
ask() { curl --silent --show-error --fail-with-body --max-time 60 "$@"; }

start
made=$(ask "$callers/api/guard/request" --header 'content-type: application/json' --data '{
  "action": "deploy_staging", "params": {"service": "web", "ref": "v1"},
  "meta": {"origin": {"repo": "acme/web"}, "requester": {"id": "U0DANA", "source": "slack"}, "justification": "check"}}')
arm64 dev click --url "$callers" --user U0ALICE deny "$(jq -r .requestId <<<"$made")"
stop
start
token=$(jq -r .token <<<"$made")
status=$(ask "$callers/api/guard/wait?timeoutSec=0" --header "authorization: Bearer $token" | jq -r .status)
[ "$status" = denied ] || { echo "after a restart the request is $status" >&2; exit 1; }
stop
echo "a request was denied, and still is after a restart"

#!/usr/bin/env bash
# Sends a gateway what its OpenAPI document allows and forbids, with all checks of schemathesis: deploy/check/schemathesis.sh PROGRAM POLICIES
#
# PROGRAM is a build of `countersign`, POLICIES what `cargo xtask policies` made. The gateway is one of its own, on
# loopback, with a store in memory and without an access file.
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
gateway=
trap '[ -z "$gateway" ] || kill "$gateway" || true; rm -rf "$work"' EXIT
cp -r "$policies" "$work/policies"
ADMIN_TOKEN=$(openssl rand -hex 32)
export ADMIN_TOKEN
# Nothing of this reaches Slack.
SLACK_SIGNING_SECRET=$(openssl rand -hex 16) SLACK_BOT_TOKEN=xoxb-check SLACK_API_URL=http://127.0.0.1:9/api \
  COUNTERSIGN_POLICY_DEADLINE_MS=10000 RATE_LIMIT_CAPACITY=1000000 RATE_LIMIT_REFILL_PER_SEC=100000 \
  "$program" serve --listen 127.0.0.1:0 --policies "$work/policies" --store memory >"$work/log" 2>&1 &
gateway=$!
until url=$(grep -om1 '^listening on http://.*' "$work/log"); do
  kill -0 "$gateway" || { cat "$work/log" >&2; exit 1; }
  sleep 0.1
done
url=${url#listening on }

# Its notes of the run stay out of the tree. All checks are on by default; `--checks all` would turn on those, too, that
# schemathesis.toml turns off for one operation.
cd "$work"
PYTHONPATH=$here SCHEMATHESIS_HOOKS=hooks "$python/bin/schemathesis" --config-file "$here/schemathesis.toml" \
  run "$url/openapi.json" --phases examples,coverage,fuzzing --max-examples "${EXAMPLES:-50}" --continue-on-failure

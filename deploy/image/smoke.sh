#!/usr/bin/env bash
# Starts the image with Docker or podman as it is meant to be run, without rights and with nothing that can be written to
# but its volumes, and asks it: deploy/image/smoke.sh IMAGE
set -euo pipefail
image=${1:?usage: deploy/image/smoke.sh IMAGE}
engine=$(command -v docker || command -v podman)

container=$("$engine" run --detach --read-only --cap-drop ALL --security-opt no-new-privileges --publish 127.0.0.1::8080 \
  --env COUNTERSIGN_STORE=memory --env COUNTERSIGN_INSECURE_ANONYMOUS=true \
  --env COUNTERSIGN_POLICIES=/usr/share/countersign/policies "$image")
trap '"$engine" rm --force "$container" >/dev/null' EXIT

for _ in $(seq 60); do
  if "$engine" exec "$container" /usr/bin/countersign health --ready; then
    address=$("$engine" port "$container" 8080 | head -1)
    curl --fail --silent --show-error "http://$address/api/guard/request" --header 'content-type: application/json' --data '{
      "action": "deploy_staging", "params": {"service": "web", "ref": "v1"},
      "meta": {"origin": {"repo": "acme/web"}, "requester": {"id": "U0DANA", "source": "slack"}, "justification": "smoke test"}}'
    echo
    "$engine" stop --time 15 "$container" >/dev/null
    [ "$("$engine" inspect --format '{{.State.ExitCode}}' "$container")" = 0 ] && exit 0
    echo "it did not end by itself" >&2
    break
  fi
  sleep 1
done
"$engine" logs "$container" >&2
exit 1

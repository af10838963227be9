#!/usr/bin/env bash
# Carries out the blocks of docs/RUNBOOK.md that are marked `run`, in their order, against a gateway of its own:
# deploy/check/runbook.sh PROGRAM POLICIES
#
# In place of systemd there is a `systemctl` that starts and stops this one gateway. After every section the gateway must
# be ready and know a request that was decided before the first.
set -euo pipefail
program=$(realpath "${1:?usage: deploy/check/runbook.sh PROGRAM POLICIES}")
policies=$(realpath "${2:?usage: deploy/check/runbook.sh PROGRAM POLICIES}")
runbook=$(realpath "$(dirname "$0")/../../docs/RUNBOOK.md")
for needed in curl jq openssl sqlite3 python3; do
  command -v "$needed" >/dev/null || { echo "$needed is needed (Debian: apt-get install $needed)" >&2; exit 1; }
done

work=$(mktemp -d)
cleanup() {
  [ ! -e "$work/pid" ] || kill "$(cat "$work/pid")" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
mkdir -p "$work"/{bin,etc,data}
cp -r "$policies" "$work/etc/policies"
ln -s "$program" "$work/bin/countersign"

# Two ports that are free now.
read -r callers operations < <(python3 -c '
import socket
sockets = [socket.socket(), socket.socket()]
for s in sockets: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))')
cat >"$work/etc/countersign.env" <<ENV
COUNTERSIGN_STORE=sqlite:$work/data/countersign.db
COUNTERSIGN_CACHE_DIR=$work/cache
COUNTERSIGN_POLICIES=$work/etc/policies
COUNTERSIGN_LISTEN=127.0.0.1:$callers
COUNTERSIGN_OPS_LISTEN=127.0.0.1:$operations
COUNTERSIGN_POLICY_DEADLINE_MS=10000
ENV
cat >"$work/etc/secrets.env" <<ENV
SLACK_SIGNING_SECRET=0123456789abcdef0123456789abcdef
ADMIN_TOKEN=correct-horse-battery-staple
ENV
chmod 0600 "$work/etc/secrets.env"

cat >"$work/bin/systemctl" <<SHIM
#!/usr/bin/env bash
# What systemd does with the service, as far as the runbook needs it.
set -euo pipefail
[ "\$2" = countersign ]
alive() { kill -0 "\$(cat "$work/pid")" 2>/dev/null; }
stop() {
  kill -TERM "\$(cat "$work/pid")"
  # It is no child of this shell, so it cannot be waited for.
  while alive; do sleep 0.05; done
  rm "$work/pid"
}
start() {
  set -a; . "$work/etc/countersign.env"; . "$work/etc/secrets.env"; set +a
  setsid countersign serve >>"$work/log" 2>&1 &
  echo \$! >"$work/pid"
  until countersign health --ready >/dev/null 2>&1; do
    alive || { tail -5 "$work/log" >&2; exit 1; }
    sleep 0.05
  done
}
case \$1 in
  start) start ;;
  stop) stop ;;
  restart) stop; start ;;
  reload) kill -HUP "\$(cat "$work/pid")" ;;
  *) exit 1 ;;
esac
SHIM
chmod +x "$work/bin/systemctl"

export PATH=$work/bin:$PATH ETC=$work/etc DATA=$work/data
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
    if line == "```sh run":
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
  countersign health --ready >/dev/null || { echo "after '$1' the gateway is not ready" >&2; exit 1; }
  status=$(curl -sS "http://$COUNTERSIGN_LISTEN/api/guard/wait?token=$token&timeoutSec=0" | jq -r .status)
  [ "$status" = denied ] || { echo "after '$1' the first request is $status" >&2; exit 1; }
  echo "  $1" >&3
}
export -f after
if ! bash "$work/script" 3>&1 >"$work/said" 2>"$work/errors"; then
  tail -20 "$work/said" "$work/errors" >&2
  exit 1
fi

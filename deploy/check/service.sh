#!/usr/bin/env bash
# One gateway of its own for runbook.sh and disaster.sh, which source this: `program`, `policies` and `store` (`sqlite` or
# `redis`) are set, and what is started ends with the script. If `secret` is set, the gateway has `COUNTERSIGN_SECRET` in place
# of a key file, as it has in any case with a Redis.
#
# In place of systemd there is a `systemctl` that starts and stops this gateway and, for `redis`, its Redis, and a `systemd-run`
# that reads the settings as systemd does. The gateway and its commands run as a user of their own, as they do there, unless
# the script itself runs as another one than root.
for needed in curl jq openssl python3 $([ "$store" != redis ] || echo redis-server); do
  command -v "$needed" >/dev/null || { echo "$needed is needed (Debian: apt-get install $needed)" >&2; exit 1; }
done

work=$(mktemp -d)
cleanup() {
  local pid
  for pid in "$work"/*.pid; do
    [ ! -e "$pid" ] || kill "$(cat "$pid")" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap cleanup EXIT
mkdir -p "$work"/{bin,etc,data,redis,elsewhere}
cp -r "$policies" "$work/etc/policies"
# Where every user can reach it.
chmod 0711 "$work"
install -m 0755 "$program" "$work/bin/countersign"
if [ "$(id -u)" = 0 ]; then
  own=$(python3 -c '
import pwd
print(next(uid for uid in range(61000, 65000) if uid not in {user.pw_uid for user in pwd.getpwall()}))')
  as_gateway="setpriv --reuid $own --regid $own --clear-groups"
  give() { chown -R "$own:$own" "$@"; }
else
  as_gateway=
  give() { :; }
fi
give "$work/data" "$work/elsewhere"
mkdir "$work/cache"
give "$work/cache"

read -r callers operations redis < <("$(dirname "${BASH_SOURCE[0]}")/free_ports.py" 3)
case $store in
  sqlite) url=sqlite:$work/data/countersign.db ;;
  redis) url=redis://127.0.0.1:$redis ;;
esac
cat >"$work/etc/countersign.env" <<ENV
COUNTERSIGN_STORE=$url
COUNTERSIGN_CACHE_DIR=$work/cache
COUNTERSIGN_POLICIES=$work/etc/policies
COUNTERSIGN_LISTEN=127.0.0.1:$callers
COUNTERSIGN_OPS_LISTEN=127.0.0.1:$operations
COUNTERSIGN_POLICY_DEADLINE_MS=10000
ENV
# A shell that read this would run a part of it, and leave out another.
printf '%s\n' 'ADMIN_TOKEN=correct(horse)$battery&staple#1' >"$work/etc/secrets.env"
# Of the Redis, which other users of this machine can reach, too.
password=$(openssl rand -hex 16)
[ "$store" != redis ] || secret=yes
if [ -n "${secret:-}" ]; then
  echo "COUNTERSIGN_SECRET=$(openssl rand -hex 32)" >>"$work/etc/secrets.env"
fi
if [ "$store" = redis ]; then
  echo "REDIS_PASSWORD=$password" >>"$work/etc/secrets.env"
  # What an embedded store has in a file beside it.
  echo "COUNTERSIGN_RECEIPT_KEYS=$work/etc/receipts.key" >>"$work/etc/countersign.env"
  "$program" receipt rotate-keys --receipt-keys "$work/etc/receipts.key" --after-sec 0 >/dev/null
  # Made by root, and read by the gateway through its group.
  ! [ "$(id -u)" = 0 ] || { chgrp "$own" "$work/etc/receipts.key"; chmod 0640 "$work/etc/receipts.key"; }
  echo "COUNTERSIGN_SPOOL_DIR=$work/data/spool" >>"$work/etc/countersign.env"
fi
# As some editors leave it: its last line does not end.
printf 'SLACK_SIGNING_SECRET=0123456789abcdef0123456789abcdef' >>"$work/etc/secrets.env"
chmod 0600 "$work/etc/secrets.env"
cat >"$work/bin/runuser" <<SHIM
#!/usr/bin/env bash
# \`runuser -u countersign -- COMMAND\`
[ "\$1 \$2 \$3" = "-u countersign --" ] || exit 1
shift 3
exec $as_gateway "\$@"
SHIM
chmod +x "$work/bin/runuser"
install -m 0755 "$(dirname "${BASH_SOURCE[0]}")/systemd_run.py" "$work/bin/systemd-run"
files=(-p "EnvironmentFile=$work/etc/countersign.env" -p "EnvironmentFile=$work/etc/secrets.env")
# Takes the settings of the service over into this shell.
settings() {
  local setting
  while IFS= read -rd '' setting; do export "$setting"; done < <("$work/bin/systemd-run" "${files[@]}" env -0)
}

cat >"$work/bin/systemctl" <<SHIM
#!/usr/bin/env bash
# What systemd does with the services, as far as the runbook needs it.
set -euo pipefail
service=\$2
pid=$work/\$service.pid
alive() { kill -0 "\$(cat "\$pid")" 2>/dev/null; }
# The unit is \`Type=exec\`: once the program runs it is started, ready or not.
ready() { [ \$service = countersign ] || [ "\$(REDISCLI_AUTH=$password redis-cli -p $redis ping 2>/dev/null)" = PONG ]; }
stop() {
  [ -e "\$pid" ] || return 0
  kill -TERM "\$(cat "\$pid")" 2>/dev/null || true
  # It is no child of this shell, so it cannot be waited for.
  while alive; do sleep 0.05; done
  rm "\$pid"
}
start() {
  case \$service in
    countersign) setsid systemd-run ${files[*]} $as_gateway countersign serve >>"$work/log" 2>&1 & ;;
    redis-server)
      setsid redis-server --port $redis --bind 127.0.0.1 --requirepass $password --dir "$work/redis" --save '' \
        --appendonly yes --appendfsync always --maxmemory-policy noeviction >>"$work/log" 2>&1 & ;;
  esac
  echo \$! >"\$pid"
  until ready; do
    alive || { tail -5 "$work/log" >&2; exit 1; }
    sleep 0.05
  done
}
case \$1 in
  start) start ;;
  stop) stop ;;
  restart) stop; start ;;
  reload) kill -HUP "\$(cat "\$pid")" ;;
  *) exit 1 ;;
esac
SHIM
chmod +x "$work/bin/systemctl"

export PATH=$work/bin:$PATH ETC=$work/etc DATA=$work/data REDIS=$work/redis

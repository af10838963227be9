#!/usr/bin/env bash
# Carries out what INSTALL.md says in a folder of its own, twice, with settings in between: deploy/check/install.sh TARBALL
#
# The second time is an upgrade, which must leave settings, secrets, policies and what was added to the unit alone.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
tarball=$(realpath "${1:?usage: deploy/check/install.sh TARBALL}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$work"/{unpacked,bin} "$root"/{etc,usr/local/bin,usr/local/share,var/lib,var/cache,etc/systemd/system}
tar --extract --file "$tarball" --directory "$work/unpacked" --strip-components=1
cd "$work/unpacked"

awk '/^```/ { inside = !inside && $1 == "```sh"; next } inside' INSTALL.md |
  sed -E "s#(^|[ '=(>-])/(etc|usr/local|var/lib|var/cache)/#\1$root/\2/#g; s/ (-o countersign )?-g countersign / /" >"$work/commands"
if sed "s#$root/[^ ]*##g" "$work/commands" | grep -E '/(etc|usr|var)/'; then
  echo "INSTALL.md: this would change the machine itself" >&2
  exit 1
fi
printf '#!/bin/sh\necho "systemctl $*" >>"%s/called"\n' "$work" >"$work/bin/systemctl"
install -m 0755 "$here/systemd_run.py" "$work/bin/systemd-run"
# The machine's own, in the folder; elsewhere only the file is looked at.
cat >"$work/bin/systemd-sysusers" <<SHIM
#!/bin/sh
echo systemd-sysusers >>"$work/called"
[ ! -x /usr/bin/systemd-sysusers ] || exec /usr/bin/systemd-sysusers --root="$root"
SHIM
# There is no gateway to ask: the program says whether it would understand, and what it would have asked is written down.
cat >"$work/bin/countersign" <<SHIM
#!/bin/sh
"$root/usr/local/bin/countersign" "\$@" --help >/dev/null || exit 1
echo "countersign \$*: \$COUNTERSIGN_OPS_LISTEN \$SLACK_BOT_TOKEN" >>"$work/called"
SHIM
chmod +x "$work"/bin/*
PATH=$work/bin:$PATH

carry_out() { bash -euo pipefail "$work/commands" >"$work/said" 2>&1 || { cat "$work/said" >&2; exit 1; }; }
fail() { echo "INSTALL.md: $1" >&2; exit 1; }
carry_out
[ -x "$root/usr/local/bin/countersign" ] && [ -e "$root/etc/countersign/policies/policy-set.yaml" ] || fail "nothing is installed"
called() { grep -qxF "$1" "$work/called" || fail "\`$1\` is not called"; }
called systemd-sysusers
called "systemctl restart countersign"
# Where operations are: at the callers' address there is nothing to ask.
called "countersign check-config: 127.0.0.1:9090 "
called "countersign health --ready --wait-sec 60: 127.0.0.1:9090 "
[ ! -x /usr/bin/systemd-sysusers ] || grep -q '^countersign:' "$root/etc/passwd" || fail "there is no user \`countersign\`"
[ -d "$root/var/lib/countersign" ] || fail "there is no folder for the database"
[ "$(stat --format=%a "$root/etc/countersign/secrets.env")" = 600 ] || fail "others can read the secrets"

token='xoxb-$check&(1)#'
echo "SLACK_BOT_TOKEN=$token" >"$root/etc/countersign/secrets.env"
echo '# mine' >>"$root/etc/countersign/countersign.env"
echo '# mine' >>"$root/etc/countersign/policies/policy-set.yaml"
state() { (cd "$root/etc" && find countersign systemd/system/*.d -type f -exec sha256sum {} + | sort); }
before=$(state)
echo newer >>bin/countersign
carry_out
[ "$(state)" = "$before" ] || fail "an upgrade changes what is not its own: $(diff <(echo "$before") <(state))"
called "countersign health --ready --wait-sec 60: 127.0.0.1:9090 $token"
cmp -s bin/countersign "$root/usr/local/bin/countersign" || fail "an upgrade leaves the old program"
echo "  installed, and once more over itself"

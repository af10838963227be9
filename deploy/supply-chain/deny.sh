#!/usr/bin/env bash
# Checks the licences, the sources and the known vulnerabilities of every dependency, as deny.toml says:
# deploy/supply-chain/deny.sh [CHECK…], all checks by default. Installs cargo-deny into target/tools.
#
# The check `advisories` fetches its database from github.com; `bans licenses sources` need no network.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=0.20.2
tools=$PWD/target/tools/cargo-deny-$version
[ -x "$tools/bin/cargo-deny" ] || cargo install --locked --quiet --version "$version" --root "$tools" cargo-deny
check() { "$tools/bin/cargo-deny" --all-features --locked check "$@"; }
if [ $# -gt 0 ]; then
  check "$@"
else
  # Apart, so that a database that cannot be fetched does not hide what the others find.
  check bans licenses sources
  check advisories
fi

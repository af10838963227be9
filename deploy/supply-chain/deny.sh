#!/usr/bin/env bash
# Checks the licences, the sources and the known vulnerabilities of every dependency, as deny.toml says:
# deploy/supply-chain/deny.sh [CHECK…], all checks by default. Installs cargo-deny into target/tools.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=0.20.2
tools=$PWD/target/tools/cargo-deny-$version
[ -x "$tools/bin/cargo-deny" ] || cargo install --locked --quiet --version "$version" --root "$tools" cargo-deny
exec "$tools/bin/cargo-deny" --all-features --locked check "$@"

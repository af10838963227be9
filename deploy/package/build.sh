#!/usr/bin/env bash
# Builds the tarball from the sources: deploy/package/build.sh FOLDER
#
# The program needs the glibc that it was built with, or a later one: build on the oldest system that it is to run on. It
# takes 9 GB of memory; PROFILE=release takes less, and a call of the gateway more.
set -euo pipefail
out=${1:?usage: deploy/package/build.sh FOLDER}
source=$(cd "$(dirname "$0")/../.." && pwd)
profile=${PROFILE:-dist}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$source"
version=0.7.7
tools=$PWD/target/tools/cargo-auditable-$version
[ -x "$tools/bin/cargo-auditable" ] || cargo install --locked --quiet --version "$version" --root "$tools" cargo-auditable
# What the program is made of is written into it.
PATH=$tools/bin:$PATH cargo auditable build --locked --profile "$profile" --package countersign
policies=target/package/policies
rm -rf "$policies"
# Committed digests are those of builds on x86_64.
unpinned=$([ "$(uname -m)" = x86_64 ] || echo --allow-unpinned)
cargo xtask policies --out "$policies" ${unpinned:+"$unpinned"}
exec deploy/package/tarball.sh "${CARGO_TARGET_DIR:-target}/$profile/countersign" "$policies" "$out"

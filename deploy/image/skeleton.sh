#!/bin/sh
# Writes what dependencies are compiled from to a folder: every manifest, the lock file and the settings of cargo, and an
# empty file in place of the root of each target.
set -eu
out=${1:?usage: skeleton.sh FOLDER}

find . -name target -prune -o \( -name Cargo.toml -o -name Cargo.lock -o -name rust-toolchain.toml -o -path './.cargo/*' \) \
  -type f -print |
  while IFS= read -r file; do
    mkdir -p "$out/$(dirname "$file")"
    cp -p "$file" "$out/$file"
  done

# Roots of targets: as cargo finds them, and those that manifests name.
find . -name target -prune -o -name '*.rs' -type f -print |
  grep -E '/(src/(lib|main)|src/bin/[^/]+|(examples|tests|benches)/[^/]+|[^/]+/main)\.rs$' |
  while IFS= read -r file; do
    mkdir -p "$out/$(dirname "$file")"
    echo 'fn main() {}' >"$out/$file"
  done

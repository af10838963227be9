#!/usr/bin/env bash
# Writes what the program is made of, as CycloneDX: deploy/supply-chain/sbom.sh FILE. Installs cargo-cyclonedx into
# target/tools.
set -euo pipefail
out=${1:?usage: deploy/supply-chain/sbom.sh FILE}
cd "$(dirname "$0")/../.."
version=0.5.9
tools=$PWD/target/tools/cargo-cyclonedx-$version
[ -x "$tools/bin/cargo-cyclonedx" ] || cargo install --locked --quiet --version "$version" --root "$tools" cargo-cyclonedx
# It writes beside the manifest.
"$tools/bin/cargo-cyclonedx" cyclonedx --manifest-path host/server/Cargo.toml --format json --spec-version 1.5 --override-filename countersign.cdx
mkdir -p "$(dirname "$out")"
# Our own crates are named by their folders: by those of the project, and not of this machine.
sed "s|path+file://$PWD/||g" host/server/countersign.cdx.json >"$out"
# It writes one beside every other member of the workspace, too.
find . -path ./target -prune -o -name countersign.cdx.json -exec rm {} +

#!/usr/bin/env bash
# Builds the image: deploy/image/build.sh [--release] TAG [OPTION…]
#
# With Docker's buildx if there is one, else with buildah; options go to it, such as `--platform linux/amd64,linux/arm64`
# and `--push`. `--release` takes no base image without a digest, and no module but those whose digests are committed.
set -euo pipefail
cd "$(dirname "$0")/../.."

release=
if [ "${1-}" = --release ]; then
  release=1
  shift
fi
tag=${1:?usage: deploy/image/build.sh [--release] TAG [OPTION…]}
shift

arguments=()
while IFS= read -r base; do
  if [ -n "$release" ] && ! [[ $base =~ @sha256:[0-9a-f]{64}$ ]]; then
    echo "$base has no digest: run deploy/image/pin.sh and commit what it writes" >&2
    exit 1
  fi
  arguments+=(--build-arg "$base")
done < <(grep '^[A-Z]' deploy/image/bases.env)

# The Dockerfile builds modules of any digest. What is given later wins: the workflow allows it on arm64.
[ -z "$release" ] || arguments+=(--build-arg POLICIES=)

if command -v docker >/dev/null && docker buildx version >/dev/null 2>&1; then
  exec docker buildx build "${arguments[@]}" --tag "$tag" "$@" .
elif command -v buildah >/dev/null; then
  # Docker's format, since the other has no health checks.
  exec buildah build --format docker --layers "${arguments[@]}" --tag "$tag" "$@" .
fi
echo "neither Docker's buildx nor buildah is installed" >&2
exit 1

#!/usr/bin/env bash
# Writes the digests of the base images into bases.env, as their registries have them now. Needs skopeo, or Docker with
# buildx.
set -euo pipefail
file=$(dirname "$0")/bases.env

digest() {
  if command -v skopeo >/dev/null; then
    # Of the index, which covers every platform.
    skopeo inspect --raw "docker://$1" | sha256sum | sed 's/^\([0-9a-f]*\).*/sha256:\1/'
  else
    docker buildx imagetools inspect "$1" --format '{{.Manifest.Digest}}'
  fi
}

new=$(mktemp)
trap 'rm -f "$new"' EXIT
while IFS= read -r line; do
  case $line in
    [A-Z]*=*)
      image=${line#*=}
      image=${image%@*}
      found=$(digest "$image")
      [[ $found =~ ^sha256:[0-9a-f]{64}$ ]] || { echo "no digest for $image: $found" >&2; exit 1; }
      echo "${line%%=*}=$image@$found"
      ;;
    *) echo "$line" ;;
  esac
done <"$file" >"$new"
cat "$new" >"$file"
grep '^[A-Z]' "$file"

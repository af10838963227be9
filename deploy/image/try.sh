#!/usr/bin/env bash
# Builds the image with no engine and no registry, and tries it:
#
#   deploy/image/try.sh [FOLDER]                      FOLDER gets the program and its debug information
#   deploy/image/try.sh --built PROGRAM POLICIES      takes these in place of what the Dockerfile would compile
#
# The two base images are made here from Debian's packages: one with a C compiler, into which the Rust toolchain of this
# machine is mounted, and one with what distroless' `cc` has. What is built of them is the Dockerfile as it is. The image
# is pushed to a registry, pulled again, started without rights as the user that it names, asked, and stopped.
#
# Needs root, the toolchain of rust-toolchain.toml, and Debian's buildah, mmdebstrap and docker-registry.
set -euo pipefail
built=() keep=
case ${1-} in
  --built) built=("$(realpath "${2:?a program}")" "$(realpath "${3:?a folder with policies}")") ;;
  ?*) keep=$(realpath "$1") ;;
esac
cd "$(dirname "$0")/../.."
for program in buildah mmdebstrap docker-registry curl python3; do
  command -v "$program" >/dev/null || { echo "$program is needed (Debian: apt-get install $program)" >&2; exit 1; }
done

# Layers of a large build: not in a /tmp that is memory.
work=$(mktemp -d "${TMPDIR:-/var/tmp}/countersign-image.XXXXXXXX")
running=()
cleanup() {
  for pid in "${running[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait || true
  rm -rf --one-file-system "$work"
}
trap cleanup EXIT
b() {
  local command=$1
  shift
  buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$command" "$@"
}
say() { echo "── $*"; }

say "base images from Debian"
base() {
  local name=$1 tar=$2
  shift 2
  local container
  container=$(b from scratch)
  b add --quiet "$container" "$tar" / >/dev/null
  b config "$@" "$container"
  b commit --quiet --format docker "$container" "localhost/$name" >/dev/null
  b rm "$container" >/dev/null
  rm "$tar"
}
mmdebstrap --quiet --variant=extract --include=base-files,netbase,tzdata,libc6,libgcc-s1 \
  --customize-hook='printf "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n" >"$1/etc/passwd"' \
  --customize-hook='mkdir -p "$1/etc/ssl/certs" && cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"' \
  bookworm "$work/runtime.tar"
base runtime "$work/runtime.tar" --user 65532
arguments=(--format docker --isolation chroot --layers --build-arg RUNTIME_IMAGE=localhost/runtime)
if [ ${#built[@]} = 0 ]; then
  mmdebstrap --quiet --variant=essential --include=gcc,libc6-dev,binutils bookworm "$work/toolchain.tar"
  toolchain=$(rustc --print sysroot)
  base toolchain "$work/toolchain.tar" --env "PATH=$toolchain/bin:/root/.cargo/bin:/usr/sbin:/usr/bin:/sbin:/bin"
  arguments+=(--build-arg RUST_IMAGE=localhost/toolchain --build-arg POLICIES=)
  arguments+=(--volume "$toolchain:$toolchain:ro" --volume /etc/ssl/certs:/etc/ssl/certs:ro)
else
  stage=$work/stage
  mkdir -p "$stage"/out/{usr/share/countersign,var/lib/countersign,var/cache/countersign}
  deploy/package/split.sh "${built[0]}" "$stage/out/usr/bin" "$stage/debug"
  cp -r "${built[1]}" "$stage/out/usr/share/countersign/policies"
  # In place of the stage of this name.
  arguments+=(--build-context "build=$stage")
fi

say "the image, of the Dockerfile"
b build "${arguments[@]}" --tag localhost/countersign .
if [ -n "$keep" ]; then
  b build --quiet "${arguments[@]}" --target debug --tag localhost/debug . >/dev/null
  mkdir -p "$keep"
  for image in countersign debug; do
    container=$(b from "localhost/$image")
    cp "$(b mount "$container")"/{usr/bin/countersign,countersign.debug} "$keep/" 2>/dev/null || true
    b rm "$container" >/dev/null
  done
  ls -l "$keep"
fi

say "to a registry and back"
port=$(deploy/check/free_ports.py 1)
cat >"$work/registry.yml" <<YAML
version: 0.1
storage: { filesystem: { rootdirectory: $work/registry } }
http: { addr: 127.0.0.1:$port }
YAML
docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
running+=($!)
curl --silent --fail --retry 50 --retry-connrefused --retry-delay 1 "http://127.0.0.1:$port/v2/" >/dev/null
b push --quiet --tls-verify=false localhost/countersign "docker://127.0.0.1:$port/countersign:try"
b rmi --force localhost/countersign >/dev/null
image=127.0.0.1:$port/countersign:try
b pull --quiet --tls-verify=false "docker://$image" >/dev/null

say "what the image says of itself"
b inspect --type image "$image" >"$work/image.json"
python3 - "$work/image.json" <<'PYTHON'
import json, sys

config = json.load(open(sys.argv[1]))["Docker"]["config"]
expected = {"User": "65532:65532", "StopSignal": "SIGTERM", "Entrypoint": ["/usr/bin/countersign"], "Cmd": ["serve"]}
for key, value in expected.items():
    assert config[key] == value, f"{key} is {config[key]}"
assert config["Healthcheck"]["Test"] == ["CMD", "/usr/bin/countersign", "health"], config["Healthcheck"]
assert set(config["Volumes"]) == {"/var/lib/countersign", "/var/cache/countersign"}, config["Volumes"]
PYTHON
container=$(b from "$image")
root=$(b mount "$container")
for shell in sh bash dash busybox; do
  [ ! -e "$root/bin/$shell" ] && [ ! -e "$root/usr/bin/$shell" ] || { echo "the image has $shell" >&2; exit 1; }
done
[ "$(stat --format=%u "$root/var/lib/countersign" "$root/var/cache/countersign" | sort -u)" = 65532 ]
du --summarize --human-readable --apparent-size "$root" | sed "s|$root|the image, unpacked|"
b umount "$container" >/dev/null

say "started, asked and stopped"
run() { b run --isolation chroot --cap-drop all "$@"; }
settings=(--env COUNTERSIGN_INSECURE_ANONYMOUS=true --env COUNTERSIGN_POLICIES=/usr/share/countersign/policies
  --env COUNTERSIGN_LISTEN=127.0.0.1:0 --env COUNTERSIGN_OPS_LISTEN=127.0.0.1:0)
run "${settings[@]}" "$container" -- /usr/bin/countersign check-config
run "${settings[@]}" "$container" -- /usr/bin/countersign serve >"$work/out" 2>"$work/log" &
gateway=$!
running+=("$gateway")
for _ in $(seq 600); do
  grep --quiet '^listening on' "$work/out" && break
  kill -0 "$gateway" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
  sleep 0.1
done
callers=$(sed -n 's|^listening on http://||p' "$work/out")
operations=$(sed -n 's|^operations on http://||p' "$work/out")
[ "$(curl --silent --fail "http://$operations/healthz")" = ok ]
run "$container" -- /usr/bin/countersign health --ready --listen "$callers" --ops-listen "$operations"
echo
curl --silent --fail --show-error "http://$callers/api/guard/request" --header 'content-type: application/json' --data '{
  "action": "deploy_staging", "params": {"service": "web", "ref": "v1"},
  "meta": {"origin": {"repo": "acme/web"}, "requester": {"id": "U0DANA", "source": "slack"}, "justification": "trying it"}}' |
  grep --only-matching '"status":"[a-z_]*"'

# The process is a child of buildah's; nothing else is looked for.
descendants() {
  local child
  for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do
    echo "$child"
    descendants "$child"
  done
}
for pid in $(descendants "$gateway"); do
  if [ "$(tr '\0' ' ' <"/proc/$pid/cmdline")" = "/usr/bin/countersign serve " ]; then
    [ "$(awk '/^Uid:/ { print $2 }' "/proc/$pid/status")" = 65532 ] || { echo "it runs as another user" >&2; exit 1; }
    [ "$(awk '/^CapEff:/ { print $2 }' "/proc/$pid/status")" = 0000000000000000 ] || { echo "it has rights" >&2; exit 1; }
    kill -TERM "$pid"
    stopped=1
  fi
done
[ -n "${stopped-}" ] || { echo "no process of the gateway" >&2; exit 1; }
wait "$gateway" || { echo "it ended with $?" >&2; cat "$work/log" >&2; exit 1; }
say "the image works"

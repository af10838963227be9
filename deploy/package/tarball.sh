#!/usr/bin/env bash
# Makes the tarball of a release: deploy/package/tarball.sh PROGRAM POLICIES FOLDER
#
# PROGRAM is a release build of `countersign`, POLICIES what `cargo xtask policies` made. FOLDER gets
# countersign-VERSION-PLATFORM.tar.gz, the same with the debug information, and their SHA-256. The same inputs make the
# same bytes.
set -euo pipefail
program=${1:?usage: deploy/package/tarball.sh PROGRAM POLICIES FOLDER}
policies=${2:?}
out=${3:?}
source=$(cd "$(dirname "$0")/../.." && pwd)

version=$("$program" --version | sed 's/^countersign //')
platform=$(uname -m)-linux-gnu
name=countersign-$version-$platform
# The time of the last commit, so that a tarball does not change with the time at which it is made.
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$source" log -1 --format=%ct)}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/$name
mkdir -p "$root"/{bin,share/countersign,share/man/man1,share/bash-completion/completions} \
  "$root"/share/{zsh/site-functions,fish/vendor_completions.d} "$root"/lib/{systemd/system,sysusers.d} "$out"

"$source/deploy/package/split.sh" "$program" "$root/bin" "$work/debug"
# Only what comes with the project: tests build more.
mkdir -p "$root/share/countersign/policies/modules"
cp -r "$policies/policy-set.yaml" "$policies/schemas" "$root/share/countersign/policies/"
for policy in override-guard persona-gate quorum; do
  cp "$policies/modules/$policy.wasm" "$root/share/countersign/policies/modules/"
done
"$program" completions bash >"$root/share/bash-completion/completions/countersign"
"$program" completions zsh >"$root/share/zsh/site-functions/_countersign"
"$program" completions fish >"$root/share/fish/vendor_completions.d/countersign.fish"
"$program" man >"$root/share/man/man1/countersign.1"
for command in serve check-config ask wait hook hash policy keys access receipt audit store; do
  "$program" man "$command" >"$root/share/man/man1/countersign-$command.1"
done
cp "$source/deploy/package/countersign.service" "$root/lib/systemd/system/"
cp "$source/deploy/package/countersign.sysusers" "$root/lib/sysusers.d/countersign.conf"
cp "$source/deploy/package/countersign.env" "$source/deploy/slack-app-manifest.yaml" "$root/share/countersign/"
cp "$source/LICENSE" "$source/CHANGELOG.md" "$source/deploy/package/INSTALL.md" "$root/"

pack() {
  tar --create --directory "$1" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$epoch" "$2" |
    gzip --no-name >"$out/$3"
}
pack "$work" "$name" "$name.tar.gz"
mkdir "$work/$name-debug"
mv "$work/debug/countersign.debug" "$work/$name-debug/"
pack "$work" "$name-debug" "$name-debug.tar.gz"
cd "$out"
sha256sum "$name.tar.gz" "$name-debug.tar.gz" | tee "$name.sha256"

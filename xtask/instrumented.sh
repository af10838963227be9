#!/bin/sh
# Compiles a crate of the workspace with counters of what runs: what `cargo xtask coverage` has cargo call in place of
# rustc. The counters are in a file that is mapped into memory, so that a process that is killed has counted, too.
case " $* " in
  *" --target wasm32-unknown-unknown "*) exec "$@" ;;
esac
exec "$@" -C instrument-coverage -C llvm-args=-runtime-counter-relocation

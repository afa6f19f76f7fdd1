#!/bin/sh
# cargo calls this script in place of rustc for the crates of this workspace only. It instruments them: they count
# edges and compared values, and check arithmetic and assertions. Dependencies are built as usual.
# The flags are those of cargo-fuzz. A stable rustc accepts them.
rustc=$1
shift
for word; do
    # The compiler runs these itself, without a fuzzer.
    case $word in proc-macro | build_script_build) exec "$rustc" "$@" ;; esac
done
exec "$rustc" "$@" --cfg fuzzing -Copt-level=1 -Cdebug-assertions=on -Coverflow-checks=on \
    -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares

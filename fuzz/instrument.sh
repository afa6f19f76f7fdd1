#!/bin/sh
# cargo calls this in place of rustc for the crates of this workspace, and for those alone: they count which edges of
# their code run and what they compare, and check arithmetic and assertions. What they depend on is built as ever.
# The flags are those of cargo-fuzz; a stable rustc takes them.
rustc=$1
shift
for word; do
    # Run by the compiler itself, where there is no fuzzer to count for.
    case $word in proc-macro | build_script_build) exec "$rustc" "$@" ;; esac
done
exec "$rustc" "$@" --cfg fuzzing -Copt-level=1 -Cdebug-assertions=on -Coverflow-checks=on \
    -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares

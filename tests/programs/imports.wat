;; Imports a clock, which the gateway does not provide.
(module
  (import "wasi_snapshot_preview1" "clock_time_get" (func (param i32 i64 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
  (func (export "walgate:guest/transform@1.0.0#describe") (result i32) unreachable)
  (func (export "walgate:guest/transform@1.0.0#plan") (param i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)
  (func (export "walgate:guest/transform@1.0.0#process") (param i32 i32) (result i32) unreachable))

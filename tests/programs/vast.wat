;; Needs 1 GiB of memory at its start.
(module
  (memory (export "memory") 16384)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
  (func (export "walgate:guest/transform@1.0.0#describe") (result i32) unreachable)
  (func (export "walgate:guest/transform@1.0.0#plan") (param i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)
  (func (export "walgate:guest/transform@1.0.0#process") (param i32 i32) (result i32) unreachable))

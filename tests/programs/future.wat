;; Exports an interface version that no gateway supports yet.
(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
  (func (export "walgate:guest/transform@2.0.0#describe") (result i32) unreachable)
  (func (export "walgate:guest/transform@2.0.0#plan") (param i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)
  (func (export "walgate:guest/transform@2.0.0#process") (param i32 i32) (result i32) unreachable))

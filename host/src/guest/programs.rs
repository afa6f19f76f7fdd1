//! Wasm programs for the tests of guests: core modules with a hand-made canonical ABI.
//!
//! They need no wasm target, and each misbehaviour is as small as it can be.

use crate::guest::plan::{OutputColumn, PlanAnswer};

const TRANSFORM: &str = "walgate:guest/transform";
/// Static data begins here; the heap begins one page higher.
const DATA: usize = 1024;

/// A guest as WAT: what it plans, and the body of its `process`.
#[derive(Clone, Debug)]
pub struct Program {
    pub version: &'static str,
    pub answer: PlanAnswer,
    /// Instead of the answer above: WAT that leaves the address of a result.
    pub plan: Option<String>,
    /// WAT that leaves the address of a result; `$in` and `$len` are the batch.
    pub process: String,
    /// More imports.
    pub imports: String,
    /// Other definitions at the end of the module.
    pub more: String,
}

impl Program {
    /// Keeps all rows and changes nothing.
    pub fn keeping(answer: PlanAnswer) -> Program {
        Program {
            version: "1.0.0",
            answer,
            plan: None,
            process: "(call $keep (local.get $in))".to_owned(),
            imports: String::new(),
            more: String::new(),
        }
    }

    /// Decides by the first byte of the first column read, which is text. `D` drops, `E` is an
    /// error of the row, `P` traps, `L` loops. `U` leaves patches untouched, `N` makes them null.
    /// Any other byte keeps the row. The patched columns, which are text, become a `*` and that
    /// byte.
    pub fn deciding(answer: PlanAnswer) -> Program {
        let process = "(call $decide (local.get $in))".to_owned();
        Program { process, ..Program::keeping(answer) }
    }

    pub fn process(answer: PlanAnswer, body: &str) -> Program {
        Program { process: body.to_owned(), ..Program::keeping(answer) }
    }

    pub fn wasm(&self) -> Vec<u8> {
        wat::parse_str(self.wat()).unwrap_or_else(|error| panic!("{error}\n{}", self.wat()))
    }

    fn wat(&self) -> String {
        let mut data = Data::default();
        let describe = data.description("test", "0.1.0");
        let answer = data.answer(&self.answer);
        let plan = self.plan.clone().unwrap_or_else(|| format!("(i32.const {answer})"));
        let columns = self.answer.replaces.len() + self.answer.adds.len();
        let bytes: String = data.bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
        let Program { version, process, imports, more, .. } = self;
        format!(
            r#"(module
  (import "walgate:guest/host@{version}" "log" (func $log (param i32 i32 i32)))
  {imports}
  (memory (export "memory") 2)
  (global $heap (mut i32) (i32.const 65536))
  (global $columns i32 (i32.const {columns}))
  (data (i32.const {DATA}) "{bytes}")
  (data (i32.const 16) "it hurts")
  {LIBRARY}
  (func (export "{TRANSFORM}@{version}#describe") (result i32) (i32.const {describe}))
  (func (export "{TRANSFORM}@{version}#plan") (param i32 i32 i32 i32 i32 i32 i32) (result i32) {plan})
  (func (export "{TRANSFORM}@{version}#process") (param $in i32) (param $len i32) (result i32) {process})
  (func (export "cabi_post_{TRANSFORM}@{version}#process") (param i32)
    (global.set $heap (i32.const 65536)))
  {more}
)"#
        )
    }
}

/// Allocation, results, and the two answers.
const LIBRARY: &str = r#"
  (func $alloc (param $size i32) (result i32) (local $at i32) (local $end i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (local.set $end (i32.add (local.get $at) (local.get $size)))
    (global.set $heap (local.get $end))
    (if (i32.gt_u (local.get $end) (i32.mul (memory.size) (i32.const 65536)))
      (then (if (i32.eq (i32.const -1) (memory.grow (i32.add (i32.const 1)
              (i32.shr_u (i32.sub (local.get $end) (i32.mul (memory.size) (i32.const 65536))) (i32.const 16)))))
        (then (unreachable)))))
    (local.get $at))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (call $alloc (local.get 3)))
  (func $result (param $tag i32) (param $at i32) (param $len i32) (result i32) (local $r i32)
    (local.set $r (call $alloc (i32.const 16)))
    (i32.store8 (local.get $r) (local.get $tag))
    (i32.store offset=4 (local.get $r) (local.get $at))
    (i32.store offset=8 (local.get $r) (local.get $len))
    (local.get $r))
  (func $ok (param i32 i32) (result i32) (call $result (i32.const 0) (local.get 0) (local.get 1)))
  (func $error (result i32) (call $result (i32.const 1) (i32.const 16) (i32.const 8)))
  (func $round (param i32) (result i32) (i32.and (i32.add (local.get 0) (i32.const 7)) (i32.const -8)))
  ;; The header of an answer, with its verdicts right behind the directory; all of them `keep`.
  (func $begin (param $in i32) (param $size i32) (result i32) (local $out i32) (local $at i32)
    (local.set $out (call $alloc (local.get $size)))
    (memory.fill (local.get $out) (i32.const 0) (local.get $size))
    (i32.store (local.get $out) (i32.const 0x31444757))
    (i32.store offset=4 (local.get $out) (i32.load offset=4 (local.get $in)))
    (i32.store offset=8 (local.get $out) (global.get $columns))
    (local.set $at (i32.add (i32.const 24) (i32.mul (i32.const 16) (global.get $columns))))
    (i32.store offset=16 (local.get $out) (local.get $at))
    (memory.fill (i32.add (local.get $out) (local.get $at)) (i32.const 1) (i32.load offset=4 (local.get $in)))
    (local.get $out))
  (func $keep (param $in i32) (result i32) (local $size i32)
    (local.set $size (i32.add (i32.const 24) (i32.load offset=4 (local.get $in))))
    (call $ok (call $begin (local.get $in) (local.get $size)) (local.get $size)))
  (func $first (param $in i32) (param $row i32) (result i32) (local $data i32)
    (local.set $data (i32.add (local.get $in) (i32.load offset=32 (local.get $in))))
    (if (i32.ne (i32.const 1) (i32.load8_u (i32.add (local.get $row)
          (i32.add (local.get $in) (i32.load offset=28 (local.get $in))))))
      (then (return (i32.const 0))))
    (i32.load8_u (i32.add
      (i32.add (local.get $data) (i32.mul (i32.const 4) (i32.add (i32.const 1) (i32.load offset=4 (local.get $in)))))
      (i32.load (i32.add (local.get $data) (i32.mul (i32.const 4) (local.get $row)))))))
  (func $decide (param $in i32) (result i32)
    (local $rows i32) (local $out i32) (local $at i32) (local $row i32) (local $c i32) (local $column i32)
    (local $verdicts i32) (local $size i32) (local $data i32) (local $width i32)
    (local.set $rows (i32.load offset=4 (local.get $in)))
    (local.set $verdicts (i32.add (i32.const 24) (i32.mul (i32.const 16) (global.get $columns))))
    ;; Of each column: states, ends, two bytes a row.
    (local.set $width (i32.add (call $round (local.get $rows))
      (call $round (i32.add (i32.const 4) (i32.mul (i32.const 6) (local.get $rows))))))
    (local.set $at (call $round (i32.add (local.get $verdicts) (local.get $rows))))
    (local.set $size (i32.add (local.get $at) (i32.mul (global.get $columns) (local.get $width))))
    (local.set $out (call $begin (local.get $in) (local.get $size)))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $row) (local.get $rows)))
      (local.set $c (call $first (local.get $in) (local.get $row)))
      (if (i32.eq (local.get $c) (i32.const 80)) (then (unreachable)))
      (if (i32.eq (local.get $c) (i32.const 76)) (then (loop $ever (br $ever))))
      (if (i32.eq (local.get $c) (i32.const 68)) (then (i32.store8
        (i32.add (i32.add (local.get $out) (local.get $verdicts)) (local.get $row)) (i32.const 0))))
      (if (i32.eq (local.get $c) (i32.const 69)) (then (i32.store8
        (i32.add (i32.add (local.get $out) (local.get $verdicts)) (local.get $row)) (i32.const 2))))
      (local.set $row (i32.add (local.get $row) (i32.const 1)))
      (br $next)))
    (block $end (loop $columns
      (br_if $end (i32.ge_u (local.get $column) (global.get $columns)))
      (local.set $data (i32.add (local.get $out) (i32.add (i32.const 24) (i32.mul (i32.const 16) (local.get $column)))))
      (i32.store8 (local.get $data) (i32.const 3))
      (i32.store offset=4 (local.get $data) (local.get $at))
      (i32.store offset=8 (local.get $data) (i32.add (local.get $at) (call $round (local.get $rows))))
      (i32.store offset=12 (local.get $data) (i32.add (i32.const 4) (i32.mul (i32.const 6) (local.get $rows))))
      (call $stars (local.get $in) (i32.add (local.get $out) (local.get $at))
        (i32.add (i32.add (local.get $out) (local.get $at)) (call $round (local.get $rows))))
      (local.set $at (i32.add (local.get $at) (local.get $width)))
      (local.set $column (i32.add (local.get $column) (i32.const 1)))
      (br $columns)))
    (call $ok (local.get $out) (local.get $size)))
  (func $stars (param $in i32) (param $states i32) (param $ends i32)
    (local $rows i32) (local $row i32) (local $c i32) (local $text i32)
    (local.set $rows (i32.load offset=4 (local.get $in)))
    (local.set $text (i32.add (local.get $ends) (i32.mul (i32.const 4) (i32.add (i32.const 1) (local.get $rows)))))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $row) (local.get $rows)))
      (local.set $c (call $first (local.get $in) (local.get $row)))
      (i32.store8 (i32.add (local.get $states) (local.get $row))
        (select (i32.const 2)
          (select (i32.const 0) (i32.const 1) (i32.eq (local.get $c) (i32.const 78)))
          (i32.eq (local.get $c) (i32.const 85))))
      (i32.store16 (i32.add (local.get $text) (i32.mul (i32.const 2) (local.get $row)))
        (i32.or (i32.const 42) (i32.shl (local.get $c) (i32.const 8))))
      (local.set $row (i32.add (local.get $row) (i32.const 1)))
      (i32.store (i32.add (local.get $ends) (i32.mul (i32.const 4) (local.get $row)))
        (i32.mul (i32.const 2) (local.get $row)))
      (br $next))))
"#;

/// Records in the canonical ABI, at fixed addresses.
#[derive(Default)]
struct Data {
    bytes: Vec<u8>,
}

impl Data {
    fn place(&mut self, bytes: &[u8]) -> u32 {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let at = DATA + self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        at as u32
    }

    fn string(&mut self, text: &str) -> Vec<u8> {
        pair(self.place(text.as_bytes()), text.len())
    }

    fn list(&mut self, items: Vec<Vec<u8>>) -> Vec<u8> {
        let at = self.place(&items.concat());
        pair(at, items.len())
    }

    fn description(&mut self, name: &str, version: &str) -> u32 {
        let record = [self.string(name), self.string(version)].concat();
        self.place(&record)
    }

    fn outputs(&mut self, outputs: &[OutputColumn]) -> Vec<u8> {
        let items = outputs.iter().map(|output| {
            let strings = [self.string(&output.column), self.string(&output.type_name)].concat();
            [strings, vec![u8::from(output.nullable), 0, 0, 0]].concat()
        });
        let items = items.collect();
        self.list(items)
    }

    /// `result<plan, string>`.
    fn answer(&mut self, answer: &PlanAnswer) -> u32 {
        let reads = answer.reads.iter().map(|(column, unchanged)| {
            [self.string(column), vec![u8::from(*unchanged), 0, 0, 0]].concat()
        });
        let reads = reads.collect();
        let reads = self.list(reads);
        let hides = answer.hides.iter().map(|column| self.string(column)).collect();
        let hides = self.list(hides);
        let replaces = self.outputs(&answer.replaces);
        let adds = self.outputs(&answer.adds);
        let filters = vec![u8::from(answer.filters), 0, 0, 0];
        let record = [vec![0; 4], reads, hides, replaces, adds, filters].concat();
        self.place(&record)
    }
}

fn pair(at: u32, len: usize) -> Vec<u8> {
    [at.to_le_bytes(), (len as u32).to_le_bytes()].concat()
}

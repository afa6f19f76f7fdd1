//! Tests of what is accepted as a guest.

use super::*;
use crate::guest::{plan::PlanAnswer, programs::Program};

fn program() -> Program {
    Program::keeping(PlanAnswer::default())
}

fn refused(wasm: &[u8]) -> String {
    read_component(wasm).unwrap_err().to_string()
}

#[test]
fn a_module_becomes_a_component() {
    let wasm = program().wasm();
    let made = read_component(&wasm).unwrap();
    assert!(Parser::is_component(&made.bytes));
    assert_eq!((&*made.transform, made.stubbed.len()), (TRANSFORM, 0));
    let again = read_component(&made.bytes).unwrap();
    assert_eq!(again.bytes, made.bytes, "a component stays as it is");
}

#[test]
fn a_module_that_says_what_it_is_is_believed() {
    let mut resolve = Resolve::default();
    let package = resolve.push_str(WIT_PATH, WIT).unwrap();
    let world = resolve.select_world(&[package], Some(WORLD)).unwrap();
    let mut wasm = program().wasm();
    embed_component_metadata(&mut wasm, &resolve, world, StringEncoding::UTF8).unwrap();
    assert_eq!(read_component(&wasm).unwrap().transform, TRANSFORM);
}

#[test]
fn what_is_not_wasm_is_refused() {
    assert!(refused(b"").starts_with("it is not WebAssembly"));
    assert!(refused(b"\x7fELF").starts_with("it is not WebAssembly"));
    let mut cut = program().wasm();
    cut.truncate(100);
    assert!(refused(&cut).starts_with("it is not WebAssembly"));
}

#[test]
fn other_versions_are_named() {
    let later = Program { version: "2.0.0", ..program() };
    let message = refused(&later.wasm());
    assert!(
        message.contains("walgate:guest/host@2.0.0, this gateway walgate:guest/host@1.0.0"),
        "{message}"
    );
    let wat = r#"(module (func (export "walgate:guest/transform@2.1.0#process")))"#;
    let message = refused(&wat::parse_str(wat).unwrap());
    let expected = "it speaks walgate:guest/transform@2.1.0, this gateway walgate:guest/transform@1.0.0: build \
                    it again with the SDK of this gateway's version";
    assert_eq!(message, expected);
}

#[test]
fn without_the_interface_there_is_no_guest() {
    let message = refused(&wat::parse_str("(module)").unwrap());
    assert!(message.starts_with("it does not export walgate:guest/transform@1.0.0; build it"));
    let message = refused(&wat::parse_str("(component)").unwrap());
    assert!(message.starts_with("it does not export walgate:guest/transform@1.0.0; build it"));
    let other = r#"(module (func (export "my:own/thing@1.0.0#run")))"#;
    let message = refused(&wat::parse_str(other).unwrap());
    assert!(message.contains("but my:own/thing@1.0.0;"), "{message}");
}

#[test]
fn imports_are_refused_by_name() {
    let with = |import: &str| Program { imports: import.to_owned(), ..program() }.wasm();
    let message = refused(&with(r#"(import "env" "now" (func))"#));
    assert!(message.starts_with("it imports env, which a guest does not get"), "{message}");
    let wasi = r#"(import "wasi_snapshot_preview1" "fd_write" (func))"#;
    assert!(refused(&with(wasi)).contains("wasi_snapshot_preview1"));
    let component = r#"(component (import "my:own/clock@1.0.0" (instance)))"#;
    assert!(refused(&wat::parse_str(component).unwrap()).contains("my:own/clock@1.0.0"));
}

#[test]
fn system_interfaces_of_components_are_stubbed() {
    let wat = r#"(component
        (import "wasi:cli/environment@0.2.3" (instance))
        (import "wasi:clocks/wall-clock@0.2.3" (instance))
        (instance $i)
        (export "walgate:guest/transform@1.3.0" (instance $i)))"#;
    let wasm = wat::parse_str(wat).unwrap();
    let made = read_component(&wasm).unwrap();
    assert_eq!(made.stubbed, ["wasi:cli/environment@0.2.3", "wasi:clocks/wall-clock@0.2.3"]);
    assert_eq!(made.transform, "walgate:guest/transform@1.3.0", "a later minor version");
}

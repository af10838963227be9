//! What is no policy module, and is told so in words.

use std::sync::Arc;

use super::*;
use crate::ModuleError;

#[track_caller]
fn refused(bytes: &[u8], words: &[&str]) -> ModuleError {
    let error = engine().load(bytes, &[]).unwrap_err();
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    error
}

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[test]
fn real_modules_describe_themselves() {
    let engine = engine();
    for name in ["quorum", "persona-gate", "override-guard", "misbehaving"] {
        let module = module(&engine, name);
        assert_eq!(module.descriptor().name, name);
        assert_eq!(module.digest(), Digest::of(&bytes_of(name)));
        assert!(module.descriptor().config_schema.is_object());
        assert!(Arc::ptr_eq(&module, &super::module(&engine, name)), "compiled twice");
    }
}

#[test]
fn bytes_that_are_no_component() {
    refused(b"", &["no WebAssembly"]);
    refused(b"#!/bin/sh\nexit 1\n", &["no WebAssembly"]);
    refused(&wat("(module)"), &["core WebAssembly module", "component"]);
    let quorum = bytes_of("quorum");
    let truncated = &quorum[..quorum.len() / 2];
    assert!(matches!(refused(truncated, &["not a component"]), ModuleError::Invalid(_)));
    let mut garbage = b"\0asm\x0d\0\x01\0".to_vec();
    garbage.extend([0xff; 100]);
    assert!(matches!(refused(&garbage, &["not a component"]), ModuleError::Invalid(_)));
    let large = vec![0; (2 << 20) + 1];
    refused(&large, &["2097153 bytes", "at most 2097152"]);
}

#[test]
fn imports_are_named() {
    let clock = r#"(component
        (import "wasi:clocks/wall-clock@0.2.0" (instance))
        (import "wasi:filesystem/types@0.2.0" (instance)))"#;
    refused(
        &wat(clock),
        &["imports `wasi:clocks/wall-clock@0.2.0`, `wasi:filesystem/types@0.2.0`", "may import nothing"],
    );
}

#[test]
fn other_interfaces() {
    refused(&wat("(component)"), &["countersign:policy/policy@0.2.0", "no such export"]);
    let exports = |functions: &str| {
        wat(&format!(
            r#"(component
                (core module $m (func (export "f")))
                (core instance $i (instantiate $m))
                (func $f (canon lift (core func $i "f")))
                (instance $p {functions})
                (export "countersign:policy/policy@0.2.0" (instance $p)))"#
        ))
    };
    refused(&exports(r#"(export "describe" (func $f))"#), &["lacks the function `check-config`"]);
    let all = r#"(export "describe" (func $f)) (export "check-config" (func $f))
                 (export "admit" (func $f)) (export "judge" (func $f))"#;
    refused(&exports(all), &["`describe` has another signature"]);
}

#[test]
fn instructions_that_could_differ_are_off() {
    let inside = |module: &str| wat(&format!("(component (core module {module}))"));
    refused(&inside("(memory 1 1 shared)"), &["threads"]);
    refused(&inside("(memory i64 1)"), &["memory64"]);
    refused(&inside("(memory 1) (memory 1)"), &["multi"]);
    let relaxed = "(func (param v128 v128) (result v128) \
                   (i8x16.relaxed_swizzle (local.get 0) (local.get 1)))";
    refused(&inside(relaxed), &["relaxed"]);
}

#[test]
fn a_memory_that_starts_too_large() {
    let large = r#"(component
        (core module $m (memory 300))
        (core instance (instantiate $m)))"#;
    refused(&wat(large), &["memory"]);
}

/// What was compared with the contract for one module says nothing about another.
#[test]
fn a_function_of_another_module_is_not_called() {
    let engine = engine();
    let (one, other) = (module(&engine, "quorum"), module(&engine, "persona-gate"));
    assert!(one.call_function_of(&one).is_ok());
    let failure = one.call_function_of(&other).unwrap_err();
    assert!(failure.detail.contains("the instance has no such function"), "{failure:?}");
}

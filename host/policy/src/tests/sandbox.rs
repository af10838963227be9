//! Limits, each met by a component of a few lines.

use wasmtime::component::{Component, ComponentNamedList, Lift};

use crate::engine::{Engine, Failure, Limits, empty_linker};
use countersign_core::lifecycle::FailureKind;

/// A component with one function `f`, whose core module is `core` and whose type is `ty`.
fn component(core: &str, ty: &str) -> String {
    format!(
        r#"(component
            (core module $m (memory (export "memory") 1) {core})
            (core instance $i (instantiate $m))
            (func (export "f") {ty} (canon lift (core func $i "f") (memory (core memory $i "memory")))))"#
    )
}

fn call<R: ComponentNamedList + Lift + 'static>(engine: &Engine, wat: &str) -> Result<R, Failure> {
    let component = Component::new(&engine.shared.wasm, wat::parse_str(wat).unwrap()).unwrap();
    let instance = empty_linker(&engine.shared.wasm).instantiate_pre(&component).unwrap();
    let function = component.get_export_index(None, "f").unwrap();
    engine.shared.call::<(), R>(&instance, &function, ()).0
}

/// Two sandboxes and, unless `limits` has another, a deadline that a busy machine does not reach.
fn small(limits: Limits) -> Engine {
    let deadline_ms =
        if limits.deadline_ms == Limits::default().deadline_ms { 60_000 } else { limits.deadline_ms };
    Engine::new(Limits { concurrent_calls: 2, deadline_ms, ..limits }, None, crate::Trust::default()).unwrap()
}

#[track_caller]
fn fails<R: ComponentNamedList + Lift + 'static + std::fmt::Debug>(
    engine: &Engine,
    wat: &str,
    kind: FailureKind,
    words: &str,
) {
    let failure = call::<R>(engine, wat).unwrap_err();
    assert_eq!(failure.kind, kind, "{failure:?}");
    assert!(failure.detail.contains(words), "{failure:?}");
}

const BUMP: &str = r#"(global $n (mut i32) (i32.const 0))
    (func (export "f") (result i32)
        (global.set $n (i32.add (global.get $n) (i32.const 1)))
        (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (global.get $n)))
        (i32.load (i32.const 0)))"#;

#[test]
fn every_call_starts_anew() {
    let engine = small(Limits::default());
    let component =
        Component::new(&engine.shared.wasm, wat::parse_str(component(BUMP, "(result u32)")).unwrap())
            .unwrap();
    let instance = empty_linker(&engine.shared.wasm).instantiate_pre(&component).unwrap();
    let function = component.get_export_index(None, "f").unwrap();
    for _ in 0..20 {
        let (counted,) = engine.shared.call::<(), (u32,)>(&instance, &function, ()).0.unwrap();
        assert_eq!(counted, 1);
    }
}

#[test]
fn a_loop_ends_when_the_fuel_does() {
    let wat = component(r#"(func (export "f") (loop (br 0)))"#, "");
    fails::<()>(&small(Limits::default()), &wat, FailureKind::Fuel, "10000000");
}

#[test]
fn a_loop_with_fuel_to_spare_ends_at_the_deadline() {
    let wat = component(r#"(func (export "f") (loop (br 0)))"#, "");
    let limits = Limits { fuel: u64::MAX, deadline_ms: 5, ..Limits::default() };
    fails::<()>(&small(limits), &wat, FailureKind::Deadline, "5 ms");
}

#[test]
fn a_start_function_is_bound_by_the_same_limits() {
    let wat = component(r#"(func $s (loop (br 0))) (start $s) (func (export "f"))"#, "");
    fails::<()>(&small(Limits::default()), &wat, FailureKind::Fuel, "fuel");
}

#[test]
fn memory_ends_at_its_limit() {
    let grow = |pages: u32| {
        let grow = format!(r#"(func (export "f") (drop (memory.grow (i32.const {pages}))))"#);
        component(&grow, "")
    };
    let engine = small(Limits::default());
    call::<()>(&engine, &grow(255)).unwrap();
    fails::<()>(&engine, &grow(256), FailureKind::Memory, "16777216 bytes");
    // A denial counts even where the guest would have gone on.
    fails::<()>(&engine, &grow(60_000), FailureKind::Memory, "16777216 bytes");
}

#[test]
fn memory_is_blank_again_after_a_call_that_filled_it() {
    // Filling memory costs fuel by the byte, as it should.
    let engine = small(Limits { fuel: 100_000_000, ..Limits::default() });
    let fill = r#"(func (export "f")
        (drop (memory.grow (i32.const 200)))
        (memory.fill (i32.const 0) (i32.const 255) (i32.const 13107200)))"#;
    let look = r#"(func (export "f") (result i32) (local $at i32) (local $found i32)
        (drop (memory.grow (i32.const 200)))
        (loop
            (local.set $found (i32.or (local.get $found) (i32.load (local.get $at))))
            (br_if 0 (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 64))) (i32.const 13107000))))
        (local.get $found))"#;
    call::<()>(&engine, &component(fill, "")).unwrap();
    assert_eq!(call::<(u32,)>(&engine, &component(look, "(result u32)")).unwrap(), (0,));
}

#[test]
fn traps_are_told_apart_from_the_rest() {
    let engine = small(Limits::default());
    let trap = component(r#"(func (export "f") unreachable)"#, "");
    fails::<()>(&engine, &trap, FailureKind::Trap, "unreachable");
    let deep = component(r#"(func $f (export "f") (call $f))"#, "");
    fails::<()>(&engine, &deep, FailureKind::Trap, "call stack exhausted");
    let wild = component(r#"(func (export "f") (drop (i32.load (i32.const 0x7fffffff))))"#, "");
    fails::<()>(&engine, &wild, FailureKind::Trap, "out of bounds");
    // The engine is none the worse for it.
    assert_eq!(call::<(u32,)>(&engine, &component(BUMP, "(result u32)")).unwrap(), (1,));
}

/// `f` answers with the pair (pointer, length) at address 8.
fn answer(data: &str, pointer: u32, length: u32, ty: &str) -> String {
    let code = format!(
        r#"(func (export "f") (result i32)
            {data}
            (i32.store (i32.const 8) (i32.const {pointer})) (i32.store (i32.const 12) (i32.const {length}))
            (i32.const 8))"#
    );
    component(&code, ty)
}

#[test]
fn what_breaks_the_contract_is_malformed() {
    let engine = small(Limits::default());
    let text = "(result string)";
    assert!(call::<(String,)>(&engine, &answer("", 1024, 60_000, text)).is_ok());
    let grow = "(drop (memory.grow (i32.const 200)))";
    let large = answer(grow, 0, 10_000_000, text);
    fails::<(String,)>(&engine, &large, FailureKind::Malformed, "65536 bytes");
    let outside = answer("", 65_000, 10_000, text);
    fails::<(String,)>(&engine, &outside, FailureKind::Malformed, "out of bounds");
    let no_text = answer("(i32.store8 (i32.const 1024) (i32.const 255))", 1024, 4, text);
    fails::<(String,)>(&engine, &no_text, FailureKind::Malformed, "utf-8");
}

/// Every element of the list is the same text: a little memory inside, a lot of it outside.
#[test]
fn a_small_memory_cannot_make_a_large_answer() {
    let engine = small(Limits::default());
    let alias = "(local $at i32)
        (loop
            (i32.store (i32.add (local.get $at) (i32.const 1024)) (i32.const 40000))
            (i32.store (i32.add (local.get $at) (i32.const 1028)) (i32.const 20000))
            (br_if 0 (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 8000))))";
    let wat = answer(alias, 1024, 1000, "(result (list string))");
    fails::<(Vec<String>,)>(&engine, &wat, FailureKind::Malformed, "65536 bytes");
}

#[test]
fn many_threads_share_few_sandboxes() {
    let engine = small(Limits { concurrent_calls: 2, ..Limits::default() });
    let wat = component(BUMP, "(result u32)");
    let component = Component::new(&engine.shared.wasm, wat::parse_str(wat).unwrap()).unwrap();
    let instance = empty_linker(&engine.shared.wasm).instantiate_pre(&component).unwrap();
    let function = component.get_export_index(None, "f").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(engine.shared.call::<(), (u32,)>(&instance, &function, ()).0.unwrap(), (1,));
                }
            });
        }
    });
}

#[test]
fn the_clock_ends_with_the_last_that_could_need_it() {
    let engine = small(Limits::default());
    let weak = engine.shared.wasm.weak();
    // Dropping joins the thread; were it to hold the engine, this would hang or the upgrade succeed.
    drop(engine);
    assert!(weak.upgrade().is_none());
}

/// NaNs have one form, whatever the processor makes of them.
#[test]
fn nan_is_canonical() {
    let code = r#"(func (export "f") (result i32)
        (i32.reinterpret_f32 (f32.sqrt (f32.neg (f32.reinterpret_i32 (i32.const 0x7fa00001))))))"#;
    let bits = call::<(u32,)>(&small(Limits::default()), &component(code, "(result u32)")).unwrap();
    assert_eq!(bits, (0x7fc0_0000,));
}

#[test]
fn without_the_clock_that_ends_calls_nothing_is_run() {
    let engine = Engine::without_clock();
    assert!(engine.has_stopped());
    fails::<(u32,)>(
        &engine,
        &component(BUMP, "(result u32)"),
        FailureKind::Malformed,
        "ends calls at their deadline",
    );
    assert!(!small(Limits::default()).has_stopped());
}

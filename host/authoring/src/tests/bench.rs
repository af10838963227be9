//! `policy bench`.

use super::*;

const SCENARIOS: &str = "version: 1\n\
    scenarios:\n\
    \x20 - name: one approves\n\
    \x20   config: { approvers: [U1] }\n\
    \x20   events: [{ by: U1, act: approve, expect: satisfied }]\n";

fn bench(folder: &Workspace, words: &[&str]) -> Output {
    let words = [&["bench", "./modules/quorum.wasm", "./s.yaml", "--calls", "20"], words].concat();
    folder.policy(&words)
}

#[test]
fn every_function_is_measured_and_fuel_never_differs() {
    let folder = Workspace::new();
    folder.write("s.yaml", SCENARIOS);
    let output = bench(&folder, &["--format", "json", "--save", "./before.json"]);
    let view: serde_json::Value = serde_json::from_str(&output.text).unwrap();
    for function in ["describe", "check-config", "admit", "judge"] {
        let figure = &view["functions"][function];
        assert!(figure["p50Us"].as_f64().unwrap() > 0.0, "{view}");
        assert!(figure["p50Us"].as_f64() <= figure["p99Us"].as_f64(), "{view}");
    }
    let fuel = &view["functions"]["judge"]["fuel"];
    assert!(fuel["`one approves`, event 1 (approve)"].as_u64().unwrap() > 1000, "{view}");
    // The time depends on other tests that run at the same moment, so only fuel is compared.
    let again = bench(&folder, &["--compare", "./before.json", "--tolerance", "10000"]);
    has(&again, 0, &["of 5 calls measured before, 5 could be compared, and 0 of those used less fuel"]);
}

#[test]
fn more_fuel_than_before_is_worse() {
    let folder = Workspace::new();
    folder.write("s.yaml", SCENARIOS);
    bench(&folder, &["--save", "./before.json"]);
    let saved = fs::read_to_string(folder.path().join("before.json")).unwrap();
    let mut figures: serde_json::Value = serde_json::from_str(&saved).unwrap();
    let fuel = &mut figures["functions"]["admit"]["fuel"]["`one approves`"];
    *fuel = (fuel.as_u64().unwrap() - 1).into();
    folder.write("before.json", figures.to_string());
    let words = ["--compare", "./before.json", "--tolerance", "10000"];
    has(&bench(&folder, &words), 1, &["WORSE    admit: fuel of `one approves` was"]);
    let tolerant = [&words[..], &["--fuel-tolerance", "1"]].concat();
    has(&bench(&folder, &tolerant), 0, &["call"]);
}

#[test]
fn a_call_that_is_no_longer_made_is_missing() {
    let folder = Workspace::new();
    folder.write("s.yaml", SCENARIOS);
    bench(&folder, &["--save", "./before.json"]);
    folder.write("s.yaml", SCENARIOS.replace("one approves", "one is enough"));
    let words = ["--compare", "./before.json", "--tolerance", "10000", "--fuel-tolerance", "10000"];
    let output = bench(&folder, &words);
    let expected = [
        "of 5 calls measured before, 1 could be compared, and 0 of those used less fuel",
        "MISSING  check-config: `one approves` was measured before, but not now",
        "MISSING  judge: `one approves`, event 1 (approve) was measured before, but not now",
    ];
    has(&output, 1, &expected);
    let output = bench(&folder, &[&words[..], &["--format", "json"]].concat());
    assert_eq!(output.code, 1);
    let view: serde_json::Value = serde_json::from_str(&output.text).unwrap();
    assert_eq!(view["worse"], serde_json::json!([]));
    assert_eq!(view["missing"][0], serde_json::json!({"function": "check-config", "call": "`one approves`"}));
    assert_eq!(view["missing"].as_array().unwrap().len(), 4);
}

#[test]
fn without_scenarios_a_synthetic_one_is_measured() {
    let folder = Workspace::new();
    for module in ["quorum", "override-guard", "misbehaving"] {
        let output = folder.policy(&["bench", &format!("./modules/{module}.wasm"), "--calls", "10"]);
        has(&output, 0, &["describe", "check-config", "admit", "judge"]);
    }
    let output = folder.policy(&["bench", "./modules/persona-gate.wasm", "--calls", "10"]);
    has(&output, 0, &["describe", "no synthetic request could be made: pass scenarios"]);
}

#[test]
fn what_cannot_be_measured_is_an_error() {
    let folder = Workspace::new();
    folder.write("s.yaml", SCENARIOS.replace("expect: satisfied", "expect: silent"));
    has(&bench(&folder, &[]), 2, &["the scenario `one approves` fails"]);
    folder.write("s.yaml", SCENARIOS);
    folder.write("other.json", "{}");
    has(&bench(&folder, &["--compare", "./none.json"]), 2, &["cannot read `none.json`"]);
    has(
        &bench(&folder, &["--compare", "./other.json"]),
        2,
        &["`other.json` is not a file that `--save` wrote"],
    );
    folder.policy(&["bench", "./modules/persona-gate.wasm", "--calls", "10", "--save", "./gate.json"]);
    let output = bench(&folder, &["--compare", "./gate.json"]);
    has(&output, 2, &["`gate.json` has figures of the module `persona-gate`", "is the module `quorum`"]);
    has(&bench(&folder, &["--save", "./none/f.json"]), 2, &["cannot write `none/f.json`"]);
    has(&bench(&folder, &["--tolerance", "5"]), 2, &["--compare"]);
    folder.write(
        "m.yaml",
        "version: 1\nscenarios: [{ name: a, config: { at: judge, do: trap }, expect: { fails: trap } }]\n",
    );
    let output = folder.policy(&["bench", "./modules/misbehaving.wasm", "./m.yaml", "--calls", "10"]);
    has(&output, 2, &["`judge` of `a`, event 0 (submitted)", "trap"]);
}

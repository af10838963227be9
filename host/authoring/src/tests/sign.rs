//! `policy keygen` and `policy sign`.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

const ACTIONS: &str = "  deploy:\n    policies: [{ use: quorum, with: { approvers: [U1] } }]\n";

/// Without the public key.
fn steady(text: &str) -> String {
    let lines = text.lines().map(|line| match line.split_once("MCow") {
        Some((before, _)) => format!("{before}<key>"),
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_set_is_signed_from_the_module_up() {
    let folder = Workspace::new();
    folder.write_set(ACTIONS);
    let (keys, set) = ("./ada.pub.pem", "./policy-set.yaml");
    let output = folder.policy(&["keygen", "./ada"]);
    has(&output, 0, &["ada.pem: sign with it", "ada.pub.pem: trust it"]);
    let mode = fs::metadata(folder.path().join("ada.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    has(&folder.policy(&["keygen", "./ada"]), 2, &["cannot write `ada.pub.pem`: File exists"]);

    let check = ["check", set, "--module-keys", keys, "--set-keys", keys];
    has(
        &folder.policy(&check),
        1,
        &["policy-set.yaml: the set with the hash <digest> is refused: it is not signed"],
    );
    let of_modules = ["check", set, "--module-keys", keys];
    has(&folder.policy(&of_modules), 1, &["policy-set.yaml:3:11: the module `quorum`", "it is not signed"]);
    let modules = MODULES.map(|module| format!("./modules/{module}.wasm"));
    for module in &modules {
        has(&folder.policy(&["sign", module, "--key", "./ada.pem"]), 0, &["added to", ".wasm.sig"]);
    }
    has(
        &folder.policy(&check),
        1,
        &["is refused: it is not signed by a key of `COUNTERSIGN_SET_KEYS`: each of the 4 signatures"],
    );
    let output = folder.policy(&["sign", set, "--key", "./ada.pem", "--module-keys", keys]);
    insta::assert_snapshot!(steady(&output.text), @"
    signed    policy-set.yaml
    hash      sha256:<digest>
    by        <key>
    added to  policy-set.yaml.sig
    ");
    has(&folder.policy(&check), 0, &["sound: 1 action"]);
    // Signing again changes nothing; another key adds a line.
    has(&folder.policy(&["sign", set, "--key", "./ada.pem"]), 0, &["already in"]);
    has(&folder.policy(&["keygen", "./bob"]), 0, &[]);
    has(&folder.policy(&["sign", set, "--key", "./bob.pem"]), 0, &["added to"]);
    let lines = fs::read_to_string(folder.path().join("policy-set.yaml.sig")).unwrap();
    assert_eq!(lines.lines().count(), 2);

    // An unsigned module can be signed even if the settings require signatures.
    let again = ["sign", modules[0].as_str(), "--key", "./bob.pem", "--module-keys", keys];
    has(&folder.policy(&again), 0, &["added to"]);

    // A changed set needs a new signature.
    folder.write_set(&ACTIONS.replace("U1", "UEVE"));
    has(&folder.policy(&check), 1, &["each of the 7 signatures at hand is over something else"]);
}

#[test]
fn only_valid_sets_and_modules_are_signed() {
    let folder = Workspace::new();
    folder.write_set("  deploy:\n    policies: []\n");
    folder.policy(&["keygen", "./ada"]);
    let sign = |what: &str| folder.policy(&["sign", what, "--key", "./ada.pem"]);
    has(&sign("./policy-set.yaml"), 2, &["policy-set.yaml:"]);
    folder.write("modules/none.wasm", "none");
    has(
        &sign("./modules/none.wasm"),
        2,
        &["`modules/none.wasm` is not a policy module: it is no WebAssembly"],
    );
    folder.write("modules/quorum.wasm.sig", "\nnonsense\n");
    has(
        &sign("./modules/quorum.wasm"),
        2,
        &["modules/quorum.wasm.sig:2: this is no signature", "nothing was added"],
    );
    // One more than a gateway reads.
    let full = format!("{}\n", countersign_core::record::Signature::from_bytes([1; 64])).repeat(16);
    folder.write("modules/quorum.wasm.sig", &full);
    has(&sign("./modules/quorum.wasm"), 2, &["quorum.wasm.sig: there are more than 16 signatures"]);
    assert_eq!(fs::read_to_string(folder.path().join("modules/quorum.wasm.sig")).unwrap(), full);
    let output = folder.policy(&["sign", "./modules/quorum.wasm", "--key", "./ada.pub.pem"]);
    has(&output, 2, &["`ada.pub.pem` holds no private key"]);
    for (flag, file) in [("--module-keys", "./absent.pem"), ("--set-keys", "./ada.pem")] {
        has(&folder.policy(&["check", ".", flag, file]), 2, &[file.trim_start_matches("./")]);
    }
}

//! Writes the seeds in `fuzz/corpus`: `cargo run -p countersign-fuzzed --example seeds`. For when a format has changed.

use std::fs;
use std::path::Path;

use countersign_core::bundle::{Bundle, RecordedEvents, RecordedSubmission, VERSION};
use countersign_fuzzed::Genuine;
use countersign_gateway::Tokens;
use serde_json::json;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let Genuine { decided, entry, receipt, identity_token, identity_key, .. } = Genuine::get();
    let bundle = Bundle {
        version: VERSION,
        request_id: decided.id,
        asked: RecordedSubmission::of(decided),
        happened: RecordedEvents::of(decided).ok_or("it has ended")?,
        entry: entry.clone(),
        modules: Vec::new(),
    }
    .canonical()?;
    let id = decided.id.to_string();
    let token = Tokens::new([1; 32], Vec::new()).of(decided.id);
    let claims = identity_token.split('.').nth(1).ok_or("no claims")?;
    let unsigned = format!("eyJhbGciOiJub25lIn0.{claims}.");
    let access = r#"version: 1
callers:
  portal: { keys: [{ sha256: 51d0ab2c51d0ab2c51d0ab2c51d0ab2c51d0ab2c51d0ab2c51d0ab2c51d0ab2c }], requester: machine, owners: [dana], actions: ["deploy_*"], limits: { open: 5, per_minute: 30 } }
  mesh: { certificate: { uri: "spiffe://acme/mesh" }, requester: asserted, actions: ["*"] }
people:
  dana: { slack: [U0DANA, W0DANA], github: "583231", email: dana@acme.example }
"#;
    let set = "version: 1
modules:
  quorum: sha256:51d0ab2c51d0ab2c51d0ab2c51d0ab2c51d0ab2c51d0ab2c51d0ab2c51d0ab2c
groups:
  leads: [U0RM1, \"@managers\"]
  managers: [S0614TZR9]
defaults: { timeout: 10m, unknown_action: deny }
actions:
  deploy: { description: Deploy, channel: C0X, redact: { show: [ref] }, supersede: [env], valid_for: 30m, policies: [{ use: quorum, with: { approvers: [U0ALICE], approvals: 1 } }] }
";
    let request = r#"{"action": "deploy", "params": {"service": "web", "replicas": 3, "ratio": 0.5, "list": [null, true, 1.5e-7, "é\u0000"]}, "meta": {"origin": {"repo": "acme/web"}, "requester": {"id": "U0DANA", "source": "slack"}, "justification": "Release"}}"#;
    let press = form(&format!(
        r#"{{"type":"block_actions","user":{{"id":"U0ALICE","team_id":"T1"}},"trigger_id":"1","actions":[{{"action_id":"approve","value":"{id}"}}]}}"#
    ));
    let edit = form(&format!(
        r#"{{"type":"view_submission","user":{{"id":"U0ALICE","team_id":"T1"}},"view":{{"callback_id":"override_submit","private_metadata":"{{\"request_id\":\"{id}\"}}","state":{{"values":{{"ov_ref":{{"value":{{"value":"v2"}}}}}}}}}}}}"#
    ));
    let gateway = Path::new(env!("CARGO_MANIFEST_DIR")).join("gateway");
    fs::write(gateway.join("keys.json"), format!("{:#}\n", json!({"keys": [identity_key]})))?;
    for (target, name, content) in [
        ("access_file", "taken-callers", access.as_bytes()),
        ("access_file", "refused-no-callers", b"version: 1\n"),
        ("access_file", "refused-anchors", b"a: &a [x, x]\nb: [*a, *a]\n"),
        ("bundle", "taken-approved", bundle.as_bytes()),
        ("bundle", "refused-order", br#"{"version":1,"modules":[]}"#),
        ("gateway_url", "taken-https", b"https://gateway.example/approvals"),
        ("gateway_url", "taken-here", b"http://127.0.0.1:8080"),
        ("gateway_url", "refused-clear", b"http://user@gateway.example:80/?q#f"),
        ("identity_token", "taken-genuine", identity_token.as_bytes()),
        ("identity_token", "refused-unsigned", unsigned.as_bytes()),
        ("module", "refused-component", b"\0asm\x0d\0\x01\0"),
        ("module", "refused-core-module", b"\0asm\x01\0\0\0"),
        ("policy_set", "refused-no-modules", set.as_bytes()),
        ("policy_set", "taken-no-actions", b"version: 1\nmodules: {}\nactions: {}\n"),
        ("proxy_header", "taken-for", b"203.0.113.9, 198.51.100.7:4711\n10.0.0.2"),
        ("proxy_header", "taken-address-6", b"[2001:db8::1]:4711, ::ffff:10.0.0.2"),
        (
            "proxy_header",
            "taken-forwarded",
            b"for=203.0.113.9, For=\"[2001:db8::1]:4711\";proto=https;by=10.0.0.1",
        ),
        ("proxy_header", "refused-hidden", b"for=198.51.100.7, for=_hidden"),
        ("proxy_header", "refused-twice", b"for=203.0.113.9;for=198.51.100.7"),
        ("proxy_header", "refused-not-text", b"198.51.100.7, \xff"),
        ("receipt", "taken-approved", receipt.as_bytes()),
        ("receipt", "refused-parts", b"eyJhbGciOiJub25lIn0.e30."),
        ("request", "taken-deploy", request.as_bytes()),
        ("request", "refused-twice", br#"{"a": 1, "a": 2}"#),
        ("request", "refused-number", b"[9007199254740993]"),
        ("slack_form", "taken-approve", press.as_bytes()),
        ("slack_form", "taken-edit", edit.as_bytes()),
        ("slack_form", "refused-no-payload", b"a=b&payload=%7B"),
        ("store_url", "taken-redis", b"rediss://user:secret@redis.example:6380"),
        ("store_url", "taken-sqlite", b"sqlite:countersign.db"),
        ("store_url", "refused-scheme", b"redis+x://[::1"),
        ("wait_token", "taken-genuine", token.reveal().as_bytes()),
        ("wait_token", "refused-id", b"req_.AAAA"),
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), content)?;
    }
    Ok(())
}

/// A form as Slack posts it.
fn form(payload: &str) -> String {
    let encoded = payload.bytes().map(|byte| match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'-' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    format!("payload={}", encoded.collect::<String>())
}

//! `countersign receipt verify`: what a receipt says, if it is genuine, and whether it is about the action and the parameters at hand.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use countersign_console::{note, say};
use countersign_core::lifecycle::{Digest, Salt, Status, Timestamp, payload_hash_of};
use countersign_core::receipt::ReceiptDocument;
use countersign_gateway::receipts::{KeySet, verify};
use serde_json::{Map, Value};

use super::inputs;

/// Which receipt, and what it is compared with.
#[derive(Debug, Args)]
pub struct Verify {
    /// The receipt: itself, or a file that holds it; `-` for the standard input.
    #[arg(value_name = "RECEIPT")]
    receipt: String,
    /// The keys that the gateway publishes at `/.well-known/jwks.json`.
    #[arg(long, value_name = "FILE")]
    jwks: PathBuf,
    /// The action that is about to be run: parameters do not say which.
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// The parameters that are about to be used, as a JSON object; with edits, and with hidden values in clear.
    #[arg(long, value_name = "FILE")]
    params: Option<PathBuf>,
    /// The salt of the request (`payloadSalt`), or `@FILE`; needed for parameters.
    #[arg(long, value_name = "VALUE", requires = "params")]
    salt: Option<String>,
}

/// What the exit codes mean.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  it is genuine, an approval that still counts, and of the action and the parameters that were given
  1  it is not genuine: malformed, changed, or signed with another key
  2  it could not be checked: a file or an argument is wrong
  3  it is genuine, and of another action or of other parameters
  4  it is genuine, and no approval
  5  it is a genuine approval whose time to be consumed is over";

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checked {
    Good = 0,
    NotGenuine = 1,
    Unchecked = 2,
    SomethingElse = 3,
    NotApproved = 4,
    Lapsed = 5,
}

/// What is compared with a receipt.
struct Parameters {
    values: Map<String, Value>,
    salt: Option<Salt>,
}

impl Verify {
    pub(super) fn run(&self, now: Timestamp) -> ExitCode {
        let (checked, text) = match self.inputs() {
            Ok((receipt, keys, parameters)) => {
                check(&receipt, &keys, (self.action.as_deref(), parameters.as_ref()), now)
            }
            Err(error) => (Checked::Unchecked, format!("error: {error:#}")),
        };
        match checked {
            Checked::Good => say!("{text}"),
            _ => note!("{text}"),
        }
        ExitCode::from(checked as u8)
    }

    fn inputs(&self) -> anyhow::Result<(String, KeySet, Option<Parameters>)> {
        let keys = inputs::keys(&self.jwks)?;
        let parameters = self.params.as_deref().map(|path| self.parameters(path)).transpose()?;
        Ok((inputs::receipt(&self.receipt)?, keys, parameters))
    }

    fn parameters(&self, path: &Path) -> anyhow::Result<Parameters> {
        let salt = self.salt.as_deref().map(inputs::salt).transpose()?;
        Ok(Parameters { values: inputs::params(path)?, salt })
    }
}

/// What came of it, and one line that says so.
fn check(
    receipt: &str,
    keys: &KeySet,
    (action, parameters): (Option<&str>, Option<&Parameters>),
    now: Timestamp,
) -> (Checked, String) {
    let document = match verify(receipt, keys) {
        Ok(document) => document,
        Err(error) => return (Checked::NotGenuine, format!("not genuine: {error}")),
    };
    let agreed = agreed(&document);
    if action.is_some_and(|action| action != document.action) {
        return (Checked::SomethingElse, format!("another action: {agreed}"));
    }
    let compared = match parameters {
        None => String::new(),
        Some(parameters) => match hash(&document, parameters) {
            Err(error) => return (Checked::Unchecked, format!("error: {error}")),
            Ok(hash) if hash == document.payload.decided => {
                "; the parameters at hand are those that it is about".to_owned()
            }
            Ok(_) => return (Checked::SomethingElse, format!("other parameters: {agreed}")),
        },
    };
    match document.valid_until {
        _ if document.decision != Status::Approved => {
            (Checked::NotApproved, format!("not approved: {agreed}{compared}"))
        }
        Some(until) if now >= until.0 => (Checked::Lapsed, format!("lapsed {until}: {agreed}{compared}")),
        _ => (Checked::Good, format!("{agreed}{compared}")),
    }
}

/// The payload hash of the parameters at hand, made as that of the request was.
fn hash(document: &ReceiptDocument, parameters: &Parameters) -> Result<Digest, &'static str> {
    payload_hash_of(&parameters.values, document.payload.version, parameters.salt.as_ref())
        .ok_or("the parameters of this request cannot be compared without its `--salt`")
}

/// What was agreed, by whom. Control characters of names are not passed on to the terminal.
fn agreed(document: &ReceiptDocument) -> String {
    let ReceiptDocument { decision, action, request_id, requester, approvers, decided_at, .. } = document;
    let approvers: Vec<String> = approvers.iter().map(|it| format!("{} at {}", it.id, it.at)).collect();
    let by = match (approvers.is_empty(), &document.decided_by) {
        (false, _) if *decision == Status::Approved => format!(" by {}", approvers.join(" and ")),
        (_, Some(by)) => format!(" by {by} at {decided_at}"),
        _ => format!(" at {decided_at}"),
    };
    let proven = if requester.authenticated { "" } else { " (not verified)" };
    let asked = format!("asked by {}:{}{proven}", requester.source, requester.id);
    let hidden = if document.payload.hidden.is_empty() {
        String::new()
    } else {
        let hidden: Vec<&str> = document.payload.hidden.iter().map(String::as_str).collect();
        format!("; hidden from them: {}", hidden.join(", "))
    };
    let text = format!("{decision}{by}: {action} ({request_id}), {asked}{hidden}");
    countersign_core::text::plain(&text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use countersign_core::lifecycle::{Request, UseTerms};
    use countersign_gateway::receipts::{ReceiptKeys, SigningKey};
    use countersign_store::fixtures;
    use serde_json::json;

    use super::*;

    fn keys() -> ReceiptKeys {
        ReceiptKeys::new(vec![SigningKey::new(Timestamp::EPOCH, &[1; 32]).unwrap()], Vec::new()).unwrap()
    }

    fn receipt_of(request: &Request) -> String {
        keys().receipt(request, &fixtures::policy_entry("deploy")).unwrap()
    }

    /// Approved at `fixtures::at(5)`, and valid for a second.
    fn approved() -> Request {
        let mut request = fixtures::next(&fixtures::request(1), fixtures::at(5), |request| {
            request.state = fixtures::approved(fixtures::at(5));
        });
        let terms = UseTerms { valid_for_ms: Some(1000), required: true };
        Arc::make_mut(&mut request.submission).terms = terms;
        request
    }

    /// The parameters of the fixtures, with their salt.
    fn parameters(replicas: u32) -> Parameters {
        let values = fixtures::object(json!({"ref": "v1", "replicas": replicas}));
        Parameters { values, salt: Some(Salt::new([9; 32])) }
    }

    #[test]
    fn one_line_says_what_was_agreed_by_whom() {
        let (genuine, id) = (receipt_of(&approved()), fixtures::id(1));
        let denied = fixtures::next(&fixtures::request(1), fixtures::at(5), |request| {
            request.state = fixtures::denied(fixtures::at(5));
        });
        let denied = receipt_of(&denied);
        let mut forged = genuine.clone();
        forged.replace_range(forged.len() - 2..forged.len() - 1, "_");
        let time = "2026-03-01T12:00:00.005Z";
        let what = format!("deploy ({id}), asked by github:ci (not verified)");
        let agreed = format!("approved by U1 at {time}: {what}");
        let same = "; the parameters at hand are those that it is about";
        let no_salt = Parameters { salt: None, ..parameters(3) };
        for (receipt, parameters, at, expected) in [
            (&genuine, None, 0, (Checked::Good, agreed.clone())),
            (&genuine, Some(parameters(3)), 0, (Checked::Good, format!("{agreed}{same}"))),
            (
                &genuine,
                Some(parameters(4)),
                0,
                (Checked::SomethingElse, format!("other parameters: {agreed}")),
            ),
            (
                &genuine,
                Some(no_salt),
                0,
                (
                    Checked::Unchecked,
                    "error: the parameters of this request cannot be compared without its `--salt`"
                        .to_owned(),
                ),
            ),
            (&genuine, None, 1004, (Checked::Good, agreed.clone())),
            (&genuine, None, 1005, (Checked::Lapsed, format!("lapsed 2026-03-01T12:00:01.005Z: {agreed}"))),
            (&denied, None, 0, (Checked::NotApproved, format!("not approved: denied at {time}: {what}"))),
            (
                &forged,
                None,
                0,
                (
                    Checked::NotGenuine,
                    "not genuine: its signature is wrong: it was changed, or somebody else has signed it"
                        .to_owned(),
                ),
            ),
        ] {
            let found = check(receipt, &keys().published(), (None, parameters.as_ref()), fixtures::at(at));
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn an_approval_of_another_action_is_another_one() {
        let (genuine, same) = (receipt_of(&approved()), parameters(3));
        let of = |action| check(&genuine, &keys().published(), (Some(action), Some(&same)), fixtures::at(0));
        assert_eq!(of("deploy").0, Checked::Good);
        let (checked, line) = of("delete");
        assert_eq!((checked, checked as u8), (Checked::SomethingElse, 3));
        assert!(line.starts_with("another action: approved by U1 at "), "{line}");
    }

    #[test]
    fn names_cannot_write_to_the_terminal() {
        let mut request = approved();
        Arc::make_mut(&mut request.submission).action = "deploy\u{1b}[2K\rdenied".to_owned();
        let (_, line) = check(&receipt_of(&request), &keys().published(), (None, None), fixtures::at(0));
        assert!(line.contains("deploy\\u{1b}[2K\\rdenied"), "{line:?}");
    }
}

//! `countersign receipt replay`: the modules that made a decision run again, and must come to the same one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use countersign_console::{Progress, note, say};
use countersign_core::receipt::ReceiptDocument;
use countersign_gateway::bundle::{self, Asked, ReplayError};
use countersign_gateway::receipts::{KeySet, unverified, verify};
use countersign_policy::settings::PolicyLimits;
use countersign_policy::{Engine, Limits, Trust};

use super::inputs;

/// Which receipt, and what re-executes its decision.
#[derive(Debug, Args)]
pub struct Replay {
    /// The receipt: itself, or a file that holds it; `-` for the standard input.
    #[arg(value_name = "RECEIPT")]
    receipt: String,
    /// What the gateway gave at `/api/guard/bundle`, unchanged.
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// The keys that the gateway publishes at `/.well-known/jwks.json`. Without them the receipt's signature is not checked.
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
    /// The parameters as they were asked for, as a JSON object: without edits, and with hidden values in clear. With them
    /// the policies are asked again whether to admit the request.
    #[arg(long, value_name = "FILE")]
    params: Option<PathBuf>,
    /// The salt of the request (`payloadSalt`), or `@FILE`: with it hidden values are compared with what was committed to.
    #[arg(long, value_name = "VALUE", requires = "params")]
    salt: Option<String>,
    /// What one call of a policy may use, if the gateway lets it use more than by default.
    #[command(flatten)]
    limits: PolicyLimits,
}

/// What the exit codes mean.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  the same modules come to the same decision
  1  the receipt is not genuine: malformed, changed, or signed with another key
  2  it could not be checked: a file or an argument is wrong, or a module cannot be run
  3  the bundle, or the parameters, are not those of the receipt; what differs is named
  4  the modules come to something else than the receipt says";

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Same = 0,
    NotGenuine = 1,
    Unchecked = 2,
    Other = 3,
    Differs = 4,
}

impl Replay {
    pub(super) fn run(&self) -> ExitCode {
        let progress = Progress::start("evaluating the request again");
        let replayed = self.replay();
        drop(progress);
        let (outcome, text) = match replayed {
            Ok(outcome) => outcome,
            Err(error) => (Outcome::Unchecked, format!("error: {error:#}")),
        };
        match outcome {
            Outcome::Same => say!("{text}"),
            _ => note!("{text}"),
        }
        ExitCode::from(outcome as u8)
    }

    fn replay(&self) -> anyhow::Result<(Outcome, String)> {
        let receipt = inputs::receipt(&self.receipt)?;
        let keys = self.jwks.as_deref().map(inputs::keys).transpose()?;
        let text = inputs::read(&self.bundle, bundle::MOST_BYTES)?;
        let asked = self.params.as_deref().map(|path| self.asked(path)).transpose()?;
        let document = match &keys {
            Some(keys) => verify(&receipt, keys),
            None => unverified(&receipt),
        };
        let document = match document {
            Ok(document) => document,
            Err(error) => return Ok((Outcome::NotGenuine, format!("not genuine: {error}"))),
        };
        // No key signs these modules: their digests in the receipt say which ones they must be. An endless call ends when
        // its fuel is used up, so a long deadline does no harm on a busy machine.
        let limits = Limits { deadline_ms: 10_000, concurrent_calls: 2, ..self.limits.limits() };
        let engine = Engine::new(limits, None, Trust::default())?;
        Ok(replayed(&document, keys.as_ref(), &text, asked.as_ref(), &engine))
    }

    fn asked(&self, path: &Path) -> anyhow::Result<Asked> {
        let salt = self.salt.as_deref().map(inputs::salt).transpose()?;
        Ok(Asked { params: inputs::params(path)?, salt })
    }
}

/// What came of a re-execution, and one line that says so.
fn replayed(
    document: &ReceiptDocument,
    keys: Option<&KeySet>,
    text: &[u8],
    asked: Option<&Asked>,
    engine: &Engine,
) -> (Outcome, String) {
    let replayed = bundle::read(text).and_then(|bundle| bundle::replay(document, &bundle, asked, engine));
    let (outcome, text) = match replayed {
        Ok(replayed) => {
            let hidden =
                if replayed.admitted { "" } else { "; hidden values as their policies remembered them" };
            let uncompared: Vec<&str> = replayed.uncompared.iter().map(String::as_str).collect();
            let uncompared = if uncompared.is_empty() {
                String::new()
            } else {
                let names = uncompared.join(", ");
                format!("; not proven without `--salt` that these hidden values were asked for: {names}")
            };
            let signed = if keys.is_some() { "" } else { "; the receipt's signature was not checked" };
            let events = replayed.events;
            let modules = document.policy.modules.len();
            let text = format!(
                "{} again: {} ({}), {events} events and {modules} policies re-executed{hidden}{uncompared}{signed}",
                document.decision, document.action, document.request_id,
            );
            (Outcome::Same, text)
        }
        Err(error) => {
            let outcome = match &error {
                ReplayError::Malformed(_)
                | ReplayError::NotOfReceipt(_)
                | ReplayError::Module(_)
                | ReplayError::Parameters(_) => Outcome::Other,
                ReplayError::NotRun(..) => Outcome::Unchecked,
                ReplayError::Differs(_) => Outcome::Differs,
            };
            (outcome, error.to_string())
        }
    };
    (outcome, countersign_core::text::plain(&text))
}

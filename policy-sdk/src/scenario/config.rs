//! What the gateway would not accept in a configuration, and codes that are not documented.

use serde_json::Value;

use crate::{
    Exported, Policy,
    bindings::exports::countersign::policy::policy::{self as wire, Guest as _},
};

/// Something that the gateway would not accept in a configuration.
#[derive(Debug)]
#[expect(dead_code, reason = "the message is there to be printed")]
pub(super) struct ConfigProblem {
    pub(super) path: String,
    message: String,
}

/// What the gateway would find: first what the schema says, then what the policy says.
#[track_caller]
pub(super) fn config_problems<P: Policy>(config: &Value) -> Vec<ConfigProblem> {
    let schema: Value = serde_json::from_str(P::CONFIG_SCHEMA)
        .unwrap_or_else(|error| panic!("expected: a CONFIG_SCHEMA of JSON\nseen: {error}"));
    let validator = jsonschema::draft202012::new(&schema)
        .unwrap_or_else(|error| panic!("expected: a CONFIG_SCHEMA of JSON Schema\nseen: {error}"));
    let mut problems: Vec<_> = validator
        .iter_errors(config)
        .map(|error| ConfigProblem { path: error.instance_path().to_string(), message: error.to_string() })
        .collect();
    let reasons = Exported::<P>::check_config(config.to_string());
    if let Some(code) = undocumented::<P>(&reasons) {
        panic!("expected: `{code}` among the documented REASONS\nseen: it is not there");
    }
    problems.extend(
        reasons
            .into_iter()
            .map(|reason| ConfigProblem { path: reason.path.unwrap_or_default(), message: reason.message }),
    );
    problems
}

pub(super) fn undocumented<'r, P: Policy>(
    reasons: impl IntoIterator<Item = &'r wire::Reason>,
) -> Option<&'r str> {
    let documented = Exported::<P>::describe().reasons;
    let mut codes = reasons.into_iter().map(|reason| reason.code.as_str());
    codes.find(|code| !documented.iter().any(|doc| doc.code == *code))
}

//! Variables of features that this build does not have.

use super::Environment;

/// Variables that nobody would miss silently: they only warn.
const WITHOUT_EFFECT: [&str; 3] = ["OTLP_ENDPOINT", "OTLP_HEADERS", "OTLP_TIMEOUT_MS"];

/// One sentence for each variable that is set without effect.
pub(super) fn warnings(environment: &Environment) -> Vec<String> {
    let names = set(&WITHOUT_EFFECT, environment);
    names.map(|name| format!("the variable `{name}` has no effect in this build yet")).collect()
}

/// Those of `names` that ask for something.
fn set<'a>(names: &'a [&str], environment: &'a Environment) -> impl Iterator<Item = &'a str> {
    names.iter().copied().filter(|name| environment.get(*name).is_some_and(|value| !value.is_empty()))
}

//! Variables of features that this build does not have.

use super::Environment;

/// Variables that ask for a protection or a record that this build cannot give: they stop the start.
const NOT_IMPLEMENTED: [&str; 4] =
    ["REQUEST_RETENTION_SEC", "REQUEST_RETENTION_SWEEP_SEC", "REQUEST_ARCHIVE_FILE", "AUDIT_RETENTION_SEC"];

/// One sentence for each variable that this build cannot honour.
pub(super) fn errors(environment: &Environment) -> Vec<String> {
    let names = set(&NOT_IMPLEMENTED, environment);
    names
        .map(|name| format!("the variable `{name}` is set, but this build does not implement it yet"))
        .collect()
}

/// Those of `names` that ask for something.
fn set<'a>(names: &'a [&str], environment: &'a Environment) -> impl Iterator<Item = &'a str> {
    names.iter().copied().filter(|name| environment.get(*name).is_some_and(|value| !value.is_empty()))
}

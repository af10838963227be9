//! Formats rulings and reasons, for a failure to show.

use crate::bindings::exports::countersign::policy::policy as wire;

pub(super) fn describe(standing: &wire::Standing) -> String {
    match standing {
        wire::Standing::Satisfied => "satisfied".to_owned(),
        wire::Standing::Denied(reason) => format!("denied with `{}`: {}", reason.code, reason.message),
        wire::Standing::Waiting(requirements) => {
            let wanted = requirements.iter().map(|wanted| {
                format!(
                    "`{}` ({} of {}, by {})",
                    wanted.label,
                    wanted.have,
                    wanted.need,
                    quoted(&wanted.eligible)
                )
            });
            format!("waiting for {}", wanted.collect::<Vec<_>>().join(", "))
        }
    }
}

pub(super) fn codes(reasons: &[wire::Reason]) -> String {
    let reasons = reasons.iter().map(|reason| match &reason.path {
        Some(path) => format!("`{}` at `{path}` ({})", reason.code, reason.message),
        None => format!("`{}` ({})", reason.code, reason.message),
    });
    format!("refused with {}", reasons.collect::<Vec<_>>().join(", "))
}

pub(super) fn quoted(items: &[impl AsRef<str>]) -> String {
    items.iter().map(|item| format!("`{}`", item.as_ref())).collect::<Vec<_>>().join(", ")
}

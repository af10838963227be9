//! What a person did on a request after a press of theirs that was kept: consent that they took back meanwhile does not
//! count, although the store could not know of it then.
//!
//! What they did is in the audit log, by the clocks of the gateways, also if it was refused: a withdrawal finds nothing to
//! take back while the approval is kept elsewhere.

use std::collections::BTreeMap;

use countersign_core::lifecycle::{AuditEntry, AuditEvent, Intent, Refusal, Timestamp};
use countersign_gateway::GatewayError;
use countersign_slack::InteractionKind;
use countersign_store::{AuditCursor, AuditRange};
use serde_json::Value;

use super::answer::{self, Answer};
use super::perform::PerformError;
use super::{REMEMBER_MS, once, workspace};
use crate::spool::{Press, Subject};
use crate::state::App;

/// How many entries of the audit log are read at once.
const PAGE: usize = 256;

/// When this process began to apply withdrawals that were kept, in order. Each is in the audit log once, as of
/// when it was applied, and what was pressed after it must not be refused for it.
pub(super) type Applied = BTreeMap<Subject, Vec<Timestamp>>;

/// Answers a press that was kept, unless it is consent that the person has taken back since, or came too late.
pub(super) async fn answer(app: &App, press: Press, applied: &Applied) -> Answer {
    if app.gateway.clock().now().since(press.at) >= REMEMBER_MS {
        return Answer::refusal(app, "too_late", "what was done came too late");
    }
    match check(app, &press, applied).await {
        Ok(()) => answer::answer(app, press.interaction, None).await,
        Err(error) => {
            let blocks = press.interaction.kind.modal_blocks().unwrap_or_default();
            answer::refused(app, press.interaction.request, &error, &blocks).await
        }
    }
}

/// # Errors
/// [`Refusal::TakenBack`] if it is consent that was taken back after it was pressed.
async fn check(app: &App, press: &Press, applied: &Applied) -> Result<(), PerformError> {
    let interaction = &press.interaction;
    let id = interaction.request;
    let once = once(app, interaction);
    if !press.agrees() {
        return Ok(());
    }
    // What has counted is answered as it was then.
    if let Some(once) = once
        && app.gateway.has_counted(id, once).await?
    {
        return Ok(());
    }
    let subject = press.subject();
    let is_taken_back = app.spool.as_ref().is_some_and(|spool| spool.is_taken_back(&subject, press.at));
    let applied = applied.get(&subject).map_or(&[][..], Vec::as_slice);
    if !is_taken_back && !has_disagreed(app, press, applied).await? {
        return Ok(());
    }
    workspace::check(app, interaction)?;
    let intent = match &interaction.kind {
        InteractionKind::Acknowledge(persona) => Intent::Acknowledge { persona: persona.clone() },
        _ => Intent::approve(),
    };
    tracing::info!(request = %id, "consent that was kept has been taken back");
    Err(app.gateway.refuse(id, &interaction.user, intent, Refusal::TakenBack, once).await.into())
}

/// Whether the person has withdrawn or denied since they pressed, or tried to.
async fn has_disagreed(app: &App, press: &Press, applied: &[Timestamp]) -> Result<bool, GatewayError> {
    let store = app.gateway.store();
    let id = press.interaction.request;
    let Some(request) = store.request(id).await? else { return Ok(false) };
    let rules = app.gateway.rules_of(request.submission.policy_hash).await?;
    let (user, now) = (&press.interaction.user, app.gateway.clock().now());
    let actor = rules.entry().actor_on(&request, user, app.gateway.directory(), now);
    let is_theirs = |entry: &AuditEntry| entry.actor.as_ref().is_some_and(|id| *id == actor.id || id == user);
    let mut times = Vec::new();
    let mut after = AuditCursor::default();
    loop {
        let range = AuditRange { request: Some(id), period: None };
        let page = store.audit_log(range, &after, PAGE).await?;
        for entry in &page.entries {
            let entry = entry.entry()?;
            if entry.at >= press.at && is_theirs(&entry) && disagrees(&entry) {
                times.push(entry.at);
            }
        }
        if page.is_last {
            return Ok(remain(times, applied));
        }
        after = page.next;
    }
}

/// Whether an entry of the audit log is a withdrawal or a denial, whatever became of it.
fn disagrees(entry: &AuditEntry) -> bool {
    let counted = [AuditEvent::Withdrawn, AuditEvent::DenialRecorded];
    counted.iter().any(|event| event.as_str() == entry.event)
        || matches!(entry.detail.get("act").and_then(Value::as_str), Some("withdraw" | "deny"))
}

/// Whether there are more entries than those of what was applied, each of which is the first one after it was begun.
fn remain(mut times: Vec<Timestamp>, applied: &[Timestamp]) -> bool {
    for begun in applied {
        if let Some(own) = times.iter().position(|at| at >= begun) {
            times.remove(own);
        }
    }
    !times.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_applied_from_the_spool_is_left_out() {
        let rows: [(&[u64], &[u64], bool); 7] = [
            // The times of the entries, and when withdrawals of this spool were begun; whether there are others.
            (&[], &[], false),
            (&[5], &[], true),
            (&[5], &[5], false),
            (&[5], &[4], false),
            (&[5], &[6], true),
            (&[5, 6], &[5], true),
            (&[5, 7], &[5, 6], false),
        ];
        for (times, applied, expected) in rows {
            let at = |times: &[u64]| times.iter().copied().map(Timestamp::from_millis).collect::<Vec<_>>();
            assert_eq!(remain(at(times), &at(applied)), expected, "{times:?} {applied:?}");
        }
    }
}

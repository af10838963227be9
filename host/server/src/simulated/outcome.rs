//! What must hold in the end, when nothing goes wrong any more and nothing is left to do.

use std::collections::BTreeMap;

use countersign_core::lifecycle::{Act, Request, RequestId, Status};
use countersign_core::record::Slot;
use countersign_store::{AuditCursor, Store};

use super::ledger::audited;
use super::slack::{Shown, buttons, mark, shown_status};
use super::world::{World, lock};

/// More rows than a schedule writes.
const ALL: usize = 100_000;

/// Later than anything that is planned, in milliseconds.
const LATER_MS: u64 = 24 * 60 * 60 * 1000;

/// What is still to be done, if there is anything.
pub(super) async fn left_to_do(world: &World, store: &dyn Store) -> Option<String> {
    let open =
        lock(&world.ledger).requests.values().filter_map(|versions| versions.last()).find_map(|request| {
            (!request.status().is_terminal()).then(|| format!("{} is {}", request.id, request.status()))
        });
    if open.is_some() {
        return open;
    }
    let outbox = store.outbox_depth().await.map(|depth| depth.entries);
    if outbox.as_ref().ok() != Some(&0) {
        let later = world.now().plus(LATER_MS);
        return Some(format!(
            "{outbox:?} entries are in the outbox: {:?}",
            store.ready_outbox(later, 9).await
        ));
    }
    let stale = store.stale_slack_posts(world.now().plus(LATER_MS), ALL).await;
    if stale.as_ref().map_or(true, |stale| !stale.is_empty()) {
        return Some(format!("messages are to be refreshed: {stale:?}"));
    }
    if lock(&world.slack).is_busy() {
        return Some("Slack has calls to carry out".to_owned());
    }
    None
}

/// Checks everything against what was stored.
pub(super) async fn check(world: &World, store: &dyn Store) -> Result<(), String> {
    let requests = lock(&world.ledger).requests.clone();
    for (id, versions) in &requests {
        let Some(newest) = versions.last() else { continue };
        let stored = store.request(*id).await.map_err(|error| error.to_string())?;
        // The salt is beside the request, and is not compared.
        let same = stored.as_ref().is_some_and(|stored| stored.version == newest.version && stored == newest);
        if !same {
            return Err(format!("{id} is stored as {stored:?}, and was stored as {newest:?}"));
        }
    }
    check_callers(world, &requests)?;
    check_streams(world)?;
    for id in check_slack(world, &requests)? {
        let post = store.slack_post(id, Slot::Main).await.map_err(|error| error.to_string())?;
        if post.is_some_and(|post| post.has_called) {
            return Err(format!("{id} has no message, and had one"));
        }
    }
    check_audit(&requests, store).await?;
    check_counters(&requests, store).await
}

/// One key stands for one request, and nothing was made that nobody asked for.
fn check_callers(world: &World, requests: &BTreeMap<RequestId, Vec<Request>>) -> Result<(), String> {
    for wanted in &lock(&world.callers).wanted {
        let firsts = requests.values().filter_map(|versions| versions.first());
        let made = firsts.filter(|request| {
            request.submission.depth == 0 && request.submission.justification == wanted.justification()
        });
        let (made, most) = (made.count(), if wanted.is_once() { 1 } else { wanted.attempts });
        if made > most {
            return Err(format!("{made} requests came of {wanted:?}"));
        }
        if wanted.receipt.as_ref().is_some_and(|receipt| !requests.contains_key(&receipt.id)) {
            return Err(format!("there is no request for {wanted:?}"));
        }
    }
    Ok(())
}

/// Whoever listens hears the end.
pub(super) fn check_streams(world: &World) -> Result<(), String> {
    let (callers, ledger) = (lock(&world.callers), lock(&world.ledger));
    for (number, stream) in callers.streams.iter().enumerate() {
        let newest = ledger.newest(stream.id());
        if newest.is_none_or(|newest| stream.seen != newest.version) {
            return Err(format!("stream {number} of {} has heard of v{} at last", stream.id(), stream.seen));
        }
    }
    Ok(())
}

/// Each request has one message, which shows how it ended and can no longer be decided on; and one notice of each kind at
/// most. Returns those without a message: they must have ended before it was posted.
fn check_slack(
    world: &World,
    requests: &BTreeMap<RequestId, Vec<Request>>,
) -> Result<Vec<RequestId>, String> {
    let mut unseen = Vec::new();
    let slack = lock(&world.slack);
    let mut found: BTreeMap<(RequestId, &str), Vec<&Shown>> = BTreeMap::new();
    for message in &slack.messages {
        let (id, slot) = mark(&message.content).ok_or("a message without a mark")?;
        found.entry((id, slot)).or_default().push(message);
    }
    if let Some(((id, slot), messages)) = found.iter().find(|(_, messages)| messages.len() > 1) {
        return Err(format!("{id} has {} messages `{slot}`", messages.len()));
    }
    for (id, versions) in requests {
        let Some(newest) = versions.last() else { continue };
        let Some([message]) = found.get(&(*id, "main")).map(Vec::as_slice) else {
            if newest.ended_as_made() {
                return Err(format!("{id} has no message"));
            }
            unseen.push(*id);
            continue;
        };
        let shown = shown_status(&message.content);
        if shown != Some(newest.status()) {
            return Err(format!("{id} is {}, and its message says {shown:?}", newest.status()));
        }
        let live = buttons(message);
        let is_live = |id: &str| !matches!(id, "show_all" | "re_request");
        if let Some(button) = live.iter().find(|button| is_live(&button.action_id)) {
            return Err(format!("{id} has ended, and its message still has {button:?}"));
        }
    }
    Ok(unseen)
}

/// The audit log has what happened, once and in its order.
async fn check_audit(requests: &BTreeMap<RequestId, Vec<Request>>, store: &dyn Store) -> Result<(), String> {
    const ACTS: [&str; 12] = [
        "created",
        "persona_acknowledged",
        "approval_recorded",
        "denial_recorded",
        "withdrawn",
        "escalated",
        "tick",
        "approved",
        "denied",
        "expired",
        "cancelled",
        "supersedes",
    ];
    let audit = store
        .audit(&AuditCursor::default(), ALL)
        .await
        .map(|page| page.entries)
        .map_err(|error| error.to_string())?;
    for (id, versions) in requests {
        let ours = audit.iter().filter(|entry| entry.request == Some(*id));
        let events: Vec<&str> =
            ours.map(|entry| entry.event.as_str()).filter(|event| ACTS.contains(event)).collect();
        let befores = std::iter::once(None).chain(versions.iter().map(Some));
        let wanted: Vec<&str> =
            befores.zip(versions).flat_map(|(before, after)| audited(before, after)).collect();
        if events != wanted {
            return Err(format!("the audit log says of {id} {events:?}, and what happened is {wanted:?}"));
        }
    }
    Ok(())
}

/// The counters say how much of what happened.
async fn check_counters(
    requests: &BTreeMap<RequestId, Vec<Request>>,
    store: &dyn Store,
) -> Result<(), String> {
    let mut wanted: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for newest in requests.values().filter_map(|versions| versions.last()) {
        let action = newest.submission.rules.as_str();
        let mut count = |metric| *wanted.entry((metric, action)).or_default() += 1;
        for event in &newest.history {
            match &event.act {
                Act::Submitted => count("approval_requests_total"),
                Act::Escalated => count("escalations_total"),
                Act::Acknowledge { .. } => count("persona_ack_total"),
                _ => {}
            }
        }
        match newest.status() {
            Status::Approved => count("approvals_total"),
            Status::Denied => count("denies_total"),
            Status::Expired => count("expired_total"),
            Status::Cancelled if newest.superseded_by().is_some() => count("superseded_total"),
            _ => {}
        }
    }
    let stored = store.counters().await.map_err(|error| error.to_string())?;
    let mut counted: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    const METRICS: [&str; 7] = [
        "approval_requests_total",
        "escalations_total",
        "persona_ack_total",
        "approvals_total",
        "denies_total",
        "expired_total",
        "superseded_total",
    ];
    for (counter, value) in &stored {
        if let (true, Some(action)) =
            (METRICS.contains(&counter.metric.as_str()), counter.labels.get("action"))
        {
            *counted.entry((&counter.metric, action)).or_default() += value;
        }
    }
    if counted == wanted {
        Ok(())
    } else {
        Err(format!("the counters are {counted:?}, and should be {wanted:?}"))
    }
}

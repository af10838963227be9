//! What is due: expiries, escalations, and the wake-ups that policies ask for.
//!
//! The scheduler sleeps until the next thing is due or something nearer is stored. It decides nothing:
//! the gateway does what is due, and the store's version guard makes it happen once, on whichever instance.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt as _;

use crate::{Gateway, GatewayError};
use countersign_core::lifecycle::{Refusal, RequestId, Timestamp};

/// How many due requests are taken from the index at once.
const BATCH: usize = 256;

/// How many of them are worked on at the same time; the store commits them together.
const AT_ONCE: usize = 64;

/// The first and the longest time to wait after a policy failed on something that is due, in milliseconds.
const RETRY_MS: (u64, u64) = (1_000, 60_000);

/// Does what is due, for as long as it is polled.
pub struct Scheduler {
    gateway: Arc<Gateway>,
    interval_ms: u64,
    /// Due requests on which a policy failed, until when to leave them alone, and for how long the last time.
    postponed: HashMap<RequestId, (Timestamp, u64)>,
}

impl Scheduler {
    /// A scheduler that looks at least every `interval_ms`, whatever it has heard.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>, interval_ms: u64) -> Scheduler {
        Scheduler { gateway, interval_ms, postponed: HashMap::new() }
    }

    /// Does what is due and sleeps, in turns, for ever.
    pub async fn run(mut self) {
        loop {
            let next = self.turn().await;
            let alarm = Arc::clone(self.gateway.alarm());
            let clock = Arc::clone(self.gateway.clock());
            tokio::select! {
                biased;
                () = clock.sleep_until(next) => {}
                () = alarm.nearer() => {}
            }
        }
    }

    /// Does all that is due now, and returns when to look again.
    pub async fn turn(&mut self) -> Timestamp {
        let now = self.gateway.clock().now();
        let longest = now.plus(self.interval_ms);
        let alarm = Arc::clone(self.gateway.alarm());
        alarm.reset();
        if let Err(error) = self.drain(now).await {
            tracing::warn!(%error, "cannot tell what is due; looking again later");
            return longest;
        }
        match self.gateway.store().next_due(now).await {
            Ok(next) => alarm.known(next),
            Err(error) => tracing::warn!(%error, "cannot tell what is due next; looking again later"),
        }
        let retry = self.postponed.values().map(|(until, _)| *until).min();
        [alarm.nearest(), retry].into_iter().flatten().min().map_or(longest, |next| next.min(longest))
    }

    async fn drain(&mut self, now: Timestamp) -> Result<(), GatewayError> {
        loop {
            let mut due = self.gateway.store().due(now, BATCH + self.postponed.len()).await?;
            // What is no longer due has ended or was done by somebody else.
            self.postponed.retain(|id, (until, _)| *until > now || due.iter().any(|(due, _)| due == id));
            due.retain(|(id, _)| self.postponed.get(id).is_none_or(|(until, _)| *until <= now));
            if due.is_empty() {
                return Ok(());
            }
            let gateway = &self.gateway;
            let done: Vec<_> = futures_util::stream::iter(due)
                .map(|(id, _)| async move { (id, gateway.wake(id).await) })
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
            for (id, result) in done {
                match result {
                    // Not due any more, or ended: another instance or a person was faster.
                    Ok(_) | Err(GatewayError::Refused(Refusal::NotDue | Refusal::Ended(_))) => {
                        self.postponed.remove(&id);
                    }
                    Err(error) => self.postpone(id, now, &error).await,
                }
            }
        }
    }

    /// Leaves a request alone for a while, each time longer, but not past its expiry.
    async fn postpone(&mut self, id: RequestId, now: Timestamp, error: &GatewayError) {
        let last = self.postponed.get(&id).map_or(0, |(_, wait)| *wait);
        let wait = (last * 2).clamp(RETRY_MS.0, RETRY_MS.1);
        tracing::warn!(request = %id, %error, wait_ms = wait, "what is due of a request failed; trying again later");
        let until = match self.gateway.store().request(id).await {
            Ok(Some(request)) if request.submission.expires_at > now => {
                now.plus(wait).min(request.submission.expires_at)
            }
            _ => now.plus(wait),
        };
        self.postponed.insert(id, (until, wait));
    }
}

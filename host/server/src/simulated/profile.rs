//! What can go wrong in a schedule, and how often. A seed draws it, so that some schedules have few faults and some many.

use fastrand::Rng;

/// How far the clock may be set back at once, in milliseconds.
pub(super) const MOST_BACK_MS: i64 = 60_000;

/// How far the clock may be off in all, in milliseconds: less than Slack's clock may differ from the gateway's.
pub(super) const MOST_SKEW_MS: i64 = 240_000;

/// How long after the store failed an expiry may still be late, in milliseconds.
pub(super) const EXPIRY_AFTER_FAULT_MS: u64 = 2_000;

/// How late an update is carried out that Slack does not answer, at most, in milliseconds.
pub(super) const LATEST_UPDATE_MS: u64 = 50_000;

/// What can go wrong in one schedule.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Profile {
    /// Of a thousand calls of the store, how many fail before anything is written.
    pub(super) store_fails: u32,
    /// Of a thousand writes, how many are stored and fail all the same.
    pub(super) store_unsure: u32,
    /// Of a thousand calls of the store, how many take a while.
    pub(super) store_slow: u32,
    /// Of a hundred steps, at how many the store fails altogether for a while.
    pub(super) outages: u32,
    /// Of a hundred calls of Slack, how many are not just answered.
    pub(super) slack_fails: u32,
    /// Of a hundred steps, at how many the process dies soon.
    pub(super) crashes: u32,
    /// Of a hundred steps, at how many somebody sets the clock.
    pub(super) jumps: u32,
    /// How many steps there are.
    pub(super) steps: u32,
    /// The factor on Slack's rate limits.
    pub(super) rate_factor: f64,
}

impl Profile {
    pub(super) fn of(rng: &mut Rng) -> Profile {
        let mut some = |most: u32| if rng.bool() { rng.u32(1..=most) } else { 0 };
        let (store_fails, store_unsure, store_slow) = (some(80), some(80), some(120));
        let (outages, slack_fails, crashes) = (some(6), some(45), some(12));
        let jumps = if rng.u32(0..8) == 0 { rng.u32(1..=6) } else { 0 };
        // Most faults take few steps once there is a request, and some take many.
        let steps = match rng.u32(0..100) {
            0..65 => rng.u32(2..=6),
            65..93 => rng.u32(6..=12),
            _ => rng.u32(12..=45),
        };
        let rate_factor = *rng.choice(&[0.1, 0.5, 1.0, 1.0, 5.0]).unwrap_or(&1.0);
        Profile {
            store_fails,
            store_unsure,
            store_slow,
            outages,
            slack_fails,
            crashes,
            jumps,
            steps,
            rate_factor,
        }
    }
}

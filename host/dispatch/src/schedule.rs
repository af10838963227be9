//! When a target that did not take something is tried again: the schedule that Standard Webhooks recommends.

use countersign_store::LONGEST_PAUSE_MS;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// The pauses before the second attempt, the third one, and so on, in milliseconds. After the last one it is given up.
const PAUSES_MS: [u64; 9] =
    [5 * SECOND, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR];

/// The longest wait that a target can ask for, in milliseconds.
const LONGEST_ASKED_MS: u64 = 24 * HOUR;

/// How long to wait after so many failed attempts, the last one included, in milliseconds; `None` if it is given up.
///
/// A twentieth at most is added, so that those who failed together do not come back together. A target may ask for more,
/// up to a day.
pub(crate) fn pause(failed: u32, asked_ms: Option<u64>, rng: &mut fastrand::Rng) -> Option<u64> {
    let pause = *PAUSES_MS.get(usize::try_from(failed).ok()?.checked_sub(1)?)?;
    let pause = pause.max(asked_ms.unwrap_or_default().min(LONGEST_ASKED_MS));
    Some(pause.saturating_add(rng.u64(0..=pause / 20)).min(LONGEST_PAUSE_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_has_ten_attempts() {
        let mut rng = fastrand::Rng::with_seed(3);
        for (failed, pause_ms) in (1..).zip(PAUSES_MS) {
            let pause = pause(failed, None, &mut rng).unwrap();
            assert!((pause_ms..=pause_ms + pause_ms / 20).contains(&pause), "{failed}: {pause}");
        }
        assert_eq!(pause(10, None, &mut rng), None);
        assert_eq!(pause(u32::MAX, Some(1), &mut rng), None);
    }

    #[test]
    fn a_target_may_ask_for_more_and_not_for_less() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut asked = |asked| pause(1, Some(asked), &mut rng).unwrap();
        assert!((5_000..=5_250).contains(&asked(0)));
        assert!((60_000..=63_000).contains(&asked(60_000)));
        assert!((LONGEST_ASKED_MS..=LONGEST_PAUSE_MS).contains(&asked(u64::MAX)));
    }
}

//! The ephemeral messages that this process sent, so that an interaction that is delivered twice is answered with one.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use countersign_core::lifecycle::Digest;

/// How many are remembered. One that is forgotten may be sent twice, which does no harm.
const MOST: usize = 256;

/// The newest ephemeral messages, by their interaction and their code.
#[derive(Debug, Default)]
pub(crate) struct SentEphemerals {
    newest: Mutex<VecDeque<Digest>>,
}

impl SentEphemerals {
    /// Whether the interaction has no message with this code yet; it has one from now on.
    pub(super) fn is_first(&self, interaction: Digest, code: &str) -> bool {
        let what = Digest::of(&[interaction.as_bytes(), code.as_bytes()].concat());
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.contains(&what) {
            return false;
        }
        newest.push_back(what);
        if newest.len() > MOST {
            newest.pop_front();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interaction_has_one_message_of_a_code_and_the_oldest_are_forgotten() {
        let sent = SentEphemerals::default();
        let press = |number: usize| Digest::of(&number.to_be_bytes());
        assert!(sent.is_first(press(0), "refused"));
        assert!(!sent.is_first(press(0), "refused"));
        assert!(sent.is_first(press(0), "store_unavailable"), "that is something else");
        for number in 1..=MOST {
            assert!(sent.is_first(press(number), "refused"));
        }
        assert!(!sent.is_first(press(MOST), "refused"));
        assert!(sent.is_first(press(0), "refused"));
        assert_eq!(sent.newest.lock().unwrap().len(), MOST);
    }
}

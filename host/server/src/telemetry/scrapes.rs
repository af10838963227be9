//! Answers of `/metrics` under load: however many scrapes come, they cost the store no more than a part of each second.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// No answer is older than this.
const SPAN: Duration = Duration::from_secs(1);

/// The answers to the scrapes of the last second.
pub(crate) struct Scrapes {
    /// How long measuring may take within a [`SPAN`]. After that scrapes get the newest answer again.
    budget: Duration,
    newest: Mutex<Option<Newest>>,
}

struct Newest {
    text: Arc<str>,
    /// When the span began.
    since: Instant,
    /// How long measuring took since then.
    took: Duration,
}

impl Scrapes {
    /// For Prometheus, of which there may be several: a tenth of each second.
    pub(crate) fn regular() -> Scrapes {
        Scrapes { budget: SPAN / 10, newest: Mutex::default() }
    }

    /// For people, who look at what they have just done: half of each second.
    pub(crate) fn by_hand() -> Scrapes {
        Scrapes { budget: SPAN / 2, newest: Mutex::default() }
    }

    /// Has the next scrape measure. A busy machine is slow to measure, and tests want to see what they have just done.
    #[cfg(test)]
    pub(crate) async fn forget(&self) {
        *self.newest.lock().await = None;
    }

    /// The metrics: made by `measure`, one call at a time, or an answer that is less than a second old; and whether it is
    /// such an old one.
    pub(crate) async fn answer(&self, measure: impl Future<Output = String>) -> (Arc<str>, bool) {
        let mut newest = self.newest.lock().await;
        let now = Instant::now();
        let (since, took) = match &*newest {
            Some(newest) if now < newest.since + SPAN => {
                if newest.took >= self.budget {
                    return (Arc::clone(&newest.text), true);
                }
                (newest.since, newest.took)
            }
            _ => (now, Duration::ZERO),
        };
        let text: Arc<str> = measure.await.into();
        *newest = Some(Newest { text: Arc::clone(&text), since, took: took + now.elapsed() });
        (text, false)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_scrapes_take_no_more_than_a_part_of_each_second() {
        let (scrapes, measured) = (Scrapes::regular(), AtomicU32::new(0));
        let measure = async || {
            tokio::time::advance(scrapes.budget / 4).await;
            measured.fetch_add(1, Ordering::Relaxed).to_string()
        };
        let answers = [("0", false), ("1", false), ("2", false), ("3", false), ("3", true), ("3", true)];
        for (expected, is_old) in answers {
            assert_eq!(scrapes.answer(measure()).await, (expected.into(), is_old));
        }
        tokio::time::advance(SPAN).await;
        assert_eq!(scrapes.answer(measure()).await, ("4".into(), false));
    }
}

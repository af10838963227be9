//! Answers of `/metrics` under load: however many scrapes come, a second costs the store a few of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// How many scrapes within a [`SPAN`] are answered with what is measured anew; the others get the newest of these answers.
const FRESH: u32 = 10;

/// See [`FRESH`]. No answer is older than this.
const SPAN: Duration = Duration::from_secs(1);

/// The answers to the scrapes of the last second.
#[derive(Default)]
pub(crate) struct Scrapes {
    newest: Mutex<Option<Newest>>,
}

struct Newest {
    text: Arc<str>,
    /// When the first of the scrapes that are counted came.
    since: Instant,
    scrapes: u32,
}

impl Scrapes {
    /// The metrics: made by `measure`, one call at a time, or an answer that is less than a second old.
    pub(crate) async fn answer(&self, measure: impl Future<Output = String>) -> Arc<str> {
        let mut newest = self.newest.lock().await;
        let now = Instant::now();
        let (since, scrapes) = match &*newest {
            Some(newest) if now < newest.since + SPAN => {
                if newest.scrapes >= FRESH {
                    return Arc::clone(&newest.text);
                }
                (newest.since, newest.scrapes)
            }
            _ => (now, 0),
        };
        let text: Arc<str> = measure.await.into();
        *newest = Some(Newest { text: Arc::clone(&text), since, scrapes: scrapes + 1 });
        text
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_scrapes_are_measured_a_few_times_a_second() {
        let (scrapes, measured) = (Scrapes::default(), AtomicU32::new(0));
        let scrape = || scrapes.answer(async { measured.fetch_add(1, Ordering::Relaxed).to_string() });
        for expected in ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "9", "9"] {
            assert_eq!(&*scrape().await, expected);
        }
        tokio::time::advance(SPAN).await;
        assert_eq!(&*scrape().await, "10");
    }
}

//! `/metrics`, read as Prometheus would.

use std::collections::BTreeMap;

/// The metrics at one moment.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Metrics {
    /// Reads the Prometheus text format.
    ///
    /// # Panics
    /// If a line is not of that format.
    #[must_use]
    pub fn parse(text: &str) -> Metrics {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Metrics {
            samples: lines
                .map(|line| sample(line).unwrap_or_else(|| panic!("not a sample: {line}")))
                .collect(),
        }
    }

    /// The sum of a metric's samples that have all these labels; 0 if there are none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |of: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| of.get(*key).is_some_and(|found| found == value))
        };
        self.samples
            .iter()
            .filter(|(metric, of, _)| metric == name && has(of))
            .map(|(_, _, value)| value)
            .sum()
    }

    /// A counter's value over all its labels, or of those with these labels.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are small and whole")]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.sum(name, labels).round() as u64
    }

    /// Whether the metric exists.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|(metric, _, _)| metric == name)
    }
}

/// `name{label="value",…} value`; label values hold neither commas nor escapes in these tests.
fn sample(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
    };
    let labels = labels.split(',').filter(|label| !label.is_empty()).map(|label| {
        let (key, value) = label.split_once('=')?;
        Some((key.to_owned(), value.trim_matches('"').to_owned()))
    });
    Some((name.to_owned(), labels.collect::<Option<_>>()?, value.parse().ok()?))
}

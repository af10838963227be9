//! Metrics from the store: they survive a restart, and are the same on every instance.

use std::collections::BTreeMap;

use countersign_core::lifecycle::{Count, Counter, LATENCY_BUCKETS_MS, Status, Timestamp, UseRefusal};
use countersign_core::record::{ChangeOutcome, ChangeTrigger, PolicyChange};
use countersign_store::{DispatchDepth, OpenRequests, OutboxDepth, Store, StoreError};
use prometheus::proto::{
    Bucket, Counter as ProtoCounter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::access_control::history;

/// A counter, which the store changes together with what it counts.
struct Stored {
    name: &'static str,
    help: &'static str,
    labels: Labels,
}

/// The labels of a counter.
enum Labels {
    /// None.
    None,
    /// `action`.
    Action,
    /// `action`, and another with these values.
    ActionAnd(&'static str, &'static [&'static str]),
    /// Others, or some whose values nobody knows beforehand.
    Other,
}

const COUNTERS: [Stored; 20] = {
    use Labels::{Action, ActionAnd, Other};
    const fn of(name: &'static str, labels: Labels, help: &'static str) -> Stored {
        Stored { name, help, labels }
    }
    [
        of("approval_requests_total", Action, "Requests created, re-requests included."),
        of("approvals_total", Action, "Requests that were approved."),
        of("denies_total", Action, "Requests that were denied."),
        of("expired_total", Action, "Requests that nobody decided in time."),
        of("superseded_total", Action, "Requests that newer ones of the same caller have superseded."),
        of("escalations_total", Action, "Escalations."),
        of("persona_ack_total", Other, "Acknowledgements of personas."),
        of(
            "param_overrides_total",
            ActionAnd("outcome", &["applied", "rejected"]),
            "Edits of parameters, by outcome: applied or rejected.",
        ),
        of("override_rejections_total", Other, "Edits that were rejected, by reason."),
        of("approvals_consumed_total", Action, "Approvals that were consumed."),
        of(
            "approval_outcomes_total",
            ActionAnd("outcome", &["succeeded", "failed"]),
            "What came of consumed approvals, by outcome: succeeded or failed.",
        ),
        of(
            "approval_use_refusals_total",
            ActionAnd("reason", &UseRefusal::CODES),
            "Approvals that somebody tried to use otherwise than once, in time and as agreed.",
        ),
        of(
            "slack_delivery_failures_total",
            Other,
            "Messages that Slack refuses, by its code; each is counted once.",
        ),
        of(
            "slack_posts_skipped_total",
            Other,
            "Messages that were not posted, by reason: the request ended before anybody saw it.",
        ),
        of("purged_requests_total", Labels::None, "Ended requests that were removed from the store."),
        of(
            "archived_requests_total",
            Labels::None,
            "Requests that were removed from the store after they were archived.",
        ),
        of(
            "purged_policy_sets_total",
            Labels::None,
            "Policy sets that nothing needed and that were removed from the store.",
        ),
        of(
            "purged_policy_modules_total",
            Labels::None,
            "Modules that were removed from the store with the last policy set that named them.",
        ),
        of(
            "access_reloads_total",
            Other,
            "Attempts to reload the access file, by what set them off and outcome.",
        ),
        of(
            "policy_reloads_total",
            Other,
            "Attempts to change the policy set in force, by what set them off and outcome.",
        ),
    ]
};

/// The counters of the histogram of decision latencies.
const LATENCY_BUCKET: &str = "decision_latency_bucket_ms";
const LATENCY_SUM: &str = "decision_latency_sum_ms";

/// The outcomes of decisions.
const OUTCOMES: [Status; 4] = [Status::Approved, Status::Denied, Status::Expired, Status::Cancelled];

/// The statuses of open requests.
const OPEN: [Status; 3] = [Status::Pending, Status::AwaitingPersonas, Status::ReadyForApproval];

/// All metrics from the store, at `now`. Those of these actions are there before anything has happened.
///
/// # Errors
/// If the store is unavailable.
pub async fn stored(
    store: &dyn Store,
    actions: &[&str],
    now: Timestamp,
) -> Result<Vec<MetricFamily>, StoreError> {
    let mut counters = store.counters().await?;
    // A rate misses the first event if the counter does not exist before it.
    for counter in
        no_reloads().chain(without_labels()).chain(actions.iter().flat_map(|action| at_zero(action)))
    {
        counters.entry(counter).or_default();
    }
    let mut families: Vec<MetricFamily> =
        COUNTERS.iter().map(|counter| counter_family(counter.name, counter.help, &counters)).collect();
    families.push(latency(actions, &counters));
    families.extend(open_requests(actions, &store.open_requests().await?, now));
    families.push(waiting_personas(&store.waiting_personas().await?));
    families.extend(outbox(&store.outbox_depth().await?, now));
    families.extend(dispatches(&store.dispatch_depth().await?, now));
    Ok(families)
}

/// The counters of an action whose labels are known beforehand.
fn at_zero(action: &str) -> Vec<Counter> {
    let mut zeros = Vec::new();
    for Stored { name, labels, .. } in &COUNTERS {
        match labels {
            Labels::Action => zeros.push(Count::one(name, &[("action", action)]).counter),
            Labels::ActionAnd(label, values) => {
                let of = |value| Count::one(name, &[("action", action), (*label, value)]).counter;
                zeros.extend(values.iter().map(|value| of(*value)));
            }
            Labels::None | Labels::Other => {}
        }
    }
    zeros
}

/// The counters without labels.
fn without_labels() -> impl Iterator<Item = Counter> {
    let plain = COUNTERS.iter().filter(|counter| matches!(counter.labels, Labels::None));
    plain.map(|counter| Count::one(counter.name, &[]).counter)
}

/// Every counter of reloads, at zero.
fn no_reloads() -> impl Iterator<Item = Counter> {
    let triggers = [ChangeTrigger::Sighup, ChangeTrigger::File, ChangeTrigger::Api, ChangeTrigger::Store];
    let outcomes = [
        ChangeOutcome::Ok,
        ChangeOutcome::Unchanged,
        ChangeOutcome::Conflict,
        ChangeOutcome::HeldBack,
        ChangeOutcome::Failed,
    ];
    let policies = triggers
        .into_iter()
        .flat_map(move |trigger| outcomes.map(|outcome| PolicyChange::counter(trigger, outcome)));
    policies.chain(history::counters())
}

fn counter_family(name: &str, help: &str, counters: &BTreeMap<Counter, u64>) -> MetricFamily {
    let metrics = counters.iter().filter(|(counter, _)| counter.metric == name).map(|(counter, value)| {
        let mut count = ProtoCounter::default();
        count.set_value(number(*value));
        let mut metric = Metric::from_label(labels(&counter.labels));
        metric.set_counter(count);
        metric
    });
    family(name, help, MetricType::COUNTER, metrics.collect())
}

fn latency(actions: &[&str], counters: &BTreeMap<Counter, u64>) -> MetricFamily {
    #[derive(Default)]
    struct Series {
        by_bound: BTreeMap<String, u64>,
        sum_ms: u64,
    }
    let mut series: BTreeMap<BTreeMap<String, String>, Series> = BTreeMap::new();
    for action in actions {
        for outcome in OUTCOMES {
            let of = [("action", *action), ("outcome", outcome.as_str())];
            series.insert(
                of.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
                Series::default(),
            );
        }
    }
    for (Counter { metric, labels }, value) in counters {
        let mut labels = labels.clone();
        let bound = labels.remove("le");
        match (metric.as_str(), bound) {
            (LATENCY_BUCKET, Some(bound)) => {
                series.entry(labels).or_default().by_bound.insert(bound, *value);
            }
            (LATENCY_SUM, None) => series.entry(labels).or_default().sum_ms = *value,
            _ => {}
        }
    }
    let metrics = series.into_iter().map(|(of, series)| {
        let mut below = 0;
        let buckets = LATENCY_BUCKETS_MS.iter().map(|bound| {
            below += series.by_bound.get(&bound.to_string()).copied().unwrap_or_default();
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(seconds(*bound));
            bucket.set_cumulative_count(below);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        // The encoder adds the infinite bucket, which contains the rest.
        histogram.set_sample_count(series.by_bound.values().sum());
        histogram.set_sample_sum(seconds(series.sum_ms));
        let mut metric = Metric::from_label(labels(&of));
        metric.set_histogram(histogram);
        metric
    });
    let help = "Time from a request's creation to its end.";
    family("decision_latency_seconds", help, MetricType::HISTOGRAM, metrics.collect())
}

fn open_requests(configured: &[&str], open: &[OpenRequests], now: Timestamp) -> Vec<MetricFamily> {
    #[derive(Default)]
    struct Action {
        count: u64,
        oldest_ms: u64,
        sum_age_ms: u128,
    }
    let mut actions: BTreeMap<&str, Action> = BTreeMap::new();
    let mut by_status: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for action in configured {
        actions.entry(action).or_default();
        by_status.extend(OPEN.map(|status| ((*action, status.as_str()), 0)));
    }
    for OpenRequests { action, status, count, oldest, sum_submitted_ms } in open {
        let of = actions.entry(action).or_default();
        of.count += count;
        of.oldest_ms = of.oldest_ms.max(now.since(*oldest));
        let sum_now_ms = u128::from(now.as_millis()) * u128::from(*count);
        of.sum_age_ms += sum_now_ms.saturating_sub(*sum_submitted_ms);
        by_status.insert((action, status.as_str()), *count);
    }
    let by_status = by_status
        .into_iter()
        .map(|((action, status), count)| gauge(&[("action", action), ("status", status)], number(count)));
    let each = |value: fn(&Action) -> f64| -> Vec<Metric> {
        actions.iter().map(|(action, of)| gauge(&[("action", action)], value(of))).collect()
    };
    let average = |of: &Action| {
        let average = of.sum_age_ms / u128::from(of.count.max(1));
        seconds(u64::try_from(average).unwrap_or(u64::MAX))
    };
    vec![
        gauges("pending_requests", "Requests that have not ended.", each(|of| number(of.count))),
        gauges("open_requests_status", "Requests that have not ended, by status.", by_status.collect()),
        gauges(
            "oldest_open_request_age_seconds",
            "Age of the oldest request that has not ended.",
            each(|of| seconds(of.oldest_ms)),
        ),
        gauges(
            "average_open_request_age_seconds",
            "Average age of the requests that have not ended.",
            each(average),
        ),
    ]
}

fn waiting_personas(waiting: &[(String, String, u64)]) -> MetricFamily {
    let metrics = waiting
        .iter()
        .map(|(action, persona, count)| gauge(&[("action", action), ("persona", persona)], number(*count)));
    gauges("persona_pending_requests", "Requests that wait for a persona.", metrics.collect())
}

fn outbox(depth: &OutboxDepth, now: Timestamp) -> [MetricFamily; 2] {
    let age = depth.oldest.map_or(0, |oldest| now.since(oldest));
    [
        gauges("outbox_depth", "Work that waits for delivery.", vec![gauge(&[], number(depth.entries))]),
        gauges(
            "outbox_oldest_age_seconds",
            "How long the oldest of it has waited.",
            vec![gauge(&[], seconds(age))],
        ),
    ]
}

fn dispatches(depths: &[DispatchDepth], now: Timestamp) -> [MetricFamily; 3] {
    let each = |value: fn(&DispatchDepth, Timestamp) -> f64| -> Vec<Metric> {
        depths.iter().map(|depth| gauge(&[("target", &depth.target)], value(depth, now))).collect()
    };
    let age =
        |depth: &DispatchDepth, now: Timestamp| seconds(depth.oldest.map_or(0, |oldest| now.since(oldest)));
    [
        gauges(
            "dispatch_depth",
            "Requests that a target outside is still to be told of.",
            each(|depth, _| number(depth.waiting)),
        ),
        gauges("dispatch_oldest_age_seconds", "How long the oldest of them has waited.", each(age)),
        gauges(
            "dispatch_dead_letters",
            "Requests that a target outside was not told of, and that nobody tries to tell it of any more.",
            each(|depth, _| number(depth.dead)),
        ),
    ]
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn gauges(name: &str, help: &str, metrics: Vec<Metric>) -> MetricFamily {
    family(name, help, MetricType::GAUGE, metrics)
}

fn gauge(of: &[(&str, &str)], value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_gauge(gauge);
    metric.set_label(of.iter().map(|(name, value)| label(name, value)).collect());
    metric
}

fn labels(of: &BTreeMap<String, String>) -> Vec<LabelPair> {
    of.iter().map(|(name, value)| label(name, value)).collect()
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a double")]
fn number(value: u64) -> f64 {
    value as f64
}

fn seconds(millis: u64) -> f64 {
    number(millis) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    fn render(families: Vec<MetricFamily>) -> String {
        let metrics = Metrics::new().unwrap().render(families);
        let process = Metrics::new().unwrap().render(Vec::new());
        let ours = |line: &&str| !process.lines().any(|other| other == *line);
        metrics.lines().filter(ours).map(|line| format!("{line}\n")).collect()
    }

    fn counters(counts: &[Count]) -> BTreeMap<Counter, u64> {
        counts.iter().map(|count| (count.counter.clone(), count.by)).collect()
    }

    #[test]
    fn counters_keep_their_labels_whatever_is_in_them() {
        let counters = counters(&[
            Count::of("approvals_total", &[("action", "deploy")], 3),
            Count::of("approvals_total", &[("action", "a\"b\\c\nd")], 1),
            Count::of("denies_total", &[("action", "deploy")], 7),
        ]);
        insta::assert_snapshot!(render(vec![
            counter_family("approvals_total", "Approved.", &counters),
            counter_family("expired_total", "Expired.", &counters),
        ]), @r#"
        # HELP approvals_total Approved.
        # TYPE approvals_total counter
        approvals_total{action="a\"b\\c\nd"} 1
        approvals_total{action="deploy"} 3
        # HELP expired_total Expired.
        # TYPE expired_total counter
        "#);
    }

    #[test]
    fn latencies_become_a_cumulative_histogram() {
        let of = |bound| [("action", "deploy"), ("outcome", "approved"), ("le", bound)];
        let counters = counters(&[
            Count::of("decision_latency_bucket_ms", &of("1000"), 2),
            Count::of("decision_latency_bucket_ms", &of("60000"), 1),
            Count::of("decision_latency_bucket_ms", &of("+Inf"), 1),
            Count::of("decision_latency_sum_ms", &[("action", "deploy"), ("outcome", "approved")], 123_456),
        ]);
        insta::assert_snapshot!(render(vec![latency(&[], &counters)]), @r#"
        # HELP decision_latency_seconds Time from a request's creation to its end.
        # TYPE decision_latency_seconds histogram
        decision_latency_seconds_bucket{action="deploy",outcome="approved",le="0.1"} 0
        decision_latency_seconds_bucket{action="deploy",outcome="approved",le="1"} 2
        decision_latency_seconds_bucket{action="deploy",outcome="approved",le="5"} 2
        decision_latency_seconds_bucket{action="deploy",outcome="approved",le="15"} 2
        decision_latency_seconds_bucket{action="deploy",outcome="approved",le="30"} 2
        decision_latency_seconds_bucket{action="deploy",outcome="approved",le="60"} 3
        decision_latency_seconds_bucket{action="deploy",outcome="approved",le="300"} 3
        decision_latency_seconds_bucket{action="deploy",outcome="approved",le="900"} 3
        decision_latency_seconds_bucket{action="deploy",outcome="approved",le="1800"} 3
        decision_latency_seconds_bucket{action="deploy",outcome="approved",le="3600"} 3
        decision_latency_seconds_bucket{action="deploy",outcome="approved",le="14400"} 3
        decision_latency_seconds_bucket{action="deploy",outcome="approved",le="86400"} 3
        decision_latency_seconds_bucket{action="deploy",outcome="approved",le="+Inf"} 4
        decision_latency_seconds_sum{action="deploy",outcome="approved"} 123.456
        decision_latency_seconds_count{action="deploy",outcome="approved"} 4
        "#);
    }

    #[test]
    fn gauges_show_number_and_age() {
        let now = Timestamp::from_millis(1_000_000);
        let open = |status, count, oldest_ms, sum_submitted_ms| OpenRequests {
            action: "deploy".into(),
            status,
            count,
            oldest: Timestamp::from_millis(oldest_ms),
            sum_submitted_ms,
        };
        let open = [
            open(Status::AwaitingPersonas, 2, 900_000, 1_850_000),
            open(Status::ReadyForApproval, 1, 940_000, 940_000),
        ];
        let mut families = open_requests(&[], &open, now);
        families.push(waiting_personas(&[("deploy".into(), "security".into(), 2)]));
        families
            .extend(outbox(&OutboxDepth { entries: 4, oldest: Some(Timestamp::from_millis(998_500)) }, now));
        insta::assert_snapshot!(render(families), @r#"
        # HELP average_open_request_age_seconds Average age of the requests that have not ended.
        # TYPE average_open_request_age_seconds gauge
        average_open_request_age_seconds{action="deploy"} 70
        # HELP oldest_open_request_age_seconds Age of the oldest request that has not ended.
        # TYPE oldest_open_request_age_seconds gauge
        oldest_open_request_age_seconds{action="deploy"} 100
        # HELP open_requests_status Requests that have not ended, by status.
        # TYPE open_requests_status gauge
        open_requests_status{action="deploy",status="awaiting_personas"} 2
        open_requests_status{action="deploy",status="ready_for_approval"} 1
        # HELP outbox_depth Work that waits for delivery.
        # TYPE outbox_depth gauge
        outbox_depth 4
        # HELP outbox_oldest_age_seconds How long the oldest of it has waited.
        # TYPE outbox_oldest_age_seconds gauge
        outbox_oldest_age_seconds 1.5
        # HELP pending_requests Requests that have not ended.
        # TYPE pending_requests gauge
        pending_requests{action="deploy"} 3
        # HELP persona_pending_requests Requests that wait for a persona.
        # TYPE persona_pending_requests gauge
        persona_pending_requests{action="deploy",persona="security"} 2
        "#);
    }
}

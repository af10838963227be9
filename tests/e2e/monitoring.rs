//! What watches gateways: `/metrics` as docs/METRICS.md says, the alert rules, the dashboard, and a real Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use countersign_tests::{
    Ask, Authority, Call, Click, Connection, Home, Prometheus, Redis, Slack, deploy, project, promtool,
};
use serde_json::Value;

/// A metric as docs/METRICS.md has it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Documented {
    kind: String,
    labels: BTreeSet<String>,
    counted: String,
    meaning: String,
}

fn documented() -> BTreeMap<String, Documented> {
    let page = fs::read_to_string(project("docs/METRICS.md")).expect("there is a page");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, labels, counted, meaning] = cells[..] else { panic!("another form: {row}") };
        assert!(["store", "instance", "each"].contains(&counted), "{row}");
        let labels = labels.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let of = Documented { kind: kind.into(), labels, counted: counted.into(), meaning: meaning.into() };
        (name.trim_matches('`').to_owned(), of)
    })
    .collect()
}

/// What comes before this in a line, if it begins so.
fn after<'a>(line: &'a str, start: &str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix(start)?.split_once(' ')
}

/// All that is shown of a metric, by its name.
fn shown(text: &str) -> BTreeMap<String, Documented> {
    let mut shown: BTreeMap<String, Documented> = BTreeMap::new();
    for (name, meaning) in text.lines().filter_map(|line| after(line, "# HELP ")) {
        let of = Documented { meaning: meaning.into(), ..Documented::default() };
        assert_eq!(shown.insert(name.into(), of), None, "{name} comes once");
    }
    for (name, kind) in text.lines().filter_map(|line| after(line, "# TYPE ")) {
        shown.get_mut(name).expect("what has a type has help").kind = kind.into();
    }
    for sample in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, labels)) = sample.split_once('{') else { continue };
        let of = shown.get_mut(base(name)).unwrap_or_else(|| panic!("no help of {sample}"));
        let names = labels.split("=\"").filter_map(|part| part.rsplit(['{', ',', '"', ' ']).next());
        of.labels.extend(names.filter(|name| is_name(name) && *name != "le").map(str::to_owned));
    }
    shown
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// A metric, by the name of one of its series.
fn base(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// The texts of all Rust files below a folder.
fn sources(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all += &fs::read_to_string(path).expect("text");
        }
    }
    all
}

#[tokio::test]
async fn the_page_has_every_metric_and_promtool_finds_no_fault() {
    let slack = Slack::start().await;
    let authority = Authority::new();
    let home =
        Home::new(&deploy(1)).with_slack(&slack).with_tls(&authority.server(), authority.tls_client(None));
    let gateway = home.start().await;
    let request = gateway.open("deploy").await;
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    gateway.ended(&request.token).await;
    let text = gateway.send(&Call::get("/metrics")).await.text();

    let documented = documented();
    for (name, shown) in shown(&text) {
        let page = documented.get(&name).unwrap_or_else(|| panic!("docs/METRICS.md lacks {name}"));
        assert_eq!((&shown.kind, &shown.meaning), (&page.kind, &page.meaning), "{name}");
        if !shown.labels.is_empty() {
            assert_eq!(shown.labels, page.labels, "{name}");
        }
    }
    let sources = sources(&project("host"));
    for name in documented.keys() {
        assert!(sources.contains(&format!("\"{name}\"")), "no gateway has {name}");
    }
    // From the start, for each action.
    for series in [
        "escalations_total{action=\"deploy\"} 0",
        "denies_total{action=\"deploy\"} 0",
        "param_overrides_total{action=\"deploy\",outcome=\"rejected\"} 0",
        "approval_use_refusals_total{action=\"deploy\",reason=\"payload_mismatch\"} 0",
        "decision_latency_seconds_count{action=\"deploy\",outcome=\"denied\"} 0",
        "open_requests_status{action=\"deploy\",status=\"awaiting_personas\"} 0",
        "pending_requests{action=\"deploy\"} 0",
        "approvals_total{action=\"deploy\"} 1",
    ] {
        assert!(text.lines().any(|line| line == series), "{series} is not in {text}");
    }
    // Whatever a caller sends is no label.
    for call in
        [Call::new("BREW", "/metrics"), Call::get("/nowhere/at/all"), Call::get("/api/schemas/of-nothing")]
    {
        gateway.send(&call).await;
    }
    let text = gateway.send(&Call::get("/metrics?stored=always")).await.text();
    assert!(!["BREW", "nowhere", "of-nothing"].iter().any(|sent| text.contains(sent)), "{text}");
    let routes = shown(&text);
    assert_eq!(routes["http_request_duration_seconds"].labels.len(), 3);
    assert!(text.contains("route=\"none\",status=\"404\"") && text.contains("method=\"other\""), "{text}");
    let wrong = gateway.send(&Call::get("/metrics?stored=sometimes")).await;
    assert_eq!((wrong.status(), &wrong.json()["error"]), (400, &Value::from("invalid_payload")));

    let checked = promtool(&project(""), &["check", "metrics"], &text);
    let said = [checked.stdout, checked.stderr].concat();
    assert!(checked.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

/// The expressions of the alert rules and of the dashboard.
fn expressions() -> Vec<String> {
    let rules = fs::read_to_string(project("deploy/monitoring/alerts.yaml")).expect("there are rules");
    let mut found = Vec::new();
    let mut lines = rules.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(expression) = line.trim().strip_prefix("expr: ") else { continue };
        let mut expression = expression.trim_matches('|').to_owned();
        while let Some(more) = lines.next_if(|more| more.starts_with("          ")) {
            expression = format!("{expression} {}", more.trim());
        }
        found.push(expression);
    }
    assert!(found.len() >= 20, "{found:?}");
    let dashboard = fs::read(project("deploy/monitoring/dashboard.json")).expect("there is a dashboard");
    let dashboard: Value = serde_json::from_slice(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    found.extend(targets.map(|target| target["expr"].as_str().expect("an expression").to_owned()));
    found
}

/// The metrics that an expression asks for: names that are neither functions, nor keywords, nor labels.
fn asked_for(expression: &str) -> BTreeSet<String> {
    let mut plain = String::new();
    let mut depth = 0;
    for letter in expression.chars() {
        match letter {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ if depth == 0 => plain.push(letter),
            _ => {}
        }
    }
    let mut names = BTreeSet::new();
    let mut rest = plain.as_str();
    while let Some(start) = rest.find(|letter: char| letter.is_ascii_alphabetic()) {
        let word = &rest[start..];
        let end =
            word.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(word.len());
        let (word, next) = word.split_at(end);
        rest = next;
        match word {
            "by" => rest = next.split_once(')').expect("labels").1,
            "and" | "or" => {}
            _ if next.starts_with('(') || next.starts_with(" by") || word == "sum" || word == "max" => {}
            _ => {
                names.insert(word.to_owned());
            }
        }
    }
    names
}

#[test]
fn rules_and_dashboard_ask_for_metrics_that_exist() {
    let documented = documented();
    let mut asked = BTreeSet::new();
    for expression in expressions() {
        let names = asked_for(&expression);
        assert!(!names.is_empty(), "{expression}");
        for name in names.iter().filter(|name| *name != "up") {
            let of = documented.get(base(name)).or_else(|| documented.get(name));
            assert!(of.is_some(), "no metric {name}: {expression}");
        }
        asked.extend(names.iter().map(|name| base(name).to_owned()));
    }
    let unasked: Vec<&String> = documented.keys().filter(|name| !asked.contains(*name)).collect();
    assert!(unasked.is_empty(), "on no panel and in no rule: {unasked:?}");

    let folder = project("deploy/monitoring");
    for words in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]] {
        let ran = promtool(&folder, &words, "");
        assert!(ran.status.success(), "{words:?}: {ran:?}");
    }
}

/// Every use of a metric in an expression: its name, what it is, what stands before it, and what comes after its labels.
fn uses<'a>(
    expression: &'a str,
    documented: &'a BTreeMap<String, Documented>,
) -> impl Iterator<Item = (&'a str, &'a Documented, &'a str, &'a str)> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let starts = expression
        .char_indices()
        .filter(move |(at, letter)| letter.is_ascii_alphabetic() && !expression[..*at].ends_with(is_part));
    starts.filter_map(move |(at, _)| {
        let (before, rest) = expression.split_at(at);
        let (name, after) = rest.split_at(rest.find(|letter| !is_part(letter)).unwrap_or(rest.len()));
        let of = documented.get(base(name)).or_else(|| documented.get(name))?;
        let after = match after.strip_prefix('{') {
            Some(labels) => labels.split_once('}').expect("labels end").1,
            None => after,
        };
        Some((name, of, before, after))
    })
}

/// One gateway after the other shows what the store counts, each in a series of its own: without `max` over them, what is
/// counted as the lease moves is missed, or counted twice.
#[test]
fn what_the_store_counts_is_one_series_in_every_rule_and_panel() {
    let documented = documented();
    let mut found = BTreeSet::new();
    for expression in expressions() {
        for (name, of, before, after) in
            uses(&expression, &documented).filter(|(_, of, ..)| of.counted == "store")
        {
            let before = before.trim_end().strip_suffix('(').map(str::trim_end);
            let by = before
                .and_then(|before| before.strip_suffix(')'))
                .and_then(|before| before.rsplit_once("max by ("));
            let (_, by) = by.unwrap_or_else(|| panic!("no `max by (…) ({name})`: {expression}"));
            let by: BTreeSet<String> = by.split(',').map(|label| label.trim().to_owned()).collect();
            let mut labels = of.labels.clone();
            labels.extend(["job".to_owned(), "namespace".to_owned()]);
            labels.extend(name.ends_with("_bucket").then(|| "le".to_owned()));
            assert_eq!(by, labels, "{name}: {expression}");
            let after = after.trim_start().strip_prefix(')').expect("it is alone in the `max`");
            if of.kind != "gauge" {
                let step =
                    after.strip_prefix('[').and_then(|range| range.split_once(']')).map(|(range, _)| range);
                assert!(step.is_some_and(|range| range.ends_with(":15s")), "{name}: {expression}");
            }
            found.insert(name.to_owned());
        }
    }
    assert!(found.contains("expired_total") && found.len() > 20, "{found:?}");
}

/// Two environments in one Prometheus do not answer for each other.
#[test]
fn every_rule_that_sums_keeps_job_and_namespace() {
    let rules = fs::read_to_string(project("deploy/monitoring/alerts.yaml")).expect("there are rules");
    let lines: Vec<&str> = rules.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let rules = lines.join("\n");
    for aggregation in ["sum", "max", "min", "avg", "count"] {
        for (at, _) in rules.match_indices(aggregation) {
            let after = &rules[at + aggregation.len()..];
            if after.starts_with('(') || after.starts_with(" by (") {
                assert!(
                    after.starts_with(" by (job, namespace"),
                    "{}",
                    after.lines().next().expect("a line")
                );
            }
        }
    }
}

/// A fault that the gateway reports and that nobody is told of would be none.
#[tokio::test]
async fn every_code_of_degraded_is_in_a_rule() {
    let gateway = Home::new(&deploy(1)).start().await;
    let text = gateway.send(&Call::get("/metrics")).await.text();
    let codes = text.lines().filter_map(|line| line.strip_prefix("gateway_degraded{reason=\""));
    let codes: BTreeSet<&str> = codes.filter_map(|line| Some(line.split_once('"')?.0)).collect();
    let rules = fs::read_to_string(project("deploy/monitoring/alerts.yaml")).expect("there are rules");
    let asked = rules.split("gateway_degraded{reason").skip(1).filter_map(|rest| rest.split('"').nth(1));
    let asked: BTreeSet<&str> = asked.flat_map(|codes| codes.split('|')).collect();
    assert!(codes.len() > 5, "{text}");
    assert_eq!(codes, asked);
}

#[test]
fn each_alert_says_what_to_read() {
    let rules = fs::read_to_string(project("deploy/monitoring/alerts.yaml")).expect("there are rules");
    let alerts = rules.lines().filter(|line| line.trim().starts_with("- alert:")).count();
    let named: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("runbook: ")).collect();
    assert_eq!(named.len(), alerts);
    for place in named {
        let (file, anchor) = place.split_once('#').unwrap_or((place, ""));
        let text = fs::read_to_string(project(file)).unwrap_or_else(|error| panic!("{place}: {error}"));
        let mut headings = text.lines().filter_map(|line| line.strip_prefix("## ")).map(|heading| {
            let letters = heading.to_lowercase();
            letters
                .chars()
                .filter(|letter| letter.is_alphanumeric() || *letter == ' ')
                .collect::<String>()
                .replace(' ', "-")
        });
        assert!(anchor.is_empty() || headings.any(|heading| heading == anchor), "{place}");
    }
}

/// Each gateway counts what it does itself, and one of them shows what the store counts: sums are right, also after the one
/// that showed it is gone. An outage of the Redis fires an alert, which ends with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_sees_three_gateways_on_one_redis() {
    let mut redis = Redis::start().await;
    let start = || Home::new(&deploy(1)).with_redis(&redis).start();
    let (one, two, three) = (start().await, start().await, start().await);
    let rules = fs::read_to_string(project("deploy/monitoring/alerts.yaml")).expect("there are rules");
    // Rehearsed in seconds: nobody waits for the minutes that an outage must last.
    let rules: String = rules
        .lines()
        .filter(|line| !line.trim().starts_with("for: "))
        .map(|line| format!("{line}\n"))
        .collect();
    let addresses = [one.address(), two.address(), three.address()];
    let prometheus = Prometheus::scraping(&addresses, &rules).await;
    prometheus.is("sum(up)", "3").await;
    for gateway in [&one, &two, &three, &one, &two] {
        gateway.open("deploy").await;
    }
    let request = three.create(&Ask::new("deploy")).await.expect("it is admitted");
    one.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    prometheus.is("sum(approval_requests_total)", "6").await;
    prometheus.is("sum(approvals_total)", "1").await;
    prometheus.is("sum(pending_requests)", "5").await;
    prometheus.is("sum(stored_metrics_shown)", "1").await;
    prometheus.is("count(approval_requests_total)", "1").await;
    let creates = "sum(http_request_duration_seconds_count{route=\"/api/guard/request\",status=\"200\"})";
    prometheus.is(creates, "6").await;

    // The one that shows what the store counts is killed: another does soon, and nothing is counted twice.
    let shown = prometheus.query("stored_metrics_shown == 1").await;
    let [(labels, _)] = &shown[..] else { panic!("{shown:?}") };
    let showing = labels["instance"].clone();
    let (killed, mut left) = [one, two, three]
        .into_iter()
        .partition::<Vec<_>, _>(|gateway| gateway.address().to_string() == showing);
    killed.into_iter().for_each(|gateway| drop(gateway.kill()));
    prometheus.is("sum(up)", "2").await;
    prometheus.is("sum(approval_requests_total)", "6").await;
    prometheus.is("sum(stored_metrics_shown)", "1").await;
    let (other, last) = (left.pop().expect("two are left"), left.pop().expect("two are left"));
    // For people any instance shows it.
    for gateway in [&other, &last] {
        assert_eq!(gateway.metrics().await.count("approval_requests_total", &[]), 6);
    }
    let alone = async |gateway: &countersign_tests::Gateway| {
        let mut connection = Connection::open(gateway.address()).await.expect("it listens");
        let text = connection.send(&Call::get("/metrics")).await.expect("it answers").text();
        usize::from(text.contains("approval_requests_total{action=\"deploy\"} 6"))
    };
    assert_eq!(alone(&other).await + alone(&last).await, 1);

    let firing = "count(ALERTS{alertname=\"CountersignStoreUnavailable\",alertstate=\"firing\"})";
    prometheus.until(firing, <[_]>::is_empty).await;
    redis.kill();
    prometheus.is(firing, "2").await;
    redis.resume().await;
    prometheus.until(firing, <[_]>::is_empty).await;
    prometheus.is("sum(approval_requests_total)", "6").await;
    let down = "ALERTS{alertname=\"CountersignDown\",alertstate=\"firing\"}";
    prometheus.until(down, |alerts| alerts.len() == 1).await;
}

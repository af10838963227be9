//! SIGKILL at random moments under load: whatever was acknowledged is there afterwards, once.
//!
//! Each round starts the gateway on the same data, lets several people and callers work on it, and kills it after
//! a random number of acknowledgements, so that the moment depends on progress and not on time; some are killed
//! while they start. Each client records the answers that it got; the next round begins by comparing these records
//! with the files that the killed gateway left, and with the answers of the next one.
//!
//! `COUNTERSIGN_CRASH_SEED` repeats a run's choices, `COUNTERSIGN_CRASH_ROUNDS` makes it longer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use countersign_tests::{
    Ask, Call, Click, Connection, Home, Random, Receipt, millis, unix_seconds, variable, within,
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::ledger::Ledger;

const ROUNDS: u64 = 60;
const CLIENTS: u64 = 8;

/// The most acknowledgements before a kill.
const MOST_ACKNOWLEDGEMENTS: u64 = 150;

const ACTIONS: &str = "
  single:
    description: One is enough
    timeout: 1h
    policies:
      - use: quorum
        with: { approvers: [U0, U1, U2, U3, U4, U5, U6, U7] }
  triple:
    description: Three of eight
    timeout: 1h
    policies:
      - use: quorum
        with: { approvers: [U0, U1, U2, U3, U4, U5, U6, U7], approvals: 3 }
  gated:
    description: A persona and two of eight
    timeout: 1h
    policies:
      - use: persona-gate
        with: { personas: { security: [U0, U1, U2, U3] } }
      - use: quorum
        with: { approvers: [U0, U1, U2, U3, U4, U5, U6, U7], approvals: 2 }
  brief:
    description: Over soon
    timeout: 2s
    escalate: { before: 1s }
    policies:
      - use: quorum
        with: { approvers: [U0, U1, U2, U3, U4, U5, U6, U7], approvals: 2 }
";

#[tokio::test]
async fn what_was_acknowledged_survives_sigkill() {
    let number = |name| variable(name).and_then(|text| text.parse().ok());
    let seed = number("COUNTERSIGN_CRASH_SEED").unwrap_or_else(unix_seconds);
    let rounds = number("COUNTERSIGN_CRASH_ROUNDS").unwrap_or(ROUNDS);
    // Shown if the test fails.
    println!("COUNTERSIGN_CRASH_SEED={seed}");
    let mut random = Random::new(seed);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|n| Client::new(n, Random::new(random.next()))).collect();
    let mut home = Home::alone(ACTIONS);
    let mut start_takes = Duration::from_millis(100);
    let (mut kills, mut acknowledged) = (0, 0);
    for round in 0..rounds {
        if random.below(8) == 0 {
            // Opening, recovering and compiling can be cut short, too. No answer shows how far it is: only time does.
            let moment =
                start_takes.mul_f64(f64::from(u32::try_from(random.below(100)).unwrap_or(0)) / 100.0);
            home.start_and_kill(tokio::time::sleep(moment)).await;
            kills += 1;
        }
        let gateway = home.start().await;
        start_takes = gateway.ready_after;
        let mut connection = gateway.connect().await;
        // A press that took longer than Slack waits was kept on disk until it was stored.
        let applied = async {
            loop {
                let metrics = gateway.metrics().await;
                assert!(metrics.has("slack_presses_spooled"), "the metric is not there");
                if metrics.count("slack_presses_spooled", &[]) == 0 {
                    break;
                }
            }
        };
        within("what was kept to be applied", applied).await;
        for client in &mut clients {
            client.compare(&mut connection).await;
        }

        let open: Arc<Vec<Known>> =
            Arc::new(clients.iter().flat_map(|client| client.recent.clone()).collect());
        let progress = Arc::new(Semaphore::new(0));
        let api = *gateway;
        let work = clients.into_iter().map(|client| {
            let (open, progress) = (Arc::clone(&open), Arc::clone(&progress));
            tokio::spawn(async move { client.work(api.connect().await, round, &open, &progress).await })
        });
        let work: Vec<_> = work.collect();
        let target = u32::try_from(1 + random.below(MOST_ACKNOWLEDGEMENTS)).expect("it is small");
        within("acknowledgements", progress.acquire_many(target)).await.expect("it is never closed").forget();

        home = gateway.kill();

        kills += 1;
        acknowledged += u64::from(target);
        let done = within("the clients to notice", join_all(work)).await;
        clients =
            done.into_iter().map(|client| client.expect("every client agrees with the answers")).collect();
        check_files(&Ledger::of(&home), &clients);
    }

    // In the end everything, not only what was changed since the last kill.
    let gateway = home.start().await;
    let mut connection = gateway.connect().await;
    for client in &mut clients {
        client.touched = client.records.keys().cloned().collect();
        client.compare(&mut connection).await;
    }
    let requests = clients.iter().flat_map(|client| client.records.keys()).collect::<BTreeSet<_>>().len();
    let metrics = gateway.metrics().await;
    let ledger = Ledger::of(&gateway.kill());
    check_files(&ledger, &clients);
    for metric in
        ["approval_requests_total", "approvals_total", "denies_total", "expired_total", "escalations_total"]
    {
        assert_eq!(metrics.count(metric, &[]), ledger.counter(metric), "{metric}");
    }
    println!("{kills} kills, {acknowledged} acknowledgements waited for, {requests} requests");
    assert!(kills >= rounds && requests > 0);
}

/// A request, as everybody who works on it knows it.
#[derive(Clone, Debug)]
struct Known {
    id: String,
    token: String,
}

/// What one client knows of a request, from its answers.
#[derive(Debug, Default)]
struct Entry {
    token: String,
    /// Whether this client's approval counts.
    approved: bool,
    /// Whether this client's acknowledgement counts; if that is in doubt, no.
    acknowledged: bool,
    /// It did something and was not answered: that may have happened, or not.
    in_doubt: bool,
    /// An answer said that the request has ended.
    ended: bool,
    /// How the request ended, once it has seen that.
    end: Option<Value>,
}

/// A client that makes requests, votes on those of all clients, and records each answer. It does one thing at a time, and
/// nobody else acts in its name, so it knows what must be stored.
struct Client {
    name: String,
    random: Random,
    /// By request id.
    records: BTreeMap<String, Entry>,
    /// Requests that it did something to since it last compared.
    touched: BTreeSet<String>,
    /// The own requests of the last round, for everybody to vote on.
    recent: Vec<Known>,
    /// A create that was not answered.
    unanswered: Option<Ask>,
}

impl Client {
    fn new(number: u64, random: Random) -> Client {
        Client {
            name: format!("U{number}"),
            random,
            records: BTreeMap::new(),
            touched: BTreeSet::new(),
            recent: Vec::new(),
            unanswered: None,
        }
    }

    /// Works until the gateway is gone; adds a permit to `progress` for each answer.
    async fn work(
        mut self,
        connection: Connection,
        round: u64,
        open: &[Known],
        progress: &Semaphore,
    ) -> Client {
        let mut connection = connection;
        self.recent.clear();
        for serial in 0.. {
            let from = if self.random.below(2) == 0 { &self.recent } else { open };
            let answered = match self.random.one_of(from).cloned() {
                Some(known) if self.random.below(10) < 7 => self.act(&mut connection, &known).await,
                _ => self.create(&mut connection, &format!("{}-{round}-{serial}", self.name)).await,
            };
            if answered.is_err() {
                break;
            }
            progress.add_permits(1);
        }
        self
    }

    async fn create(&mut self, connection: &mut Connection, key: &str) -> anyhow::Result<()> {
        let action = self.random.one_of(&["single", "triple", "gated", "brief"]).expect("there are some");
        let ask = Ask::new(action).idempotency_key(key);
        self.unanswered = Some(ask.clone());
        let reply = connection.send(&ask.call()).await?;
        self.unanswered = None;
        self.made(Receipt::read(reply).expect("it is admitted"));
        Ok(())
    }

    fn made(&mut self, receipt: Receipt) {
        let known = Known { id: receipt.id, token: receipt.token };
        self.entry(&known);
        self.recent.push(known);
    }

    fn entry(&mut self, known: &Known) -> &mut Entry {
        self.touched.insert(known.id.clone());
        let entry = self.records.entry(known.id.clone()).or_default();
        entry.token.clone_from(&known.token);
        entry
    }

    async fn act(&mut self, connection: &mut Connection, known: &Known) -> anyhow::Result<()> {
        let (name, id) = (self.name.clone(), known.id.as_str());
        let chance = self.random.below(20);
        let entry = self.entry(known);
        let click = match chance {
            0..12 => Click::approve(&name, id),
            12..15 => Click::acknowledge("security", &name, id),
            15 => Click::deny(&name, id),
            16 | 17 => Click::withdraw(&name, id),
            _ => return entry.ask(connection, if chance == 18 { "cancel" } else { "wait" }).await,
        };
        entry.in_doubt = true;
        let answer = connection.click_until_known(&click).await?;
        entry.in_doubt = false;
        if answer["ok"] == true {
            match chance {
                0..12 => entry.approved = true,
                12..15 => entry.acknowledged = true,
                15 => {}
                _ => (entry.approved, entry.acknowledged) = (false, false),
            }
            entry.ended |= is_terminal(&answer["status"]);
            return Ok(());
        }
        match answer["error"].as_str().unwrap_or_default() {
            "duplicate_approval" => assert!(entry.approved, "{id}: {name} got no answer to it: {answer}"),
            "nothing_to_withdraw" => {
                assert!(!entry.approved && !entry.acknowledged, "{id}: {name} got another answer: {answer}");
            }
            "already_decided" => entry.ended = true,
            // Too late, not entitled, or not yet: no answer to this client says otherwise. What somebody else did in time
            // may be stored after this one was told that it is too late.
            "expired" | "duplicate_acknowledgement" | "unauthorized" | "refused" => {}
            _ => panic!("{id}: {answer}"),
        }
        Ok(())
    }

    /// Compares the answers before the kill with those of now; that also settles what was in doubt.
    async fn compare(&mut self, connection: &mut Connection) {
        if let Some(ask) = self.unanswered.take() {
            let reply = connection.send(&ask.call()).await.expect("it is answered");
            self.made(Receipt::read(reply).expect("it is admitted, now or before"));
        }
        for id in std::mem::take(&mut self.touched) {
            let entry = self.records.get_mut(&id).expect("every changed request was recorded");
            let status = Call::get(&format!("/api/guard/status?requestId={id}"));
            let status = connection.send(&status).await.expect("it is answered");
            assert_eq!(status.status(), 200, "{id} is gone: {}", status.text());
            let status = status.json();
            let approvers = status["approvers"].as_array().expect("approvers are a list");
            let approved = approvers.contains(&json!(self.name));
            if entry.in_doubt {
                entry.acknowledged = false;
            } else {
                assert_eq!(approved, entry.approved, "{id}: {} got another answer: {status}", self.name);
            }
            (entry.approved, entry.in_doubt) = (approved, false);
            if entry.acknowledged {
                assert_eq!(status["personaState"]["security"], "acknowledged", "{id}: {status}");
            }
            if is_terminal(&status["status"]) {
                let is_late = millis(&status["decidedAt"]) >= millis(&status["expiresAt"]);
                assert_eq!(is_late, status["status"] == "expired", "{id} ended at another time: {status}");
            }
            entry.ask(connection, "wait").await.expect("it is answered");
        }
    }
}

impl Entry {
    /// Polls the request once, or cancels it, and records the answer.
    async fn ask(&mut self, connection: &mut Connection, path: &str) -> anyhow::Result<()> {
        let call = Call::post(&format!("/api/guard/{path}"), &json!({"token": self.token}));
        // A cancellation in doubt needs no note: no answer says that the request was still open.
        let reply = connection.send(&call).await?;
        let state = reply.json();
        if path == "cancel" && reply.status() == 409 {
            self.ended |= state["error"] != "expired";
            return Ok(());
        }
        assert_eq!(reply.status(), 200, "{path}: {state}");
        if is_terminal(&state["status"]) {
            let end = self.end.get_or_insert_with(|| state.clone());
            assert_eq!(*end, state, "it has ended twice");
            self.ended = true;
        }
        assert!(!self.ended || self.end.is_some(), "it had ended before: {state}");
        let approvers = state["approvers"].as_array().expect("approvers are a list");
        let distinct: BTreeSet<&str> = approvers.iter().filter_map(Value::as_str).collect();
        assert_eq!(distinct.len(), approvers.len(), "somebody counts twice: {state}");
        Ok(())
    }
}

/// Checks that the killed gateway's files are complete, and agree with the answers that the clients got.
fn check_files(ledger: &Ledger, clients: &[Client]) {
    assert!(ledger.is_sound(), "the database is damaged");
    let rows: BTreeMap<String, String> =
        ledger.requests().into_iter().map(|row| (row.id, row.status)).collect();
    let ids: Vec<&String> = rows.keys().collect();
    assert_eq!(sorted(&ledger.audited(&["created"])), ids, "not every request was created once");
    let ended: Vec<&String> =
        rows.iter().filter(|(_, status)| TERMINAL.contains(&status.as_str())).map(|(id, _)| id).collect();
    assert_eq!(sorted(&ledger.audited(&TERMINAL)), ended, "not every end was decided once");
    assert_eq!(sorted(&ledger.outbox("show_request")), ids, "not every request has its outbox entry");
    let escalated = ledger.audited(&["escalated"]);
    assert_eq!(
        sorted(&ledger.outbox("notify_escalation")),
        sorted(&escalated),
        "not every escalation has its outbox entry"
    );
    let with = |wanted: &str| rows.values().filter(|status| *status == wanted).count() as u64;
    let counters =
        ["approval_requests_total", "escalations_total", "approvals_total", "denies_total", "expired_total"];
    let expected =
        [ids.len() as u64, escalated.len() as u64, with("approved"), with("denied"), with("expired")];
    assert_eq!(counters.map(|metric| ledger.counter(metric)), expected, "{counters:?}");

    let voted = ledger.acts("approval_recorded");
    for client in clients {
        for (id, entry) in &client.records {
            let status = rows.get(id).unwrap_or_else(|| panic!("{id} was acknowledged, and is gone"));
            let terminal = TERMINAL.contains(&status.as_str());
            assert!(terminal || !entry.ended, "{id} had ended, and is {status}");
            if let Some(end) = &entry.end {
                assert_eq!(end["status"], status.as_str(), "{id} ended otherwise");
            }
            let vote = (id.clone(), client.name.clone());
            assert!(!entry.approved || voted.contains(&vote), "the approval of {vote:?} is gone");
        }
    }
}

const TERMINAL: [&str; 4] = ["approved", "denied", "expired", "cancelled"];

fn is_terminal(status: &Value) -> bool {
    TERMINAL.iter().any(|terminal| status == terminal)
}

fn sorted(ids: &[String]) -> Vec<&String> {
    let mut ids: Vec<&String> = ids.iter().collect();
    ids.sort();
    ids
}

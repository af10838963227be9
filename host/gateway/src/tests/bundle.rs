//! Decisions are re-executed from their bundles, and whatever was changed is named.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_core::bundle::{Bundle, RecordedEvents, RecordedSubmission};
use countersign_core::lifecycle::{Act, Actor, AdminActor, AdminEnd, Decided, Ending, Event, State};
use countersign_core::receipt::ReceiptDocument;

use super::*;
use crate::bundle::{Asked, ReplayError, Replayed, read, replay};

/// What is checked: the document of the receipt, and the bundle as it is handed out.
struct Proof {
    request: Arc<Request>,
    document: ReceiptDocument,
    text: String,
}

impl Proof {
    async fn of(house: &House, request: Arc<Request>) -> Proof {
        let entry = house.gateway.entry_of(&request).await.expect("its rules");
        let document = ReceiptDocument::of(&request, &entry).expect("it has ended");
        let text = house.gateway.bundle(&request).await.expect("a bundle");
        Proof { request, document, text }
    }

    fn bundle(&self) -> Bundle {
        read(self.text.as_bytes()).expect("a bundle")
    }

    fn replay(&self, asked: Option<&Asked>) -> Result<Replayed, ReplayError> {
        replay(&self.document, &self.bundle(), asked, &engine())
    }

    /// What a change of the bundle leads to.
    fn changed(&self, change: impl FnOnce(&mut Bundle)) -> String {
        let mut bundle = self.bundle();
        change(&mut bundle);
        let text = bundle.canonical().expect("JSON");
        let replayed =
            read(text.as_bytes()).and_then(|bundle| replay(&self.document, &bundle, None, &engine()));
        replayed.expect_err("it was changed").to_string()
    }
}

/// A request of any action, on which anybody does anything until it ends.
async fn decided(house: &House, rng: &mut fastrand::Rng) -> Arc<Request> {
    let actions = ["single", "double", "personas", "window"];
    let action = rng.choice(actions).expect("there are some");
    let params = json!({"replicas": rng.u8(1..9), "secret": rng.u64(..).to_string()});
    let asked = Ask { params: params.as_object().cloned().expect("an object"), ..ask(action) };
    let made = house.gateway.create(asked, None, MostOpen::default()).await.expect("it is admitted");
    let id = made.request.id;
    for _ in 0..rng.u8(1..12) {
        let who = format!("U{}", rng.u8(1..=9));
        let edits = match rng.u8(..4) {
            0 => BTreeMap::from([("replicas".to_owned(), Some(json!(rng.u8(1..9))))]),
            _ => BTreeMap::new(),
        };
        let intent = match rng.u8(..10) {
            0 => Intent::Deny { reason: rng.bool().then(|| "not today".to_owned()) },
            1 => Intent::Withdraw,
            2 | 3 => Intent::Acknowledge { persona: "security".to_owned() },
            4 | 5 => Intent::Acknowledge { persona: "release".to_owned() },
            _ => Intent::Approve { edits },
        };
        // Most of it does not count.
        drop(house.gateway.act(id, &who, &intent).await);
        house.clock.advance(rng.u64(..90_000));
        house.turn().await;
        if house.gateway.request(id).await.expect("readable").status().is_terminal() {
            break;
        }
    }
    let request = house.gateway.request(id).await.expect("readable");
    if request.status().is_terminal() {
        return request;
    }
    let reason = rng.bool().then(|| "no more".to_owned());
    let by_admin = |ending| {
        let by = AdminActor { name: "dana".to_owned(), call: serde_json::Map::new() };
        house.gateway.end(id, AdminEnd { ending, by, reason: reason.clone() })
    };
    match rng.u8(..6) {
        0 | 1 => return house.gateway.cancel(id, reason).await.expect("it is open"),
        2 => return by_admin(Ending::Cancelled).await.expect("it is open"),
        3 => return by_admin(Ending::Expired).await.expect("it is open"),
        _ => {}
    }
    house.clock.advance(15 * MINUTE);
    house.turn().await;
    house.gateway.request(id).await.expect("readable")
}

/// How many: `COUNTERSIGN_REPLAYS`, or some.
#[expect(clippy::disallowed_methods, reason = "a test has no arguments")]
fn how_many() -> usize {
    std::env::var("COUNTERSIGN_REPLAYS").map_or(80, |text| text.parse().expect("a number"))
}

#[tokio::test]
async fn decisions_made_at_random_are_re_executed_and_agree() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let house = House::ready().await;
    let mut endings = BTreeMap::<Status, usize>::new();
    let number = how_many();
    for _ in 0..number {
        let request = decided(&house, &mut rng).await;
        *endings.entry(request.status()).or_default() += 1;
        let proof = Proof::of(&house, request).await;
        let replayed = proof.replay(None);
        let replayed = replayed.unwrap_or_else(|error| panic!("{error}: {:?}", proof.request));
        assert_eq!(replayed.events, proof.request.history.len());
        assert_eq!(replayed.admitted, proof.request.submission.redacted.is_empty());
    }
    println!("{endings:?}");
    assert!(number < 80 || endings.len() == 4, "all kinds of decisions: {endings:?}");
}

/// Approved by two, with an edit on the way.
async fn approved(house: &House) -> Proof {
    let request = house.ask("double").await.request;
    let edits = BTreeMap::from([("replicas".to_owned(), Some(json!(5)))]);
    house.gateway.act(request.id, "U1", &Intent::Approve { edits }).await.expect("counts");
    house.clock.advance(1000);
    let request = house.approve(request.id, "U2").await.expect("counts");
    assert_eq!(request.status(), Status::Approved);
    Proof::of(house, request).await
}

#[tokio::test]
async fn an_open_request_has_no_bundle() {
    let house = House::ready().await;
    let request = house.ask("single").await.request;
    assert!(matches!(house.gateway.bundle(&request).await, Err(GatewayError::Undecided)));
}

/// What was done with an approval since changes neither its receipt nor its bundle.
#[tokio::test]
async fn a_bundle_is_the_same_each_time_and_holds_no_hidden_value() {
    let house = House::ready().await;
    let proof = approved(&house).await;
    let parameters = crate::GivenParameters::PayloadHash(proof.request.payload_hash());
    let given = crate::Given { action: None, parameters };
    let used = house.gateway.consume(Arc::clone(&proof.request), &given, None, None).await.expect("once");
    let again = Proof::of(&house, used.request).await;
    assert_eq!((&again.text, &again.document), (&proof.text, &proof.document));
    assert!(!proof.text.contains("hunter2") && !proof.text.contains("sealed"));
}

#[tokio::test]
async fn what_was_changed_is_named() {
    let house = House::ready().await;
    let proof = approved(&house).await;
    assert_eq!(proof.replay(None), Ok(Replayed { events: 3, admitted: false, uncompared: BTreeSet::new() }));
    let asked = "what was asked (the submission, or what policies remembered of it)";
    let happened = "what happened (the events, or how the request ended)";
    type Change = fn(&mut Bundle);
    let changes: [(&str, Change); 10] = [
        (asked, |bundle| bundle.asked.submission.justification.push('.')),
        (asked, |bundle| bundle.asked.submission.params["replicas"] = 4.into()),
        (asked, |bundle| bundle.asked.memos[0].push(' ')),
        (asked, |bundle| bundle.asked.submission.token_hash = Digest::of(b"another")),
        (happened, |bundle| bundle.happened.history[1].at = START.plus(1)),
        (happened, |bundle| drop(bundle.happened.history.pop())),
        (happened, |bundle| {
            let by = bundle.happened.history[2].by.as_mut().expect("a person");
            by.groups.insert("admins".to_owned());
        }),
        (happened, |bundle| bundle.happened.end = State::Expired { at: START, by: None, reason: None }),
        ("the policy entry", |bundle| bundle.entry.timeout_ms += 1),
        ("the request", |bundle| bundle.request_id = RequestId::new(START, 0, 0)),
    ];
    for (part, change) in changes {
        assert_eq!(proof.changed(change), format!("{part} of the bundle is not what the receipt is about"));
    }
}

#[tokio::test]
async fn a_module_that_answers_alike_is_named() {
    let house = House::ready().await;
    let proof = approved(&house).await;
    let swapped = |bundle: &mut Bundle, with_digest: bool| {
        let quorum = bundle.entry.policies[0].digest;
        let module = bundle.modules.iter_mut().find(|module| module.digest == quorum).expect("there");
        let mut bytes = STANDARD.decode(&module.bytes).expect("base64");
        // A custom section, which nobody reads.
        bytes.extend([0, 2, 1, b'x']);
        engine().load(&bytes, &[]).expect("it runs");
        module.bytes = STANDARD.encode(&bytes);
        if with_digest {
            module.digest = Digest::of(&bytes);
        }
    };
    let other = "the module `quorum` of the bundle is not the one that judged: its bytes have another digest";
    assert_eq!(proof.changed(|bundle| swapped(bundle, false)), other);
    let not_named = "the bundle is not as a gateway gives it: its modules are not those that its rules name";
    assert_eq!(proof.changed(|bundle| swapped(bundle, true)), not_named);
    let with_entry = |bundle: &mut Bundle| {
        let before = bundle.entry.policies[0].digest;
        swapped(bundle, true);
        let now = bundle.modules.iter().map(|module| module.digest);
        let known: Vec<Digest> = bundle.entry.policies.iter().map(|used| used.digest).collect();
        let now = now.into_iter().find(|digest| !known.contains(digest)).expect("the other one");
        bundle
            .entry
            .policies
            .iter_mut()
            .filter(|used| used.digest == before)
            .for_each(|used| used.digest = now);
    };
    assert_eq!(proof.changed(with_entry), "the policy entry of the bundle is not what the receipt is about");
    assert_eq!(proof.changed(|bundle| bundle.modules.clear()), not_named);
}

/// A gateway that has decided otherwise than its modules do, and signs it, is found out.
#[tokio::test]
async fn a_decision_that_the_modules_do_not_make_is_named() {
    let house = House::ready().await;
    let request = house.ask("single").await.request;
    let entry = PolicyEntry::clone(&house.gateway.entry_of(&request).await.expect("its rules"));
    let genuine = house.approve(request.id, "U1").await.expect("counts");
    let modules = Proof::of(&house, Arc::clone(&genuine)).await.bundle().modules;
    let check = |change: &dyn Fn(&mut Request), expected: &str| {
        let mut lie = Request::clone(&genuine);
        change(&mut lie);
        let bundle = Bundle {
            version: 1,
            request_id: lie.id,
            asked: RecordedSubmission::of(&lie),
            happened: RecordedEvents::of(&lie).expect("it has ended"),
            entry: entry.clone(),
            modules: modules.clone(),
        };
        let receipt = ReceiptDocument::of(&lie, &entry).expect("it has ended");
        let error = replay(&receipt, &bundle, None, &engine()).expect_err("a lie").to_string();
        assert_eq!(error, format!("re-execution comes to something else: {expected}"));
    };
    check(
        &|lie| {
            let by = Some(Actor { id: "U9".into(), ..lie.history[1].by.clone().expect("a person") });
            lie.history[1] = Event { by, ..lie.history[1].clone() };
        },
        "event 1 (approve by U9) does not count: unauthorized",
    );
    check(&|lie| drop(lie.history.pop()), "the request is ready_for_approval, not approved");
    check(
        &|lie| {
            let by = lie.history[1].by.clone();
            lie.history[1].act = Act::Deny { reason: None };
            lie.history[1].by = by;
        },
        "the request is denied, not approved",
    );
    check(
        &|lie| {
            let decided = Decided { at: START, by: Some("U2".into()), reason: None };
            lie.state = State::Approved { decided, consumed: None };
        },
        "the request is approved otherwise than recorded",
    );
    check(
        &|lie| Arc::make_mut(&mut lie.submission).unattended = true,
        "the rules make another submission of what was asked (what is hidden, or its times and terms)",
    );
    check(
        &|lie| {
            lie.history.pop();
            lie.state = State::Expired { at: START.plus(1), by: None, reason: None };
        },
        "the request does not end as recorded: not_due",
    );
}

/// Hidden values are only in what the policies remembered; who has them asks the policies again.
#[tokio::test]
async fn with_the_parameters_the_policies_are_asked_again() {
    let house = House::ready().await;
    let Made { request, salt, .. } = house.ask("single").await;
    let request = house.approve(request.id, "U1").await.expect("counts");
    let proof = Proof::of(&house, request).await;
    let params = |secret: &str, replicas: u8| {
        json!({"replicas": replicas, "secret": secret}).as_object().cloned().expect("an object")
    };
    let asked = Asked { params: params("hunter2", 3), salt: salt.clone() };
    assert_eq!(
        proof.replay(Some(&asked)),
        Ok(Replayed { events: 2, admitted: true, uncompared: BTreeSet::new() })
    );
    let differs = |params, salt: Option<_>| proof.replay(Some(&Asked { params, salt }));
    let differing = |key: &str| Err(ReplayError::Parameters(key.to_owned()));
    assert_eq!(differs(params("hunter3", 3), salt.clone()), differing("secret"));
    let untold = differs(params("hunter3", 3), None).expect("without the salt nobody can tell");
    assert_eq!(untold.uncompared, BTreeSet::from(["secret".to_owned()]));
    assert_eq!(differs(params("hunter2", 4), None), differing("replicas"));
    let mut more = params("hunter2", 3);
    more.insert("more".into(), json!(1));
    assert_eq!(differs(more, salt.clone()), differing("more"));
    let mut less = params("hunter2", 3);
    less.remove("secret");
    assert_eq!(differs(less, salt), differing("secret"));
}

/// Whatever byte is another one, it is noticed, and nothing panics.
#[tokio::test]
async fn no_changed_byte_goes_unnoticed() {
    let house = House::ready().await;
    let proof = approved(&house).await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let text = proof.text.as_bytes();
    let modules = proof.text.find("\"modules\"").expect("there");
    for round in 0..200 {
        let mut changed = text.to_vec();
        // Most of it is in the modules; what decides is before them, and after.
        let place = if round % 4 == 0 { rng.usize(..text.len()) } else { rng.usize(..modules) };
        match rng.u8(..3) {
            0 => changed[place] ^= 1 << rng.u8(..8),
            1 => drop(changed.remove(place)),
            _ => changed.insert(place, changed[rng.usize(..modules)]),
        }
        if changed == text {
            continue;
        }
        let replayed = read(&changed).and_then(|bundle| replay(&proof.document, &bundle, None, &engine()));
        assert!(replayed.is_err(), "seed {seed}, round {round}, place {place}");
    }
    for length in [0, 1, text.len() / 2, text.len() - 1] {
        assert!(read(&text[..length]).is_err());
    }
}

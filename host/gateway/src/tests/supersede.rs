//! Of the requests that agree in what their action names, only the newest stands.

use std::sync::atomic::{AtomicBool, Ordering};

use countersign_core::lifecycle::{AdminActor, AdminEnd, Ending, State};
use countersign_store::faulty::{Faulty, FaultyStore};
use countersign_store::{StoreError, StoreFault};

use super::*;

const SUPERSEDING: &str = r#"
  deploy:
    description: One of a kind
    timeout: 10m
    redact: { hide: [env] }
    rerequest: { cooldown: 1m }
    supersede: [service, env]
    policies:
      - use: quorum
        with: { approvers: [U1, U2], approvals: 2 }
"#;

/// Commits fail while this is set; creates do not.
#[derive(Clone, Default)]
struct NoCommits(Arc<AtomicBool>);

impl Faulty for NoCommits {
    async fn write<T: Send>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        if name == "commit" && self.0.load(Ordering::SeqCst) {
            let detail = "no commits".to_owned();
            return Err(StoreError::Unavailable { backend: "faulty", fault: StoreFault::Other, detail });
        }
        call.await
    }
}

/// A gateway with this action alone, whose commits can be made to fail.
struct Home {
    house: House,
    faults: NoCommits,
}

impl Home {
    async fn new() -> Home {
        let house = House::new();
        let faults = NoCommits::default();
        policies(house.folder.path(), SUPERSEDING);
        let store = Arc::clone(house.gateway.store());
        let mut home = Home { house, faults };
        home.house.gateway = home.gateway(store, Tokens::new([7; 32], Vec::new()));
        pin(&home.house.gateway).await;
        home
    }

    /// A gateway over this store, whose secret is this one.
    fn gateway(&self, store: Arc<dyn Store>, tokens: Tokens) -> Arc<Gateway> {
        let store = FaultyStore { store, faults: self.faults.clone() };
        let set = PolicySet::load(&self.house.folder.path().join("policies"), &engine());
        let policies = Arc::new(Policies::new(engine(), set.expect("the set is sound")));
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.house.clock);
        Arc::new(Gateway::new(Arc::new(store), policies, clock, tokens, SaltKeys::fixed()))
    }

    async fn ask(&self, params: Value) -> Arc<Request> {
        self.ask_as(None, params).await
    }

    async fn ask_as(&self, caller: Option<&str>, params: Value) -> Arc<Request> {
        let params = params.as_object().cloned().expect("an object");
        let asked = Ask { params, caller: caller.map(str::to_owned), ..ask("deploy") };
        let made = self.house.gateway.create(asked, None, MostOpen::default()).await;
        made.expect("it is admitted").request
    }

    async fn now(&self, request: &Request) -> Arc<Request> {
        self.house.gateway.request(request.id).await.expect("it is there")
    }

    async fn is_open(&self, request: &Request) -> bool {
        !self.now(request).await.status().is_terminal()
    }
}

fn web(reference: &str) -> Value {
    json!({"service": "web", "env": "production", "ref": reference})
}

#[tokio::test]
async fn only_the_newest_open_request_stands() {
    let home = Home::new().await;
    let first = home.ask(web("v1")).await;
    assert!(!first.is_superseding(), "it was looked for");
    home.house.approve(first.id, "U1").await.expect("counts");
    let mut watch = home.house.gateway.watchers().watch(first.id);
    let second = home.ask(web("v2")).await;
    let ended = home.now(&first).await;
    let reason = Some(format!("superseded by the newer request {}", second.id));
    let State::Cancelled { reason: said, successor, .. } = &ended.state else { panic!("{ended:?}") };
    assert_eq!((said, *successor), (&reason, Some(second.id)));
    let Seen::Version(heard) = watch.next().await else { panic!("nothing was missed") };
    assert_eq!(heard, ended, "whoever waits for it is told");
    assert_eq!(second.superseded, [first.id]);
    let successor = home.house.gateway.successor(&ended).await.expect("readable").expect("there");
    assert_eq!(successor.id, second.id);
    assert!(home.house.gateway.successor(&second).await.expect("readable").is_none());

    // Anything else stands beside it: another value, one that is missing, one that is null.
    let others = [
        json!({"service": "api", "env": "production", "ref": "v2"}),
        json!({"service": "web", "env": "staging", "ref": "v2"}),
        json!({"service": "web", "ref": "v2"}),
        json!({"service": "web", "env": null, "ref": "v2"}),
    ];
    let mut open = vec![second];
    for params in others {
        open.push(home.ask(params).await);
    }
    for request in &open {
        assert!(home.is_open(request).await, "{request:?}");
    }
    let events = home.house.events().await;
    assert_eq!(events.iter().filter(|event| *event == "cancelled").count(), 1);
    assert_eq!(events.iter().filter(|event| *event == "supersedes").count(), 1);
    // What has ended is left alone.
    let [second, ..] = open.as_slice() else { panic!("there are some") };
    for person in ["U1", "U2"] {
        home.house.approve(second.id, person).await.expect("counts");
    }
    let third = home.ask(web("v3")).await;
    assert_eq!((home.now(second).await.status(), third.superseded.len()), (Status::Approved, 0));
}

#[tokio::test]
async fn nobodys_request_is_superseded_by_another_caller() {
    let home = Home::new().await;
    let callers = [None, Some("web"), Some("nightly")];
    let mut open = Vec::new();
    for caller in callers {
        open.push(home.ask_as(caller, web("v1")).await);
    }
    for request in &open {
        assert!(home.is_open(request).await, "{request:?}");
    }
    let newer = home.ask_as(Some("web"), web("v2")).await;
    assert_eq!(newer.superseded, [open[1].id]);
    assert!(home.is_open(&open[0]).await && home.is_open(&open[2]).await);
}

/// Whoever asks with one value after the other until somebody else's request gives way would have found what is hidden.
#[tokio::test]
async fn a_hidden_value_is_not_found_by_asking() {
    let home = Home::new().await;
    let by = async |name: &str, version| {
        let params = web(version).as_object().cloned().expect("an object");
        let asked = ask("deploy");
        let who = Who { name: name.to_owned(), ..asked.who };
        let asked = Ask { params, who, caller: Some("portal".into()), ..asked };
        home.house.gateway.create(asked, None, MostOpen::default()).await.expect("it is admitted").request
    };
    let danas = by("U9", "v1").await;
    let eves = by("U8", "v1").await;
    assert!(home.is_open(&danas).await && home.is_open(&eves).await);
    let newer = by("U9", "v2").await;
    assert_eq!(newer.superseded, [danas.id]);
    assert!(home.is_open(&eves).await);
}

/// The index has no value, and nothing that a value can be found by.
#[tokio::test]
async fn hidden_values_are_not_found_by_trying() {
    let home = Home::new().await;
    let request = home.ask(web("v1")).await;
    let stored = serde_json::to_string(&*request).expect("JSON");
    assert!(!stored.contains("production"), "{stored}");
    let key = request.submission.supersede.as_ref().expect("it supersedes").key;
    let other = Home::new().await;
    assert_eq!(other.ask(web("v1")).await.submission.supersede.as_ref().map(|it| it.key), Some(key));
    let store = Arc::clone(home.house.gateway.store());
    let elsewhere = home.gateway(store, Tokens::new([8; 32], Vec::new()));
    let asked = Ask { params: web("v2").as_object().cloned().expect("an object"), ..ask("deploy") };
    let made = elsewhere.create(asked.clone(), None, MostOpen::default()).await.expect("it is admitted");
    let found = made.request.submission.supersede.as_ref().expect("it supersedes");
    assert_ne!(found.key, key, "another secret makes another key");
    assert!(home.is_open(&request).await, "which is why it is not found");

    // While both secrets count, it is found under the earlier one.
    let store = Arc::clone(home.house.gateway.store());
    let rotated = home.gateway(store, Tokens::new([9; 32], vec![[7; 32], [8; 32]]));
    let newest = rotated.create(asked, None, MostOpen::default()).await.expect("it is admitted").request;
    assert!(!home.is_open(&request).await && !home.is_open(&made.request).await);
    assert!(home.is_open(&newest).await);
    assert_eq!(newest.superseded.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_at_once_one_stands() {
    let home = Arc::new(Home::new().await);
    let asked = (0..40).map(|number| {
        let home = Arc::clone(&home);
        tokio::spawn(async move { home.ask(web(&format!("v{number}"))).await })
    });
    let made: Vec<_> = join_all(asked).await.into_iter().map(|made| made.expect("it is made")).collect();
    let mut open = Vec::new();
    for request in &made {
        let request = home.now(request).await;
        assert!(!request.is_superseding());
        match request.superseded_by() {
            Some(newer) => assert_ne!(newer, request.id),
            None => open.push(request.id),
        }
    }
    let [newest] = open.as_slice() else { panic!("{} are open", open.len()) };
    // Whoever follows arrives there.
    for request in made {
        let mut request = home.now(&request).await;
        while let Some(newer) = home.house.gateway.successor(&request).await.expect("readable") {
            request = Arc::new(newer);
        }
        assert_eq!(request.id, *newest);
    }
}

/// As if the gateway had been killed between the two writes.
#[tokio::test]
async fn what_was_begun_is_done_by_the_scheduler() {
    let home = Home::new().await;
    let first = home.ask(web("v1")).await;
    home.faults.0.store(true, Ordering::SeqCst);
    let second = home.ask(web("v2")).await;
    home.faults.0.store(false, Ordering::SeqCst);
    assert!(second.is_superseding(), "the request is made all the same");
    assert!(home.is_open(&first).await);

    // A gateway that begins anew finds it in the store.
    let gateway = home.gateway(Arc::clone(home.house.gateway.store()), Tokens::new([7; 32], Vec::new()));
    Scheduler::new(Arc::clone(&gateway), 1000).turn().await;
    assert!(home.is_open(&first).await, "it is left for a while to whoever made it");
    home.house.clock.advance(2_000);
    Scheduler::new(gateway, 1000).turn().await;
    assert_eq!(home.now(&first).await.superseded_by(), Some(second.id));
    let second = home.now(&second).await;
    assert_eq!((second.is_superseding(), &second.superseded), (false, &vec![first.id]));
    assert_eq!(second.due_at(), Some(second.submission.expires_at));
}

#[tokio::test]
async fn what_was_begun_is_done_before_anything_else_happens() {
    let home = Home::new().await;
    let first = home.ask(web("v1")).await;
    home.faults.0.store(true, Ordering::SeqCst);
    let second = home.ask(web("v2")).await;
    assert!(home.house.approve(second.id, "U1").await.is_err(), "not while that cannot be done");
    home.faults.0.store(false, Ordering::SeqCst);
    home.house.approve(second.id, "U1").await.expect("counts");
    assert!(!home.is_open(&first).await);
    // A third one, while the second waits for its turn, takes the place of both.
    home.faults.0.store(true, Ordering::SeqCst);
    let third = home.ask(web("v3")).await;
    home.faults.0.store(false, Ordering::SeqCst);
    let fourth = home.ask(web("v4")).await;
    for older in [&second, &third] {
        assert_eq!(home.now(older).await.superseded_by(), Some(fourth.id));
    }
}

/// Whoever looks late, with what was stored before, ends nothing that is newer.
#[tokio::test]
async fn what_was_superseded_meanwhile_supersedes_nothing() {
    let home = Home::new().await;
    home.faults.0.store(true, Ordering::SeqCst);
    let stale = home.ask(web("v1")).await;
    home.faults.0.store(false, Ordering::SeqCst);
    let newer = home.ask(web("v2")).await;
    assert!(stale.is_superseding() && !home.is_open(&stale).await);
    let looked = home.house.gateway.superseded(Arc::clone(&stale)).await.expect("the store is there");
    assert_eq!(looked.superseded_by(), Some(newer.id));
    assert!(home.is_open(&newer).await);
}

/// Nobody has the hidden value any more, and the requests that have it are found all the same.
#[tokio::test]
async fn a_request_that_is_made_again_supersedes_as_the_first_did() {
    let home = Home::new().await;
    let first = home.ask(web("v1")).await;
    home.house.gateway.act(first.id, "U1", &Intent::Deny { reason: None }).await.expect("counts");
    let newer = home.ask(web("v2")).await;
    home.house.clock.advance(MINUTE);
    let again = || {
        let party = first.submission.requester.clone();
        let who = Who::of(&party);
        home.house.gateway.rerequest(first.id, Again { party, who }, None, MostOpen::default(), None)
    };
    let second = again().await.expect("it is made again").request;
    assert_eq!(second.superseded, [newer.id]);
    let newest = home.ask(web("v3")).await;
    assert_eq!(newest.superseded, [second.id]);
    home.house.clock.advance(MINUTE);
    let refused = again().await.expect_err("it was superseded");
    assert_eq!(refused.to_string(), "a newer request has superseded it");
}

#[tokio::test]
async fn a_refusal_to_make_a_request_again_says_who_cancelled_it() {
    let home = Home::new().await;
    let gateway = &home.house.gateway;
    for (by_admin, expected) in
        [(false, "the caller took the request back"), (true, "an admin cancelled the request")]
    {
        let request = home.ask(web("v1")).await;
        let by = AdminActor { name: "dana".to_owned(), call: serde_json::Map::new() };
        let ended = match by_admin {
            true => gateway.end(request.id, AdminEnd { ending: Ending::Cancelled, by, reason: None }).await,
            false => gateway.cancel(request.id, None).await,
        };
        ended.expect("it is open");
        let party = request.submission.requester.clone();
        let who = Who::of(&party);
        let again = Again { party, who };
        let refused = gateway.rerequest(request.id, again, None, MostOpen::default(), None).await;
        assert_eq!(refused.expect_err("it was cancelled").to_string(), expected);
    }
}

//! Modules that come from a registry, and registries that take their time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex as Lock;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::*;

/// A registry that has one module, and gives it where it should.
struct Shelf {
    address: SocketAddr,
    state: Arc<Shelved>,
}

struct Shelved {
    bytes: Vec<u8>,
    status: Lock<StatusCode>,
    /// How often it was asked.
    asked: Semaphore,
    /// How often it may answer.
    answers: Semaphore,
}

impl Shelf {
    async fn with(bytes: Vec<u8>, status: StatusCode) -> Shelf {
        let state = Arc::new(Shelved {
            bytes,
            status: Lock::new(status),
            asked: Semaphore::new(0),
            answers: Semaphore::new(100),
        });
        let blobs = get(async |State(shelved): State<Arc<Shelved>>| {
            shelved.asked.add_permits(1);
            shelved.answers.acquire().await.unwrap().forget();
            let status = *shelved.status.lock().unwrap();
            (status, if status == StatusCode::OK { shelved.bytes.clone() } else { Vec::new() })
        });
        let router = Router::new().route("/v2/acme/policies/{kind}/{digest}", blobs);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, router.with_state(Arc::clone(&state))).into_future());
        Shelf { address, state }
    }

    fn registries(&self) -> Registries {
        Registries::new(vec![self.address.to_string().parse().unwrap()], Credentials::none())
    }

    fn says(&self, status: StatusCode) {
        *self.state.status.lock().unwrap() = status;
    }

    async fn asked(&self) {
        self.state.asked.acquire().await.unwrap().forget();
    }

    /// A set that needs the module on the shelf, and so many approvals.
    fn set(&self, approvals: u32) -> String {
        let pin = format!("oci://{}/acme/policies@sha256:{}", self.address, Digest::of(&self.state.bytes));
        let set = set(approvals).replace(" }\nactions", &format!(", guard: \"{pin}\" }}\nactions"));
        format!("{set}      - use: guard\n        with: {{ keys: [ref] }}\n    redact: {{ show: [ref] }}\n")
    }
}

fn guard() -> Vec<u8> {
    module("override-guard")
}

#[tokio::test]
async fn a_registry_that_is_away_delays_a_set_and_nothing_else() {
    let shelf = Shelf::with(guard(), StatusCode::SERVICE_UNAVAILABLE).await;
    let house = House::with(shelf.registries()).await;
    let before = house.active();
    house.write(&shelf.set(2));
    let reload = || house.look_again(Known::Everything);
    for _ in 0..2 {
        // What is no fault of the folder is tried again, although the folder is the same.
        let Err(ChangeError::Unfetched(errors)) = reload().await else { panic!("it was fetched") };
        let place = format!("{}:2:", house.policies().join("policy-set.yaml").display());
        let said = errors.to_string();
        assert!(said.starts_with(&place) && said.contains("the module `guard` cannot be fetched"), "{said}");
        assert!(said.contains("503"), "{said}");
        assert_eq!((house.active(), house.approvals()), (before, 1));
    }
    shelf.says(StatusCode::OK);
    let changed = reload().await.unwrap().expect("it is fetched");
    assert_eq!((changed.outcome, house.approvals()), (ChangeOutcome::Ok, 2));
    assert!(reload().await.unwrap().is_none());
    // That it was tried in vain is told once.
    let expected = ["start start ok", "reload file failed", "reload file ok"];
    assert_eq!(house.history().await, expected);

    // What the store has is not fetched again.
    shelf.says(StatusCode::SERVICE_UNAVAILABLE);
    let house = house.restarted(|_| ()).await;
    assert_eq!(house.approvals(), 2);
    house.write(&shelf.set(3));
    assert_eq!((house.reload().await.unwrap().outcome, house.approvals()), (ChangeOutcome::Ok, 3));
}

/// A set is in force that another was before, and a reload waits for a registry that has yet to answer.
async fn waiting() -> (Shelf, House, JoinHandle<Result<Changed, ChangeError>>) {
    let shelf = Shelf::with(guard(), StatusCode::OK).await;
    let house = House::with(shelf.registries()).await;
    house.write(&set(2));
    house.reload().await.unwrap();
    shelf.state.answers.forget_permits(100);
    house.write(&shelf.set(3));
    let sets = Arc::clone(&house.sets);
    let reload = tokio::spawn(async move { sets.reload(by(ChangeTrigger::Sighup)).await });
    shelf.asked().await;
    (shelf, house, reload)
}

#[tokio::test]
async fn who_takes_a_set_back_does_not_wait_for_a_registry() {
    let (shelf, house, reload) = waiting().await;
    let back = house.sets.rollback(house.active(), by(ChangeTrigger::Api)).await.unwrap();
    assert_eq!((back.outcome, house.approvals()), (ChangeOutcome::Ok, 1));
    // The folder is another one by now: what was fetched for the one before is not wanted any more.
    house.write(&set(2));
    shelf.state.answers.add_permits(1);
    assert_eq!((reload.await.unwrap().unwrap().outcome, house.approvals()), (ChangeOutcome::Ok, 2));
}

/// A reload that was waiting for a registry does not undo what an admin did meanwhile, who knew of the folder.
#[tokio::test]
async fn a_late_reload_does_not_bring_back_what_was_taken_back() {
    let (shelf, house, reload) = waiting().await;
    house.sets.rollback(house.active(), by(ChangeTrigger::Api)).await.unwrap();
    shelf.state.answers.add_permits(100);
    assert!(matches!(reload.await.unwrap(), Err(ChangeError::Conflict { .. })));
    assert_eq!(house.approvals(), 1);
    // Whoever wants it now may have it.
    assert_eq!((house.reload().await.unwrap().outcome, house.approvals()), (ChangeOutcome::Ok, 3));
}

/// What a set pins is kept, whether an action uses it or not: a start needs all of it.
#[tokio::test]
async fn what_is_pinned_and_not_used_is_kept_as_well() {
    let shelf = Shelf::with(guard(), StatusCode::OK).await;
    let house = House::with(shelf.registries()).await;
    let unused = shelf.set(2);
    let unused = unused.split("      - use: guard").next().unwrap();
    house.write(unused);
    house.reload().await.unwrap();
    shelf.says(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(house.restarted(|_| ()).await.approvals(), 2);
}

#[tokio::test]
async fn what_is_not_the_module_is_refused_for_good() {
    for (bytes, status, why) in [
        (guard(), StatusCode::NOT_FOUND, "has nothing with the digest"),
        (guard(), StatusCode::FORBIDDEN, "may not be read"),
        (b"none".to_vec(), StatusCode::OK, "is refused: it is no WebAssembly"),
    ] {
        let shelf = Shelf::with(bytes, status).await;
        let house = House::with(shelf.registries()).await;
        house.write(&shelf.set(2));
        let Err(ChangeError::Refused(errors)) = house.look_again(Known::Everything).await else {
            panic!("it was loaded: {why}")
        };
        assert!(errors.to_string().contains(why), "{errors}");
        let again = house.look_again(Known::Everything).await;
        assert!(again.unwrap().is_none(), "the same folder is not tried again: {why}");
    }
    let shelf = Shelf::with(guard(), StatusCode::OK).await;
    let house = House::new().await;
    house.write(&shelf.set(2));
    let errors = house.reload().await.unwrap_err().faults();
    assert!(errors[0].message.contains("is not among the registries that may be asked"), "{errors:?}");
    assert_eq!(shelf.state.asked.available_permits(), 0, "whom the configuration does not list is not asked");
}

#[tokio::test]
async fn a_set_that_is_sent_may_need_a_registry() {
    let shelf = Shelf::with(guard(), StatusCode::BAD_GATEWAY).await;
    let house = House::with(shelf.registries()).await;
    let sent = Sent { document: shelf.set(2), schemas: BTreeMap::new(), signatures: vec![] };
    let store = || house.sets.store_set(sent.clone(), by(ChangeTrigger::Api));
    assert!(matches!(store().await, Err(ChangeError::Unfetched(_))));
    shelf.says(StatusCode::OK);
    let hash = store().await.unwrap().hash;
    house.activate(hash).await;
    assert_eq!(house.approvals(), 2);
}

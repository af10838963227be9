//! The shared state of a running simulator.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::api::{Addresses, Tokens};
use crate::faults::Faults;
use crate::sockets::Sockets;
use crate::world::World;

/// How interactions reach the app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// Over a socket if one is open, else to the app's URL.
    #[default]
    Either,
    /// To the app's URL.
    Http,
    /// Over a socket; as Slack does once Socket Mode is switched on.
    Socket,
    /// Both ways at once, which Slack does not do; an app must count it once.
    Both,
}

/// A call as it came: its path, and its body.
type Received = (String, Vec<u8>);

pub(crate) struct Shared {
    world: Mutex<World>,
    /// Grows with every change.
    version: watch::Sender<u64>,
    pub(crate) tokens: Tokens,
    pub(crate) addresses: Addresses,
    pub(crate) signing_secret: String,
    /// Where interactions are posted to, and their route.
    delivery: Mutex<(Option<String>, Route)>,
    pub(crate) sockets: Sockets,
    /// Grows with every restart; earlier connections end.
    pub(crate) restarts: watch::Sender<u64>,
    /// What the app sent; `None` if that is not kept.
    received: Option<Mutex<Vec<Received>>>,
}

impl Shared {
    pub(crate) fn new(world: World, tokens: Tokens, addresses: Addresses, signing_secret: String) -> Shared {
        Shared {
            world: Mutex::new(world),
            version: watch::Sender::new(1),
            tokens,
            addresses,
            signing_secret,
            delivery: Mutex::new((None, Route::default())),
            sockets: Sockets::default(),
            restarts: watch::Sender::new(0),
            received: None,
        }
    }

    /// The same, which keeps what the app sends.
    pub(crate) fn keeping_calls(self) -> Shared {
        Shared { received: Some(Mutex::default()), ..self }
    }

    /// Keeps a call, if calls are kept.
    pub(crate) fn receive(&self, what: String, body: &[u8]) {
        if let Some(received) = &self.received {
            lock(received).push((what, body.to_vec()));
        }
    }

    /// The calls that were kept.
    pub(crate) fn received(&self) -> Vec<(String, Vec<u8>)> {
        self.received.as_ref().map(|received| lock(received).clone()).unwrap_or_default()
    }

    /// Reads the world.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&lock(&self.world))
    }

    /// Changes the world, and notifies the watchers.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let result = change(&mut lock(&self.world));
        self.changed();
        result
    }

    /// Puts faults in force. If Slack goes down, its connections are lost.
    pub(crate) fn set_faults(&self, faults: Faults) {
        let down = faults.down;
        self.change(|world| world.chance.set(faults));
        if down {
            self.restart();
        }
    }

    /// Every connection is lost, and every call that was under way.
    pub(crate) fn restart(&self) {
        self.restarts.send_modify(|restarts| *restarts += 1);
    }

    pub(crate) fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// Is notified of every change.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(crate) fn delivery(&self) -> (Option<String>, Route) {
        lock(&self.delivery).clone()
    }

    pub(crate) fn set_gateway(&self, url: Option<String>) {
        lock(&self.delivery).0 = url;
    }

    pub(crate) fn set_route(&self, route: Route) {
        lock(&self.delivery).1 = route;
    }
}

/// A panic of another thread leaves the state consistent, since every change is one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Who waits for a request's next version: long-polls and streams of this process.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;

use countersign_core::lifecycle::{Request, RequestId};

/// How many versions a slow watcher may lag behind before it must look at the store again.
const BACKLOG: usize = 8;

/// How long a version waits for the one before it, which was stored first and is about to be told of.
/// Where another instance stored that one, it never comes.
const IN_ORDER_WITHIN: Duration = Duration::from_millis(100);

/// The watchers of every request that is being watched.
#[derive(Clone, Default)]
pub struct Watchers {
    shared: Arc<Mutex<HashMap<RequestId, Watched>>>,
}

/// A request that is being watched.
struct Watched {
    /// `None` says that the store is to be read again.
    sender: broadcast::Sender<Option<Arc<Request>>>,
    /// The version that watchers were told of last; 0 if that is not known.
    told: u64,
    /// Versions that came before the ones before them.
    early: BTreeMap<u64, Arc<Request>>,
}

impl Watched {
    /// Tells of a version, and of those that were waiting for it.
    fn tell(&mut self, request: &Arc<Request>) {
        // Fails if the last watcher has just gone, which is no loss.
        let _ = self.sender.send(Some(Arc::clone(request)));
        self.told = request.version;
        while let Some(next) = self.early.remove(&(self.told + 1)) {
            let _ = self.sender.send(Some(Arc::clone(&next)));
            self.told = next.version;
        }
    }
}

/// A watcher; ends when dropped.
pub struct Watch {
    id: RequestId,
    versions: Option<broadcast::Receiver<Option<Arc<Request>>>>,
    watchers: Watchers,
}

/// What a watcher learns.
pub enum Seen {
    /// A version that was just stored.
    Version(Arc<Request>),
    /// Versions were missed: read the request again.
    Lagged,
}

impl Watchers {
    /// Registers a watcher. Register first and read the request after, so that nothing falls between.
    #[must_use]
    pub fn watch(&self, id: RequestId) -> Watch {
        let mut shared = self.lock();
        let watched = shared.entry(id).or_insert_with(|| Watched {
            sender: broadcast::channel(BACKLOG).0,
            told: 0,
            early: BTreeMap::new(),
        });
        Watch { id, versions: Some(watched.sender.subscribe()), watchers: self.clone() }
    }

    /// Tells a request's watchers of a version that is durable.
    ///
    /// Whoever stores a version tells of it, and may be overtaken by whoever stores the next one. So a version waits
    /// a little for the one before it: watchers are to see every change.
    pub fn publish(&self, request: &Arc<Request>) {
        let mut shared = self.lock();
        let Some(watched) = shared.get_mut(&request.id) else { return };
        if watched.told > 0 && request.version <= watched.told {
            return;
        }
        let in_order = watched.told == 0 || request.version == watched.told + 1;
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if !in_order => {
                watched.early.insert(request.version, Arc::clone(request));
                let (watchers, id, version) = (self.clone(), request.id, request.version);
                runtime.spawn(async move {
                    tokio::time::sleep(IN_ORDER_WITHIN).await;
                    watchers.wait_no_longer(id, version);
                });
            }
            _ => watched.tell(request),
        }
    }

    /// Whether somebody watches a request who was not told of this version yet.
    pub(crate) fn lacks(&self, id: RequestId, version: u64) -> bool {
        self.lock().get(&id).is_some_and(|watched| watched.told < version)
    }

    /// Tells of the newest version, as it was read from the store. Those before it are skipped.
    pub(crate) fn catch_up(&self, request: &Arc<Request>) {
        let mut shared = self.lock();
        let Some(watched) = shared.get_mut(&request.id) else { return };
        if watched.told < request.version {
            watched.early.retain(|version, _| *version > request.version);
            watched.tell(request);
        }
    }

    /// Tells everybody to read the store again.
    pub(crate) fn look_again(&self) {
        for watched in self.lock().values() {
            // Fails if the last watcher has just gone, which is no loss.
            let _ = watched.sender.send(None);
        }
    }

    /// Tells of what has waited, up to `version`, although something before it never came.
    fn wait_no_longer(&self, id: RequestId, version: u64) {
        let mut shared = self.lock();
        let Some(watched) = shared.get_mut(&id) else { return };
        while let Some(entry) = watched.early.first_entry() {
            if *entry.key() > version {
                return;
            }
            let request = entry.remove();
            watched.tell(&request);
        }
    }

    /// How many requests are being watched.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RequestId, Watched>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// The watcher has read this version: what it is to be told of next comes after it.
    pub fn read(&self, version: u64) {
        if let Some(watched) = self.watchers.lock().get_mut(&self.id)
            && watched.told == 0
        {
            watched.told = version;
        }
    }

    /// Waits for the next version.
    pub async fn next(&mut self) -> Seen {
        let Some(versions) = &mut self.versions else { return std::future::pending().await };
        match versions.recv().await {
            Ok(Some(request)) => Seen::Version(request),
            Ok(None) | Err(broadcast::error::RecvError::Lagged(_)) => Seen::Lagged,
            // The sender lives as long as a watcher does.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut shared = self.watchers.lock();
        // Unsubscribe first, and under the lock, so that the last one to go is the one that cleans up.
        self.versions = None;
        if shared.get(&self.id).is_some_and(|watched| watched.sender.receiver_count() == 0) {
            shared.remove(&self.id);
        }
    }
}

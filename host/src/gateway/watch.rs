//! Who waits for a request's next version: long-polls and streams of this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;

use crate::lifecycle::{Request, RequestId};

/// How many versions a slow watcher may lag behind before it must look at the store again.
const BACKLOG: usize = 8;

/// The watchers of every request that is being watched.
#[derive(Clone, Default)]
pub struct Watchers {
    shared: Arc<Mutex<HashMap<RequestId, broadcast::Sender<Arc<Request>>>>>,
}

/// A watcher; ends when dropped.
pub struct Watch {
    id: RequestId,
    versions: Option<broadcast::Receiver<Arc<Request>>>,
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
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = shared.entry(id).or_insert_with(|| broadcast::channel(BACKLOG).0);
        Watch { id, versions: Some(sender.subscribe()), watchers: self.clone() }
    }

    /// Tells a request's watchers of a version that is durable.
    pub fn publish(&self, request: &Arc<Request>) {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = shared.get(&request.id) {
            // Fails where the last watcher has just gone, which is no loss.
            let _ = sender.send(Arc::clone(request));
        }
    }

    /// How many requests are being watched.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Watch {
    /// Waits for the next version.
    pub async fn next(&mut self) -> Seen {
        let Some(versions) = &mut self.versions else { return std::future::pending().await };
        match versions.recv().await {
            Ok(request) => Seen::Version(request),
            Err(broadcast::error::RecvError::Lagged(_)) => Seen::Lagged,
            // The sender lives as long as a watcher does.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut shared = self.watchers.shared.lock().unwrap_or_else(PoisonError::into_inner);
        // Unsubscribe first, and under the lock, so that the last one to go is the one that cleans up.
        self.versions = None;
        if shared.get(&self.id).is_some_and(|sender| sender.receiver_count() == 0) {
            shared.remove(&self.id);
        }
    }
}

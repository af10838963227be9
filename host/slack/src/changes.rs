//! What other gateways store over the store that they share.

use countersign_store::Change;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// The next change that another gateway makes; none if it has a store for itself.
pub(crate) async fn next(changes: &mut Option<Receiver<Change>>) -> Change {
    let Some(receiver) = changes else { return std::future::pending().await };
    match receiver.recv().await {
        Ok(change) => change,
        Err(RecvError::Lagged(_)) => Change::Missed,
        Err(RecvError::Closed) => {
            *changes = None;
            Change::Missed
        }
    }
}

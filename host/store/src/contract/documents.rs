//! Promises of the port `Documents`.

use super::Backend;
use super::harness::opened;

pub(crate) async fn documents_are_kept_by_key<B: Backend>() {
    let (backend, store) = opened::<B>().await;
    assert_eq!(store.recall("usergroup:S1").await.unwrap(), None);
    store.keep("usergroup:S1", b"one".to_vec()).await.unwrap();
    store.keep("usergroup:S2", vec![]).await.unwrap();
    store.keep("usergroup:S1", vec![0, 0xff]).await.unwrap();
    drop(store);
    let store = backend.open().await;
    assert_eq!(store.recall("usergroup:S1").await.unwrap(), Some(vec![0, 0xff]));
    assert_eq!(store.recall("usergroup:S2").await.unwrap(), Some(vec![]));
    assert_eq!(store.recall("usergroup:").await.unwrap(), None);
}

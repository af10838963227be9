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

pub(crate) async fn a_document_is_replaced_by_one_of_those_who_read_it<B: Backend>() {
    let (backend, store) = opened::<B>().await;
    let key = "access:newest";
    assert!(!store.replace(key, Some(vec![]), b"one".to_vec()).await.unwrap(), "there is none");
    assert!(store.replace(key, None, b"one".to_vec()).await.unwrap());
    assert!(!store.replace(key, None, b"two".to_vec()).await.unwrap(), "there is one");
    assert!(
        !store.replace(key, Some(b"on".to_vec()), b"two".to_vec()).await.unwrap(),
        "there is another one"
    );
    assert_eq!(store.recall(key).await.unwrap(), Some(b"one".to_vec()));
    // Each adds one to what it has read, and reads it again if another one was faster.
    let add = || async {
        loop {
            let before = store.recall(key).await.unwrap();
            let value = [before.clone().unwrap_or_default(), b"+".to_vec()].concat();
            if store.replace(key, before, value).await.unwrap() {
                return;
            }
        }
    };
    futures_util::future::join_all((0..10).map(|_| add())).await;
    assert!(store.replace(key, Some(b"one++++++++++".to_vec()), vec![]).await.unwrap());
    assert!(store.replace(key, Some(vec![]), vec![0xff]).await.unwrap(), "an empty one is one");
    drop(store);
    assert_eq!(backend.open().await.recall(key).await.unwrap(), Some(vec![0xff]));
}

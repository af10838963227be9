//! Signing the log of a real store, which somebody tampers with between two checkpoints.

use std::path::PathBuf;

use countersign_core::audit::verify::{Columns, Report, Stored, Verifier};
use countersign_core::lifecycle::AuditEvent;
use countersign_store::fixtures::*;
use countersign_store::{Audit as _, SqliteArchive, SqliteStore};

use super::*;

struct House {
    directory: tempfile::TempDir,
    store: Option<std::sync::Arc<SqliteStore>>,
    checkpoints: Vec<Checkpoint>,
}

fn keys(number: u8) -> AuditKeys {
    AuditKeys::new([&[number; 32]]).unwrap()
}

impl House {
    fn new() -> House {
        let directory = tempfile::tempdir().unwrap();
        let mut house = House { directory, store: None, checkpoints: Vec::new() };
        house.open();
        house
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("db")
    }

    fn open(&mut self) {
        self.store = Some(SqliteStore::open(&self.path()).unwrap().into());
    }

    fn store(&self) -> std::sync::Arc<SqliteStore> {
        std::sync::Arc::clone(self.store.as_ref().unwrap())
    }

    /// So many entries in each of some partitions.
    async fn write(&self, entries: u64) {
        for number in 0..entries {
            for shard in [0, 1, 5] {
                let request = request_in(shard, number % 3);
                self.store().append(vec![audit(&request, &format!("event {number}"))], vec![]).await.unwrap();
            }
            let about_none = countersign_core::lifecycle::AuditEntry::of_admin(
                at(number),
                AuditEvent::AccessReloaded,
                None,
                Default::default(),
            );
            self.store().append(vec![about_none], vec![]).await.unwrap();
        }
    }

    fn signer(&self) -> AuditSigner {
        AuditSigner::new(self.store(), keys(1), 7, None)
    }

    async fn sign(&mut self) -> Signed {
        let signed = self.signer().sign(at(1)).await.unwrap();
        self.checkpoints.push(signed.checkpoint.clone());
        signed
    }

    /// Whoever owns the database changes it, while nobody has it open.
    async fn tamper(&mut self, sql: &str) {
        use countersign_store::Store as _;
        self.store.take().unwrap().close().await.unwrap();
        let db = rusqlite::Connection::open(self.path()).unwrap();
        db.execute_batch(sql).unwrap();
        drop(db);
        self.open();
    }

    fn verify(&self) -> Report {
        let archive = SqliteArchive::open(&self.path()).unwrap();
        let mut verifier = Verifier::new(&self.checkpoints);
        let mut after = countersign_store::AuditCursor::default();
        loop {
            let page = archive.audit_log(Default::default(), &after, 7).unwrap();
            for entry in &page.entries {
                let columns = entry.columns.as_ref();
                verifier.read(Stored {
                    partition: entry.partition,
                    number: entry.number,
                    digest: entry.digest,
                    body: &entry.body,
                    columns: columns.map(|it| Columns { at: it.at, request: it.request.as_deref() }),
                });
            }
            after = page.next;
            if page.is_last {
                return verifier.finish();
            }
        }
    }
}

#[tokio::test]
async fn a_log_is_signed_as_it_grows() {
    let mut house = House::new();
    let empty = house.sign().await;
    assert!(empty.is_new);
    assert_eq!((empty.checkpoint.entries(), empty.checkpoint.heads.len()), (0, 17));
    assert_eq!(empty.checkpoint.origin, "countersign-audit/0000000000000007");
    house.write(9).await;
    let first = house.sign().await;
    assert!(first.is_new);
    assert_eq!(first.checkpoint.entries(), 36);
    assert!(!house.sign().await.is_new, "nothing was added");
    house.write(400).await;
    let second = house.sign().await;
    assert_eq!(second.checkpoint.entries(), 36 + 1600);
    let report = house.verify();
    assert_eq!((report.findings, report.entries, report.unsigned), (vec![], 1636, 0));
    assert_eq!(report.matched, 8, "two checkpoints over four partitions");

    // What was signed can be checked by whoever has the public key, and by nobody who has another one.
    let public = keys(1).public(&second.checkpoint.origin);
    assert_eq!(verify(&second.note, &public).as_ref(), Ok(&second.checkpoint));
    assert_eq!(
        verify(&second.note, &keys(2).public(&second.checkpoint.origin)),
        Err(CheckpointError::UnknownKey)
    );
    assert_eq!(
        verify(&second.note, &keys(1).public("countersign-audit/other")),
        Err(CheckpointError::UnknownKey)
    );
    let forged = second.note.replacen("partition 0 409", "partition 0 408", 1);
    assert_eq!(verify(&forged, &public), Err(CheckpointError::Signature));
    // While a key is replaced both sign, and each of them is enough.
    let both = AuditKeys::new([&[2; 32], &[1; 32]]).unwrap();
    let note = both.sign(&second.checkpoint).to_string();
    for key in [1, 2] {
        assert!(verify(&note, &keys(key).public(&second.checkpoint.origin)).is_ok());
    }
}

#[tokio::test]
async fn what_was_done_to_the_database_is_named() {
    let body = r#"{"action":"deploy","at":5,"event":"forged"}"#;
    let digest = countersign_core::lifecycle::Digest::of(body.as_bytes());
    let forged = format!(
        "UPDATE audit SET body = '{body}', at = 5, request = NULL, digest = x'{digest}'
        WHERE partition = 5 AND number = 7"
    );
    let fifth = "partition = 5 AND number";
    for (sql, expected) in [
        (
            format!("UPDATE audit SET body = replace(body, 'event', 'evening') WHERE {fifth} = 7"),
            vec!["altered: entry 5/7 is not what was written"],
        ),
        (
            format!("UPDATE audit SET digest = zeroblob(32) WHERE {fifth} = 7"),
            vec!["altered: entry 5/7 is not what was written"],
        ),
        (
            format!("UPDATE audit SET digest = x'' WHERE {fifth} = 7"),
            vec!["altered: entry 5/7 is not what was written"],
        ),
        (
            format!("UPDATE audit SET at = at + 1 WHERE {fifth} = 7"),
            vec!["altered: column `at` of entry 5/7 is not what the entry says"],
        ),
        (
            format!("UPDATE audit SET request = NULL WHERE {fifth} = 7"),
            vec!["altered: column `request` of entry 5/7 is not what the entry says"],
        ),
        (
            forged,
            vec![
                "altered: among entries 5/6 to 5/10 are others than those that the checkpoint of \
            2026-03-01T12:00:00.001Z covers, and their digests were altered with them",
            ],
        ),
        (format!("DELETE FROM audit WHERE {fifth} = 7"), vec!["missing: entry 5/7"]),
        (format!("DELETE FROM audit WHERE {fifth} < 4"), vec!["missing: entries 5/1 to 5/3"]),
        (format!("UPDATE audit SET partition = 6, number = 1 WHERE {fifth} = 7"), vec!["missing: entry 5/7"]),
        (
            format!("UPDATE audit SET number = 17 - number WHERE {fifth} IN (8, 9)"),
            vec!["out of order: entry 5/8 comes after 5/9"],
        ),
        (
            format!("DELETE FROM audit WHERE {fifth} > 9"),
            vec![
                "cut off: partition 5 ends with entry 9, and had 10 when a checkpoint was signed at \
                2026-03-01T12:00:00.001Z",
            ],
        ),
        (
            "DELETE FROM audit WHERE partition = 16".to_owned(),
            vec![
                "cut off: partition 16 ends with entry 0, and had 10 when a checkpoint was signed at \
                2026-03-01T12:00:00.001Z",
            ],
        ),
    ] {
        let mut house = House::new();
        house.write(5).await;
        house.sign().await;
        house.write(5).await;
        house.sign().await;
        assert_eq!(house.verify().findings, []);
        house.tamper(&sql).await;
        let found: Vec<String> = house.verify().findings.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{sql}");
    }
}

/// The gateway itself does not read again what it has signed; but it never signs a log that it can see to be another one.
#[tokio::test]
async fn a_log_that_was_cut_is_not_signed() {
    let refused = async |house: &House, known: Option<Checkpoint>| {
        let mut signer = AuditSigner::new(house.store(), keys(1), 8, known);
        match signer.sign(at(2)).await {
            Err(SignError::Refused(refusal)) => refusal.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let house = async || {
        let mut house = House::new();
        house.write(5).await;
        let signed = house.sign().await;
        (house, signed.checkpoint)
    };
    let (mut cut, _) = house().await;
    cut.tamper("DELETE FROM audit WHERE partition = 5 AND number > 3; UPDATE audit_partition SET size = 3 WHERE partition = 5").await;
    let expected = "partition 5 has 3 entries, and had 5 when a checkpoint was signed";
    assert_eq!(refused(&cut, None).await, expected);
    // Whatever is added, nothing was signed.
    cut.write(1).await;
    assert_eq!(
        refused(&cut, None).await,
        "partition 5 has 4 entries, and had 5 when a checkpoint was signed"
    );
    // Until somebody decides to go on: under another name, so that the two are not taken for one.
    let mut signer = AuditSigner::new(cut.store(), keys(1), 9, None);
    let restarted = signer.restart(at(3)).await.unwrap().checkpoint;
    assert_eq!(restarted.origin, "countersign-audit/0000000000000009");
    assert_eq!(restarted.heads[16].size, 7, "an entry says so");
    cut.write(1).await;
    cut.checkpoints = vec![restarted, cut.signer().sign(at(4)).await.unwrap().checkpoint];
    assert_eq!(cut.verify().findings, []);

    // The checkpoint was cut as well, as by a copy of the database that was put back: somebody else knows it.
    let (mut older, known) = house().await;
    older
        .tamper(
            "DELETE FROM audit_checkpoint; DELETE FROM audit WHERE partition = 5 AND number > 3;
        UPDATE audit_partition SET size = 3 WHERE partition = 5",
        )
        .await;
    assert_eq!(refused(&older, Some(known.clone())).await, expected);
    // It grows until it is longer than what was signed, and is still another one.
    older.write(5).await;
    let refusal = refused(&older, Some(known.clone())).await;
    assert_eq!(refusal, "the first 5 entries of partition 5 are not those that a checkpoint was signed over");

    // The checkpoint alone was lost: the log is what it was, so it goes on under its name.
    let (mut lost, known) = house().await;
    lost.tamper("DELETE FROM audit_checkpoint").await;
    lost.write(1).await;
    let mut signer = AuditSigner::new(lost.store(), keys(1), 8, Some(known.clone()));
    assert_eq!(signer.sign(at(2)).await.unwrap().checkpoint.origin, known.origin);

    let (mut missing, _) = house().await;
    missing.write(2).await;
    missing.tamper("DELETE FROM audit WHERE partition = 5 AND number = 6").await;
    assert_eq!(refused(&missing, None).await, "entry 5/6 is missing");
    let (mut last, _) = house().await;
    last.write(1).await;
    last.tamper("DELETE FROM audit WHERE partition = 5 AND number = 6").await;
    assert_eq!(refused(&last, None).await, "entry 5/6 is missing");

    for (sql, expected) in [
        (
            "UPDATE audit_checkpoint SET note = replace(note, 'partition 5 5', 'partition 5 4')",
            "its signature is wrong",
        ),
        (
            "UPDATE audit_checkpoint SET state = replace(state, '\"end\":5', '\"end\":4')",
            "does not belong to it",
        ),
        ("UPDATE audit_checkpoint SET note = ''", "it is no signed note"),
    ] {
        let (mut house, _) = house().await;
        house.tamper(sql).await;
        let refusal = refused(&house, None).await;
        assert!(refusal.contains(expected), "{sql}: {refusal}");
    }
    let (house, _) = house().await;
    let mut other = AuditSigner::new(house.store(), keys(2), 8, None);
    assert!(other.sign(at(2)).await.unwrap_err().to_string().contains("none of the keys at hand"));
}

/// Nothing removes entries yet, so nobody but the database's owner has written that some were removed.
#[tokio::test]
async fn nothing_is_signed_over_an_entry_that_says_that_others_were_removed() {
    let mut house = House::new();
    house.write(3).await;
    house.sign().await;
    let forged = |event: AuditEvent| {
        let detail = [("partition".to_owned(), 16.into()), ("removed".to_owned(), 1.into())];
        countersign_core::lifecycle::AuditEntry::of_admin(at(9), event, None, detail.into_iter().collect())
    };
    house.store().append(vec![forged(AuditEvent::AccessReloaded)], vec![]).await.unwrap();
    house.sign().await;
    house.store().append(vec![forged(AuditEvent::AuditTrimmed)], vec![]).await.unwrap();
    for _ in 0..2 {
        let refused = house.signer().sign(at(9)).await.unwrap_err().to_string();
        assert!(refused.contains("entry 16/5 says that entries were removed"), "{refused}");
    }
}

/// A copy in a store of another kind has the state, whose cursor means nothing there.
#[tokio::test]
async fn a_log_is_read_again_if_its_cursor_is_that_of_another_kind_of_store() {
    let elsewhere = "UPDATE audit_checkpoint SET state = json_set(state, '$.cursor', '0:1,2,3')";
    let mut house = House::new();
    house.write(5).await;
    let first = house.sign().await.checkpoint;
    house.tamper(elsewhere).await;
    let again = house.sign().await;
    // Where it is in this store is stored, so that the log is read again once.
    assert!(again.is_new);
    assert_eq!((&again.checkpoint.heads, &again.checkpoint.origin), (&first.heads, &first.origin));
    assert!(!house.sign().await.is_new);
    house.write(2).await;
    house.sign().await;
    assert_eq!(house.verify().findings, []);

    // What was signed is compared on the way, also if nothing but the store knows of it.
    let body = r#"{"action":"deploy","at":5,"event":"forged"}"#;
    let forge = format!("UPDATE audit SET body = '{body}' WHERE partition = 5 AND number = 3; {elsewhere}");
    house.tamper(&forge).await;
    let refused = house.signer().sign(at(2)).await.unwrap_err().to_string();
    assert!(refused.contains("the first 7 entries of partition 5 are not those"), "{refused}");
}

/// As a copy by way of another kind of store may be: the place is one of this store, and another one than it was.
#[tokio::test]
async fn a_log_is_read_again_if_it_does_not_go_on_at_its_cursor() {
    let renumber = |from: &str| format!("UPDATE audit SET seq = 0 - seq; UPDATE audit SET seq = {from}");
    // In the order of their partitions.
    let mut house = House::new();
    house.write(5).await;
    let first = house.sign().await.checkpoint;
    house.tamper(&renumber("1000 + partition * 100 + number")).await;
    let again = house.sign().await;
    assert_eq!((again.is_new, &again.checkpoint.heads), (true, &first.heads));
    house.write(2).await;
    assert_eq!(house.sign().await.checkpoint.entries(), 28);
    assert_eq!(house.verify().findings, []);

    // Retention has removed some, and the others were numbered from 1 on.
    let mut house = House::new();
    write_at(&house, 0..30).await;
    house.sign().await;
    let parts = house.signer().announce_trims(at(20), None, at(50)).await.unwrap();
    let before = house.sign().await.checkpoint;
    for part in parts {
        house.store().remove_audit(part.partition, part.removed).await.unwrap();
    }
    house.tamper(&renumber("0 - seq - (SELECT min(0 - seq) FROM audit) + 1")).await;
    house.write(1).await;
    let after = house.sign().await.checkpoint;
    assert_eq!((&after.origin, after.entries()), (&before.origin, before.entries() + 4));
    let report = house.verify();
    assert_eq!((report.findings, report.trimmed.len()), (vec![], 3));

    // A log that was changed is read again once, and is not signed.
    let mut changed = House::new();
    changed.write(5).await;
    changed.sign().await;
    changed.write(1).await;
    changed.tamper("DELETE FROM audit WHERE partition = 5 AND number = 6").await;
    let mut signer = changed.signer();
    for _ in 0..2 {
        let refused = signer.sign(at(2)).await.unwrap_err().to_string();
        assert!(refused.contains("entry 5/6 is missing"), "{refused}");
    }
}

#[tokio::test]
async fn another_checkpoint_of_the_same_length_is_refused() {
    let house = async |number: u64| {
        let mut house = House::new();
        house
            .store()
            .append(vec![audit(&request_in(5, 1), &format!("event {number}"))], vec![])
            .await
            .unwrap();
        let signed = house.sign().await.checkpoint;
        (house, signed)
    };
    let ((one, known), (other, _)) = (house(1).await, house(2).await);
    let mut signer = AuditSigner::new(one.store(), keys(1), 8, Some(known.clone()));
    assert_eq!(signer.newest().await.unwrap().unwrap().checkpoint, known);
    let mut signer = AuditSigner::new(other.store(), keys(1), 8, Some(known));
    let refused = signer.newest().await.unwrap_err().to_string();
    assert!(refused.contains("the first 1 entries of partition 5 are not those"), "{refused}");
}

/// Whoever has the key of one log cannot sign for another one whose key is known too.
#[test]
fn a_key_signs_for_the_log_that_it_is_named_after() {
    let (origin, another) = ("countersign-audit/1", "countersign-audit/2");
    let checkpoint = Checkpoint { origin: origin.to_owned(), at: at(1), heads: vec![] };
    let note = keys(1).sign(&checkpoint);
    let known = [keys(1).public(another), keys(2).public(origin)].concat();
    let [key] = keys(1).public(another).try_into().unwrap();
    let mut renamed = note.clone();
    renamed.signatures[0].name.clone_from(&key.name);
    renamed.signatures[0].hash = key.hash();
    assert_eq!(verify(&renamed.to_string(), &known), Err(CheckpointError::UnknownKey));
    assert_eq!(verify(&note.to_string(), &keys(1).public(origin)), Ok(checkpoint));
}

/// Two instances at once make one line of checkpoints.
#[tokio::test]
async fn one_of_two_signers_wins() {
    let house = House::new();
    house.write(3).await;
    let (mut one, mut other) = (house.signer(), AuditSigner::new(house.store(), keys(1), 9, None));
    let (one, other) = tokio::join!(one.sign(at(1)), other.sign(at(1)));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.checkpoint, other.checkpoint);
    assert_ne!(one.is_new, other.is_new);
}

/// Entries of these times in some partitions.
async fn write_at(house: &House, times: std::ops::Range<u64>) {
    for number in times {
        for shard in [0, 1, 5] {
            let mut entry = audit(&request_in(shard, number % 3), &format!("event {number}"));
            entry.at = at(number);
            house.store().append(vec![entry], vec![]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_oldest_entries_go_and_the_log_stays_right() {
    let mut house = House::new();
    write_at(&house, 0..30).await;
    house.sign().await;
    write_at(&house, 30..50).await;
    let mut signer = house.signer();
    assert_eq!(signer.announce_trims(at(0), None, at(50)).await.unwrap(), [], "nothing is so old");
    // What no checkpoint covers stays.
    let parts = signer.announce_trims(at(45), None, at(50)).await.unwrap();
    let expected = [0, 1, 5].map(|partition| Part { partition, removed: 30, entry: 51 });
    assert_eq!(parts, expected);
    let heads = |signed: &Signed| signed.checkpoint.heads.clone();
    let before = house.verify();
    assert_eq!((before.findings, before.trimmed), (vec![], vec![]), "it is not removed yet");
    let signed = house.sign().await;
    assert!(parts.iter().all(|part| part.is_covered(&heads(&signed))));
    for part in &parts {
        house.store().remove_audit(part.partition, part.removed).await.unwrap();
    }
    let report = house.verify();
    assert_eq!(report.findings, []);
    let removed: Vec<_> = report.trimmed.iter().map(|it| (it.partition, it.removed, it.entry)).collect();
    assert_eq!(removed, [(0, 30, 51), (1, 30, 51), (5, 30, 51)]);

    // It goes on from there, no further than the files of the log have it.
    write_at(&house, 50..70).await;
    house.sign().await;
    let mut signer = house.signer();
    let most: Vec<u64> = (0..17).map(|partition| if partition == 1 { 20 } else { 40 }).collect();
    let parts = signer.announce_trims(at(60), Some(&most), at(70)).await.unwrap();
    assert_eq!(parts, [0, 5].map(|partition| Part { partition, removed: 40, entry: 72 }));
    assert!(!parts[0].is_covered(&[]));
    let signed = house.sign().await;
    for part in parts.iter().filter(|part| part.is_covered(&heads(&signed))) {
        house.store().remove_audit(part.partition, part.removed).await.unwrap();
    }
    let report = house.verify();
    assert_eq!((report.findings, report.trimmed.len()), (vec![], 3));
    // Another line of checkpoints begins over what is left.
    let restarted = house.signer().restart(at(80)).await.unwrap();
    house.checkpoints = vec![restarted.checkpoint];
    let report = house.verify();
    assert_eq!((report.findings, report.trimmed.len()), (vec![], 3));
    assert!(!house.sign().await.is_new);
}

#[tokio::test]
async fn what_was_altered_is_not_removed() {
    let mut house = House::new();
    write_at(&house, 0..30).await;
    house.sign().await;
    house.tamper("UPDATE audit SET body = replace(body, 'event 7', 'event 8') WHERE partition = 1").await;
    let refused = house.signer().announce_trims(at(10), None, at(50)).await.unwrap_err();
    assert!(matches!(refused, SignError::Refused(Refusal::Root { partition: 1, size: 30 })), "{refused}");
}

/// The keys with these numbers, the current one first.
fn keys_of(numbers: &[u8]) -> AuditKeys {
    let seeds: Vec<[u8; 32]> = numbers.iter().map(|number| [*number; 32]).collect();
    AuditKeys::new(&seeds).unwrap()
}

/// Whatever happens between two changes of keys, the newest checkpoint counts.
#[tokio::test]
async fn the_current_key_signs_though_nothing_was_added() {
    let mut house = House::new();
    house.write(3).await;
    let first = house.sign().await;
    let signer = |numbers: &[u8]| AuditSigner::new(house.store(), keys_of(numbers), 7, None);
    assert!(!keys_of(&[2, 1]).current_has_signed(&first.note));
    let mut both = signer(&[2, 1]);
    let second = both.sign(at(2)).await.unwrap();
    assert!(second.is_new);
    assert_eq!(
        (&second.checkpoint.heads, &second.checkpoint.origin),
        (&first.checkpoint.heads, &first.checkpoint.origin)
    );
    assert!(keys_of(&[2]).current_has_signed(&second.note) && keys_of(&[1]).current_has_signed(&second.note));
    assert!(!both.sign(at(3)).await.unwrap().is_new, "once");
    let mut alone = signer(&[2]);
    assert_eq!(alone.newest().await.unwrap().unwrap().note, second.note);
    assert!(!alone.sign(at(4)).await.unwrap().is_new);
}

/// What was removed in the time of an earlier key stays explained by the entries that say so.
#[tokio::test]
async fn retention_goes_on_after_a_change_of_keys() {
    let house = House::new();
    let removed = async |house: &House, numbers: &[u8], before: u64| {
        let mut signer = AuditSigner::new(house.store(), keys_of(numbers), 9, None);
        signer.sign(at(90)).await.unwrap();
        let parts = signer.announce_trims(at(before), None, at(90)).await?;
        signer.sign(at(91)).await.unwrap();
        for part in &parts {
            house.store().remove_audit(part.partition, part.removed).await.unwrap();
        }
        Ok::<_, SignError>(parts.iter().map(|part| part.removed).collect::<Vec<_>>())
    };
    write_at(&house, 0..30).await;
    assert_eq!(removed(&house, &[1], 10).await.unwrap(), [10, 10, 10]);
    assert_eq!(removed(&house, &[2, 1], 10).await.unwrap(), [0; 0]);
    assert_eq!(removed(&house, &[2], 20).await.unwrap(), [20, 20, 20]);
    // Entries of the first key alone say so, and the log is read from its beginning.
    let mut house = House::new();
    write_at(&house, 0..30).await;
    removed(&house, &[1], 10).await.unwrap();
    removed(&house, &[2, 1], 10).await.unwrap();
    house.tamper("UPDATE audit_checkpoint SET state = json_set(state, '$.cursor', '0:1,2,3')").await;
    let mut signer = AuditSigner::new(house.store(), keys_of(&[2]), 9, None);
    assert!(signer.sign(at(92)).await.unwrap().is_new);
    // With every key lost nothing is signed, until somebody decides to go on.
    let mut lost = AuditSigner::new(house.store(), keys_of(&[3]), 9, None);
    assert!(lost.sign(at(93)).await.is_err());
    house.checkpoints = vec![lost.restart(at(94)).await.unwrap().checkpoint];
    let report = house.verify();
    assert_eq!((report.findings, report.trimmed.len()), (vec![], 3));
    assert_eq!(removed(&house, &[3], 20).await.unwrap(), [20, 20, 20]);
}

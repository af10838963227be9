use countersign_core::lifecycle::RequestId;
use countersign_slack::{InteractionKind, Seen, Source, Workspace};
use tempfile::TempDir;

use super::*;
use crate::keys::MasterKey;

fn keys(current: u8, previous: Option<u8>) -> Keys {
    let key = |number| MasterKey::new([number; 32]);
    Keys { current: key(current), previous: previous.map(key) }
}

fn open(folder: &TempDir, keys: &Keys) -> Spool {
    Spool::open(&folder.path().join("spool"), keys, &Registry::new()).unwrap()
}

fn press(at: u64, trigger: &str) -> Press {
    press_of("U0ALICE", InteractionKind::Deny(Some("a reason".into())), at, trigger)
}

fn press_of(user: &str, kind: InteractionKind, at: u64, trigger: &str) -> Press {
    let interaction = Interaction {
        user: user.into(),
        workspace: Workspace::default(),
        request: RequestId::new(Timestamp::EPOCH, 1, 2),
        kind,
        seen: Seen::Payload(Digest::of(b"seen")),
        source: Source { trigger: Some(trigger.into()), ..Source::default() },
    };
    Press { at: Timestamp::from_millis(at), interaction }
}

#[test]
fn presses_are_kept_in_order_until_they_are_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(&folder, &keys(1, None));
    let (late, early) = (press(20, "late"), press(3, "early"));
    let first = spool.keep(&late).unwrap();
    let now = Instant::now();
    assert_eq!(spool.next(now), None, "whoever kept it holds it");
    assert_eq!(spool.keep(&press(99, "late")).unwrap(), first, "it is delivered again");
    spool.keep(&early).unwrap();
    assert_eq!(spool.count.get(), 2);
    drop(spool);

    // Another process, after the secret was changed.
    let spool = open(&folder, &keys(2, Some(1)));
    assert_eq!(spool.count.get(), 2);
    let next = spool.next(now).unwrap();
    assert_eq!(spool.read(&next).unwrap(), early);
    spool.forget(&next).unwrap();
    let next = spool.next(now).unwrap();
    assert_eq!((spool.read(&next).unwrap(), &next), (late, &first));
    spool.forget(&next).unwrap();
    spool.forget(&next).unwrap();
    assert_eq!((spool.next(now), spool.count.get()), (None, 0));
    assert_eq!(fs::read_dir(&spool.folder).unwrap().count(), 0);
}

#[test]
fn what_was_changed_is_no_press() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(&folder, &keys(1, None));
    let name = spool.keep(&press(3, "one")).unwrap();
    spool.release(&name);
    let path = spool.path(&name);
    let kept = fs::read(&path).unwrap();
    for at in 0..kept.len() {
        let mut changed = kept.clone();
        changed[at] ^= 1;
        fs::write(&path, &changed).unwrap();
        assert!(matches!(spool.read(&name), Err(SpoolError::Damaged(_))), "byte {at}");
    }
    for part in [&kept[..0], &kept[..64], &kept[..65], &kept[..kept.len() - 1]] {
        fs::write(&path, part).unwrap();
        assert!(matches!(spool.read(&name), Err(SpoolError::Damaged(_))), "{} bytes", part.len());
    }
    fs::write(&path, &kept).unwrap();
    assert!(spool.read(&name).is_ok());
    let other = open(&folder, &keys(3, None));
    assert!(matches!(other.read(&name), Err(SpoolError::Damaged(_))), "under another secret");

    // Under another name it would be another press, at another time.
    let renamed = Name { at: Timestamp::from_millis(4), ..name };
    fs::rename(&path, spool.path(&renamed)).unwrap();
    let spool = open(&folder, &keys(1, None));
    assert!(matches!(spool.read(&renamed), Err(SpoolError::Damaged(_))));
    spool.set_aside(&renamed).unwrap();
    assert_eq!(open(&folder, &keys(1, None)).waiting(), 0);
    assert_eq!(fs::read_dir(&spool.folder).unwrap().count(), 1, "it is still there to be looked at");
}

#[test]
fn a_press_that_slack_does_not_name_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut nameless = press(3, "one");
    nameless.interaction.source.trigger = None;
    let spool = open(&folder, &keys(1, None));
    assert!(matches!(spool.keep(&nameless), Err(SpoolError::Nameless)));
    fs::write(spool.folder.join("half.press.new"), "half").unwrap();
    assert_eq!(open(&folder, &keys(1, None)).waiting(), 0);
    assert_eq!(fs::read_dir(&spool.folder).unwrap().count(), 0, "what was not acknowledged is removed");
}

#[test]
fn what_one_person_does_on_one_request_stays_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(&folder, &keys(1, None));
    let now = Instant::now();
    let approve = press_of("U0ALICE", InteractionKind::Approve, 3, "approve");
    let withdraw = press_of("U0ALICE", InteractionKind::Withdraw, 4, "withdraw");
    let bob = press_of("U0BOB", InteractionKind::Approve, 5, "bob");
    let held = spool.keep(&approve).unwrap();
    let [behind, other] = [&withdraw, &bob].map(|press| {
        let name = spool.keep(press).unwrap();
        spool.release(&name);
        name
    });
    assert_eq!(spool.next(now), Some(other), "nobody waits for another person");
    spool.release(&held);
    assert_eq!(spool.next(now), Some(held));
    drop(spool);

    let spool = open(&folder, &keys(1, None));
    let is_behind = |press: &Press| spool.is_behind(press);
    assert_eq!([&approve, &withdraw, &bob].map(is_behind), [false, true, false], "after a restart");
    let again = press_of("U0ALICE", InteractionKind::Approve, 6, "again");
    assert!(spool.is_behind(&again));
    let (subject, at) = (approve.subject(), Timestamp::from_millis);
    assert_eq!([3, 4].map(|since| spool.is_taken_back(&subject, at(since))), [true, false]);
    assert!(!spool.is_taken_back(&bob.subject(), at(3)));
    spool.forget(&held).unwrap();
    assert_eq!(spool.next(now), Some(behind));
    spool.forget(&behind).unwrap();
    assert!(!spool.is_behind(&again) && !spool.has(&subject));
}

#[tokio::test]
async fn whoever_comes_second_waits_for_their_turn() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(&folder, &keys(1, None));
    let [alice, bob] =
        ["U0ALICE", "U0BOB"].map(|user| press_of(user, InteractionKind::Approve, 3, user).subject());
    let first = spool.turn(&alice).await;
    let mut second = std::pin::pin!(spool.turn(&alice));
    let mut waiting = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(second.as_mut().poll(&mut waiting).is_pending());
    drop(spool.turn(&bob).await);
    drop(first);
    drop(second.await);
    drop(spool.turn(&bob).await);
    assert_eq!(spool.turns.lock().unwrap().len(), 1, "what nobody waits for is not remembered");
}

#[test]
fn a_press_is_kept_again_only_once_it_is_on_disk() {
    for is_written in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let spool = open(&folder, &keys(1, None));
        let first = press(3, "one");
        let Ok(Begun::Write(name)) = spool.begin(&first) else { panic!("it is new") };
        let kept = std::thread::scope(|scope| {
            let second = scope.spawn(|| spool.keep(&press(4, "one")).unwrap());
            let written =
                if is_written { spool.write(&name, &first) } else { Err(io::Error::other("full").into()) };
            assert_eq!(spool.finish(name, written).is_ok(), is_written);
            second.join().unwrap()
        });
        assert_eq!(kept == name, is_written, "what the first cannot write the second does");
        assert!(spool.read(&kept).is_ok());
    }
}

#[test]
fn a_press_that_was_promised_is_not_removed_by_whoever_was_too_slow() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(&folder, &keys(1, None));
    let now = Instant::now();
    let slow = spool.keep(&press(3, "one")).unwrap();
    let second = spool.keep(&press(4, "one")).unwrap();
    assert_eq!(slow, second);
    spool.abandon(&slow).unwrap();
    assert!(spool.read(&second).is_ok(), "the second holds it");
    spool.release(&second);
    let slow = spool.keep(&press(5, "one")).unwrap();
    spool.abandon(&slow).unwrap();
    assert_eq!(spool.next(now), Some(second), "the second has said that it is kept");
    assert!(spool.read(&second).is_ok());

    let alone = spool.keep(&press(6, "two")).unwrap();
    spool.abandon(&alone).unwrap();
    assert!(!spool.path(&alone).exists());
    assert_eq!(spool.waiting(), 1);
}

#[test]
fn a_file_that_cannot_be_read_lets_the_others_pass() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(&folder, &keys(1, None));
    let [bad, good] = [press(3, "bad"), press(4, "good")].map(|press| {
        let name = spool.keep(&press).unwrap();
        spool.release(&name);
        name
    });
    let path = spool.path(&bad);
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    assert!(matches!(spool.read(&bad), Err(SpoolError::Io(_))));
    let start = Instant::now();
    let mut now = start;
    let (mut tries, mut lines) = (0, 0);
    while now < start + LONGEST_PAUSE * 10 {
        if spool.next(now) == Some(bad) {
            tries += 1;
            lines += u32::from(spool.put_off(&bad, now));
        }
        assert_eq!(spool.next(now), Some(good));
        now += Duration::from_secs(1);
    }
    assert_eq!((tries, lines), (15, 10));
    assert_eq!(spool.waiting(), 2);

    // What is no file at all is set aside.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(spool.read(&bad), Err(SpoolError::Damaged(_))));
    spool.set_aside(&bad).unwrap();
    assert_eq!((spool.next(now), spool.waiting()), (Some(good), 1));
}

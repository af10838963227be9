//! `countersign keys`: changes the key file of an embedded store, and what is encrypted with a gateway's keys.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use countersign_authoring::{Redis, StoreAddress};
use countersign_console::{Progress, note, say_text};
use countersign_core::lifecycle::RequestId;
use countersign_gateway::{SaltError, SaltNonce};
use countersign_store::{NewSalt, SqliteArchive, StoreUrl};

use super::file::KeyFile;
use super::{DOCUMENT, Keys, MasterKey, check, key_file};
use crate::config::{Environment, Secrets};

/// Change the key file beside an embedded store.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Print the ids of the keys, and nothing of the keys themselves.
    #[command(after_long_help = KEYS)]
    Show(Where),
    /// Make a new current key; the old one becomes the previous one. Restart the gateway afterwards.
    #[command(after_long_help = KEY_FILE)]
    Rotate(Where),
    /// Encrypt anew with the current key what is encrypted with the previous one. The gateway must be stopped; if this is
    /// interrupted, run it again.
    #[command(after_long_help = KEYS)]
    Rewrap(Rewrap),
    /// Remove the previous key, once a gateway has used the current one. Restart the gateway afterwards.
    #[command(after_long_help = KEY_FILE)]
    Retire(Retire),
    /// Let the store be used with the present key, although the one that it was used with is lost.
    #[command(after_long_help = KEYS)]
    AcceptLoss(Where),
}

const KEYS: &str = "The keys are those of `COUNTERSIGN_SECRET` and `COUNTERSIGN_SECRET_PREVIOUS` if they are set, and else \
                    those of the key file.";

const KEY_FILE: &str = "It is refused if `COUNTERSIGN_SECRET` is set: the key file is not used then.";

const NOT_TAKEN_OVER: &str = "the previous key is still needed for the audit log: no gateway has used the current key yet. \
                              Start the gateway once; it signs a checkpoint with both keys";

/// Which store.
#[derive(Debug, Args)]
pub struct Where {
    /// The store: `sqlite:PATH` or `redis://HOST`.
    #[arg(long, value_name = "COUNTERSIGN_STORE", default_value = "sqlite:countersign.db", value_parser = StoreAddress)]
    store: StoreUrl,
    #[command(flatten)]
    redis: Redis,
    /// From the environment.
    #[arg(skip)]
    secrets: Box<Secrets>,
}

/// What is encrypted anew.
#[derive(Debug, Args)]
pub struct Rewrap {
    #[command(flatten)]
    place: Where,
}

/// Of which store the previous key is removed.
#[derive(Debug, Args)]
pub struct Retire {
    #[command(flatten)]
    place: Where,
    /// Remove it although salts are still encrypted with it: they are lost.
    #[arg(long)]
    accept_loss: bool,
}

/// How many salts are read and replaced at once.
const PAGE: usize = 500;

impl KeysCommand {
    /// Takes what the command needs from the environment, and returns what is wrong there, one sentence each.
    pub(crate) fn read_variables(&mut self, environment: &Environment) -> Vec<String> {
        let place = match self {
            KeysCommand::Show(place) | KeysCommand::Rotate(place) | KeysCommand::AcceptLoss(place) => place,
            KeysCommand::Rewrap(rewrap) => &mut rewrap.place,
            KeysCommand::Retire(retire) => &mut retire.place,
        };
        let mut wrong = Vec::new();
        *place.secrets = Secrets::of_server(environment, &mut wrong);
        wrong.extend(place.redis.read_variables(&place.store, environment));
        wrong
    }
}

/// Runs a command, and returns the exit code.
pub async fn run(command: &KeysCommand) -> ExitCode {
    match answer(command).await {
        Ok(text) => {
            say_text(format_args!("{text}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            note!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn answer(command: &KeysCommand) -> anyhow::Result<String> {
    let after = match command {
        KeysCommand::Show(place) => in_use(place)?,
        KeysCommand::Rotate(place) => {
            let (path, keys) = changeable(
                place,
                "To change the secret, give the gateway its value as `COUNTERSIGN_SECRET_PREVIOUS` and a new one, of `openssl \
                 rand -hex 32`, as `COUNTERSIGN_SECRET`, and restart it",
            )?;
            ensure!(
                keys.previous.is_none(),
                "there is a previous key already: `countersign keys retire` removes it, once nothing needs it"
            );
            if let Some(archive) = archive(&place.store)? {
                ensure_used_with(&archive, &keys, &path)?;
            }
            let rotated = Keys { current: MasterKey::generate()?, previous: Some(keys.current) };
            KeyFile(rotated.clone()).replace(&path)?;
            rotated
        }
        KeysCommand::Rewrap(rewrap) => return rewrapped(rewrap).await,
        KeysCommand::Retire(Retire { place, accept_loss }) => {
            let (path, keys) = changeable(
                place,
                "The previous secret is removed with the variable `COUNTERSIGN_SECRET_PREVIOUS`, once a gateway has signed a \
                 checkpoint with both and `countersign keys rewrap` has run with both",
            )?;
            let previous = keys.previous.as_ref().context("there is no previous key")?;
            if let Some(archive) = archive(&place.store)? {
                ensure_used_with(&archive, &keys, &path)?;
                let needed = if *accept_loss { 0 } else { encrypted_with(&archive, &previous.id())? };
                ensure!(
                    needed == 0,
                    "the previous key is still needed for salts ({needed} of them): stop the gateway and run `countersign keys \
                     rewrap --store {}` first. With `--accept-loss` the key is removed all the same, and these salts are lost",
                    place.store
                );
                ensure!(is_taken_over(&archive, &keys)?, NOT_TAKEN_OVER);
            }
            let retired = Keys { previous: None, ..keys };
            KeyFile(retired.clone()).replace(&path)?;
            retired
        }
        KeysCommand::AcceptLoss(place) => {
            let keys = in_use(place)?;
            let store = place.redis.open_existing(&place.store).await?;
            store.keep(DOCUMENT, keys.current.id().into_bytes()).await.context("cannot change the store")?;
            let checkpoint = store.audit_checkpoint().await.context("cannot read the audit checkpoint")?;
            store.close().await.context("cannot close the store")?;
            let audit = keys.audit()?;
            if checkpoint.is_some_and(|kept| !audit.any_has_signed(&kept.note)) {
                note!(
                    "the checkpoints of the audit log were signed with the lost key: before the gateway starts, run `countersign \
                     audit accept-loss --store {}`, with `--checkpoint-file` for each file of checkpoints",
                    place.store
                );
            }
            keys
        }
    };
    let names = ["current", "previous"];
    Ok(names.into_iter().zip(after.all()).map(|(name, key)| format!("{name} {}\n", key.id())).collect())
}

/// The keys that a gateway over this store uses.
fn in_use(place: &Where) -> anyhow::Result<Keys> {
    match place.secrets.keys()? {
        Some(keys) => Ok(keys),
        None => Ok(read(place)?.1),
    }
}

/// The key file of a store, and the keys in it, if a gateway uses these; else the refusal says what to do `instead`.
fn changeable(place: &Where, instead: &str) -> anyhow::Result<(PathBuf, Keys)> {
    ensure!(
        place.secrets.server.is_none(),
        "`COUNTERSIGN_SECRET` is set, and a gateway that has it uses no key file. {instead}"
    );
    read(place)
}

/// Refuses a key file whose keys are not those that the store was used with: its gateway has another secret, and goes on
/// with that whatever is changed in the file.
fn ensure_used_with(archive: &SqliteArchive, keys: &Keys, path: &Path) -> anyhow::Result<()> {
    let Some(used) = used_with(archive)? else { return Ok(()) };
    ensure!(
        keys.all().any(|key| key.id().as_bytes() == used),
        "the store was used with the key `{}`, which is not in `{}`: is the gateway run with `COUNTERSIGN_SECRET`?",
        String::from_utf8_lossy(&used),
        path.display()
    );
    Ok(())
}

/// The id of the key that the store was used with, if it was.
fn used_with(archive: &SqliteArchive) -> anyhow::Result<Option<Vec<u8>>> {
    let kept = archive.kept(DOCUMENT).context("cannot read which key the store was used with")?;
    Ok(kept.into_iter().find(|(name, _)| name == DOCUMENT).map(|(_, id)| id))
}

/// The key file of a store, and the keys in it.
fn read(place: &Where) -> anyhow::Result<(PathBuf, Keys)> {
    let path =
        key_file(&place.store).context("this store has no key file: it is used with `COUNTERSIGN_SECRET`")?;
    let file = KeyFile::read(&path)?;
    let missing = || {
        format!(
            "there is no key file `{}`: a gateway without `COUNTERSIGN_SECRET` makes it at its first start",
            path.display()
        )
    };
    let KeyFile(keys) = file.with_context(missing)?;
    Ok((path, keys))
}

/// The store of a key file, if there is one. A gateway may have it open.
fn archive(store: &StoreUrl) -> anyhow::Result<Option<SqliteArchive>> {
    if store.file().is_some_and(|file| !file.exists()) {
        return Ok(None);
    }
    store.open_archive().map(Some).with_context(|| format!("cannot open the store `{store}`"))
}

/// Whether a gateway has used the current key: the store remembers it, and it has signed the newest checkpoint. With another
/// one alone the next start would be refused, and the checkpoint would count no more.
fn is_taken_over(archive: &SqliteArchive, keys: &Keys) -> anyhow::Result<bool> {
    let is_used = used_with(archive)?.is_none_or(|used| used == keys.current.id().as_bytes());
    let checkpoint = archive.audit_checkpoint().context("cannot read the audit checkpoint")?;
    let audit = keys.audit()?;
    Ok(is_used && checkpoint.is_none_or(|kept| audit.current_has_signed(&kept.note)))
}

/// How many salts are encrypted with a key.
fn encrypted_with(archive: &SqliteArchive, key: &str) -> anyhow::Result<usize> {
    let (mut count, mut after) = (0, None);
    let progress = Progress::start("reading salts");
    loop {
        let page = archive.salts(after, PAGE).context("cannot read the salts")?;
        page.iter().for_each(|_| progress.one_more());
        count += page.iter().filter(|(_, salt)| salt.key == key).count();
        match page.last() {
            Some((id, _)) => after = Some(*id),
            None => return Ok(count),
        }
    }
}

/// Encrypts every salt anew that is not encrypted with the current key. Each page is durable before the next is read.
/// With keys of variables it fails in the end if the audit log needs the previous one.
async fn rewrapped(rewrap: &Rewrap) -> anyhow::Result<String> {
    let keys = in_use(&rewrap.place)?;
    let store = rewrap.place.redis.open_existing(&rewrap.place.store).await?;
    check(&keys, store.as_ref(), &rewrap.place.store).await?;
    let salts = keys.salts();
    let (mut done, mut current, mut lost, mut altered) = (0, 0, 0, 0);
    let mut after: Option<RequestId> = None;
    let progress = Progress::start("encrypting salts anew");
    loop {
        let page = store.salts(after, PAGE).await.context("cannot read the salts")?;
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        let mut replacements = Vec::new();
        for (request, from) in page {
            let mut nonce = SaltNonce::default();
            getrandom::fill(&mut nonce).context("the system gives no randomness")?;
            progress.one_more();
            match salts.rewrap(request, &from, nonce) {
                Ok(Some(to)) => replacements.push(NewSalt { request, from, to }),
                Ok(None) => current += 1,
                Err(SaltError::KeyGone(_)) => lost += 1,
                Err(SaltError::Altered(_) | SaltError::Missing) => altered += 1,
                Err(error @ SaltError::Cipher) => return Err(error.into()),
            }
        }
        done += store.replace_salts(replacements).await.context("cannot replace salts")?;
    }
    let checkpoint = store.audit_checkpoint().await.context("cannot read the audit checkpoint")?;
    store.close().await.context("cannot close the store")?;
    drop(progress);
    let mut text = format!("encrypted anew: {done}\nencrypted with the current key already: {current}\n");
    if lost > 0 {
        text.push_str(&format!("lost, since their key is gone: {lost}\n"));
    }
    if altered > 0 {
        text.push_str(&format!("lost, since they are not what was encrypted: {altered}\n"));
    }
    // With variables nothing else is asked before the previous key is taken away.
    let is_asked_later = rewrap.place.secrets.server.is_none() || keys.previous.is_none();
    let audit = keys.audit()?;
    ensure!(
        is_asked_later || checkpoint.is_none_or(|kept| audit.current_has_signed(&kept.note)),
        "{NOT_TAKEN_OVER}, and run this again. What it has done stays done:\n{text}"
    );
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clap::Parser;
    use countersign_core::lifecycle::{Salt, Timestamp};
    use countersign_gateway::audit::AuditSigner;
    use countersign_store::fixtures;

    use super::*;

    /// Whatever is done in which order, the next start is not refused, and the audit log can be checked.
    #[tokio::test]
    async fn the_previous_key_stays_until_a_gateway_has_used_the_current_one() {
        let folder = tempfile::tempdir().unwrap();
        let url: StoreUrl = format!("sqlite:{}", folder.path().join("db").display()).parse().unwrap();
        let place = || Command::parse_from(["keys", "--store", &url.to_string()]).place;
        filled(&place(), 0).await;
        let keys = Keys { current: master(2), previous: Some(master(1)) };
        KeyFile(keys.clone()).create(&key_file(&url).unwrap()).unwrap();
        let start = async |keys: &Keys, is_signing: bool| {
            let store = place().redis.open(&url).await.unwrap();
            check(keys, store.as_ref(), &url).await.unwrap();
            if is_signing {
                let mut signer = AuditSigner::new(Arc::clone(&store), keys.audit().unwrap(), 1, None);
                signer.sign(Timestamp::EPOCH).await.unwrap();
            }
            store.close().await.unwrap();
        };
        let retire =
            async |accept_loss| answer(&KeysCommand::Retire(Retire { place: place(), accept_loss })).await;
        let refused = async |accept_loss| {
            let refused = retire(accept_loss).await.unwrap_err().to_string();
            assert!(refused.contains("Start the gateway once"), "{refused}");
        };
        // The store was used with the previous key, and knows of no other one.
        refused(false).await;
        refused(true).await;
        // The previous key has signed the newest checkpoint alone.
        start(&Keys { current: master(1), previous: None }, true).await;
        start(&keys, false).await;
        refused(false).await;
        start(&keys, true).await;
        retire(false).await.unwrap();
        start(&Keys { current: master(2), previous: None }, true).await;
    }

    /// A gateway with `COUNTERSIGN_SECRET` does not look at the key file, so a change of the file would change nothing, and
    /// what is said of its keys would be about others.
    #[tokio::test]
    async fn a_key_file_that_is_not_used_is_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let url: StoreUrl = format!("sqlite:{}", folder.path().join("db").display()).parse().unwrap();
        let place = || Command::parse_from(["keys", "--store", &url.to_string()]).place;
        filled(&place(), 1).await;
        let path = key_file(&url).unwrap();
        let environment = |secrets: &[(&str, u8)]| -> Environment {
            secrets.iter().map(|(name, secret)| ((*name).to_owned(), hex::encode([*secret; 32]))).collect()
        };
        let configured = environment(&[("COUNTERSIGN_SECRET", 3), ("COUNTERSIGN_SECRET_PREVIOUS", 1)]);
        let run = async |mut command: KeysCommand, environment: &Environment| {
            assert_eq!(command.read_variables(environment), [""; 0]);
            answer(&command).await.map_err(|error| format!("{error:#}"))
        };
        let retire = || KeysCommand::Retire(Retire { place: place(), accept_loss: true });
        let ids = format!("current {}\nprevious {}\n", master(3).id(), master(1).id());
        // Without a key file, as most that set the variable have it, and with one.
        for has_file in [false, true] {
            if has_file {
                KeyFile(Keys { current: master(2), previous: None }).create(&path).unwrap();
            }
            let before = std::fs::read(&path).ok();
            for command in [KeysCommand::Rotate(place()), retire()] {
                let refused = run(command, &configured).await.unwrap_err();
                assert!(refused.contains("COUNTERSIGN_SECRET_PREVIOUS"), "{refused}");
                assert!(!refused.contains("first start") && !refused.contains("--accept-loss"), "{refused}");
            }
            assert_eq!(run(KeysCommand::Show(place()), &configured).await.unwrap(), ids);
            assert_eq!(std::fs::read(&path).ok(), before);
        }
        // Whoever has not the gateway's variables is told by what the store remembers.
        let file = |previous| KeyFile(Keys { current: master(2), previous }).replace(&path).unwrap();
        for (command, previous) in [(KeysCommand::Rotate(place()), None), (retire(), Some(master(5)))] {
            file(previous);
            let refused = run(command, &Environment::new()).await.unwrap_err();
            assert!(refused.contains(&master(1).id()) && refused.contains("COUNTERSIGN_SECRET"), "{refused}");
        }
        // The salts are those of the variables, and a lost secret can be given up by the same rule.
        let rewrapped = run(KeysCommand::Rewrap(Rewrap { place: place() }), &configured).await.unwrap();
        assert!(rewrapped.starts_with("encrypted anew: 1\n"), "{rewrapped}");

        let sign = async |keys: Keys| {
            let store = place().redis.open(&url).await.unwrap();
            let mut signer = AuditSigner::new(Arc::clone(&store), keys.audit().unwrap(), 1, None);
            signer.sign(Timestamp::EPOCH).await.unwrap();
            store.close().await.unwrap();
        };
        let rewrap = async || run(KeysCommand::Rewrap(Rewrap { place: place() }), &configured).await;
        sign(Keys { current: master(1), previous: None }).await;
        let needed = rewrap().await.unwrap_err();
        assert!(
            needed.contains("Start the gateway once") && needed.contains("encrypted anew: 0"),
            "{needed}"
        );
        sign(Keys { current: master(3), previous: Some(master(1)) }).await;
        rewrap().await.unwrap();
        let other = environment(&[("COUNTERSIGN_SECRET", 4)]);
        run(KeysCommand::AcceptLoss(place()), &other).await.unwrap();
        let refused = run(KeysCommand::Rewrap(Rewrap { place: place() }), &configured).await.unwrap_err();
        assert!(refused.contains(&master(4).id()), "{refused}");
    }

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        place: Where,
    }

    fn master(number: u8) -> MasterKey {
        MasterKey::new([number; 32])
    }

    /// A store with this many requests, each with a salt that is encrypted with the first key.
    async fn filled(place: &Where, count: u64) {
        let store = place.redis.open(&place.store).await.unwrap();
        let keys = Keys { current: master(1), previous: None };
        check(&keys, store.as_ref(), &place.store).await.unwrap();
        for number in 0..count {
            let mut request = fixtures::request(number);
            let salt = Salt::new([u8::try_from(number % 256).unwrap(); 32]);
            let wrapped = keys.salts().wrap(request.id, &salt, [0; 12]).unwrap();
            Arc::make_mut(&mut request.submission).salt = Some(wrapped);
            store.create(fixtures::new(&request)).await.unwrap();
        }
        store.close().await.unwrap();
    }

    /// In pages, from where an interrupted run stopped, and again with nothing left to do.
    #[tokio::test]
    async fn all_salts_are_encrypted_anew() {
        let folder = tempfile::tempdir().unwrap();
        let url: StoreUrl = format!("sqlite:{}", folder.path().join("db").display()).parse().unwrap();
        let place = || Command::parse_from(["keys", "--store", &url.to_string()]).place;
        let count = 2 * PAGE as u64 + 3;
        filled(&place(), count).await;
        let keys = Keys { current: master(2), previous: Some(master(1)) };
        KeyFile(keys.clone()).create(&key_file(&url).unwrap()).unwrap();
        // What an interrupted run has done, and a salt that somebody has changed.
        let store = place().redis.open(&url).await.unwrap();
        let page = store.salts(None, 3).await.unwrap();
        let new = |(request, from): &(RequestId, _), to| NewSalt {
            request: *request,
            from: Clone::clone(from),
            to,
        };
        let anew = keys.salts().rewrap(page[0].0, &page[0].1, [1; 12]).unwrap().unwrap();
        store.replace_salts(vec![new(&page[0], anew), new(&page[1], page[2].1.clone())]).await.unwrap();
        store.close().await.unwrap();
        drop(store);

        let rewrap = || Rewrap { place: place() };
        let retire = |accept_loss| KeysCommand::Retire(Retire { place: place(), accept_loss });
        let refused = answer(&retire(false)).await.unwrap_err().to_string();
        assert!(refused.contains(&format!("({} of them)", count - 1)), "{refused}");
        let told = answer(&KeysCommand::Rewrap(rewrap())).await.unwrap();
        let rest = "lost, since they are not what was encrypted: 1\n";
        let expected =
            format!("encrypted anew: {}\nencrypted with the current key already: 1\n{rest}", count - 2);
        assert_eq!(told, expected);
        let told = answer(&KeysCommand::Rewrap(rewrap())).await.unwrap();
        assert!(
            told.starts_with(&format!(
                "encrypted anew: 0\nencrypted with the current key already: {}\n",
                count - 1
            )),
            "{told}"
        );

        let refused = answer(&retire(false)).await.unwrap_err().to_string();
        assert!(refused.contains("(1 of them)"), "{refused}");
        answer(&retire(true)).await.unwrap();
        let store = place().redis.open(&url).await.unwrap();
        let alone = Keys { current: master(2), previous: None }.salts();
        let salts = store.salts(None, usize::MAX).await.unwrap();
        assert_eq!(salts.len() as u64, count);
        for (number, (request, wrapped)) in salts.iter().enumerate().filter(|(number, _)| *number != 1) {
            let salt = alone.unwrap(*request, wrapped).unwrap();
            assert_eq!(usize::from(salt.expose()[0]), number % 256);
        }
    }
}

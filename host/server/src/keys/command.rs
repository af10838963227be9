//! `countersign keys`: changes the key file of an embedded store.

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use countersign_store::StoreUrl;

use super::file::KeyFile;
use super::{DOCUMENT, Keys, MasterKey, key_file};

/// Change the key file beside an embedded store.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Print the ids of the keys, and nothing of the keys themselves.
    Show(Where),
    /// Make a new current key; the old one becomes the previous one. Restart the gateway afterwards.
    Rotate(Where),
    /// Remove the previous key. Restart the gateway afterwards.
    Retire(Where),
    /// Let the store be used with the present key, although the one that it was used with is lost.
    AcceptLoss(Where),
}

/// Which store.
#[derive(Debug, Args)]
pub struct Where {
    /// The store: `sqlite:PATH`.
    #[arg(long, value_name = "URL", default_value = "sqlite:countersign.db")]
    store: StoreUrl,
}

/// Runs a command, and returns the exit code.
pub async fn run(command: &KeysCommand) -> ExitCode {
    match answer(command).await {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn answer(command: &KeysCommand) -> anyhow::Result<String> {
    let (KeysCommand::Show(place)
    | KeysCommand::Rotate(place)
    | KeysCommand::Retire(place)
    | KeysCommand::AcceptLoss(place)) = command;
    let path =
        key_file(&place.store).context("this store has no key file: it is used with `COUNTERSIGN_SECRET`")?;
    let file = KeyFile::read(&path)?;
    let missing =
        || format!("there is no key file `{}`; a gateway makes it at its first start", path.display());
    let KeyFile(keys) = file.with_context(missing)?;
    let after = match command {
        KeysCommand::Show(_) => keys,
        KeysCommand::Rotate(_) => {
            ensure!(
                keys.previous.is_none(),
                "there is a previous key already: `countersign keys retire` removes it, once nothing needs it"
            );
            let rotated = Keys { current: MasterKey::generate()?, previous: Some(keys.current) };
            KeyFile(rotated.clone()).replace(&path)?;
            rotated
        }
        KeysCommand::Retire(_) => {
            ensure!(keys.previous.is_some(), "there is no previous key");
            let retired = Keys { previous: None, ..keys };
            KeyFile(retired.clone()).replace(&path)?;
            retired
        }
        KeysCommand::AcceptLoss(_) => {
            let store =
                place.store.open().with_context(|| format!("cannot open the store `{}`", place.store))?;
            store.keep(DOCUMENT, keys.current.id().into_bytes()).await.context("cannot change the store")?;
            store.close().await.context("cannot close the store")?;
            keys
        }
    };
    let names = ["current", "previous"];
    Ok(names.into_iter().zip(after.all()).map(|(name, key)| format!("{name} {}\n", key.id())).collect())
}

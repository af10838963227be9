//! What is done when the store cannot take a press: it is kept on disk, and applied once the store can.

use std::sync::Arc;
use std::time::Duration;

use super::answer::{self, Answer};
use super::person::Person;
use super::{InteractionError, REMEMBER_MS, respond};
use crate::spool::{self, Name, Press, Spool, SpoolError};
use crate::state::App;
use countersign_slack::{Interaction, Unreadable};

/// How long a disk may take to keep a press: Slack waits for 3 s, and a part of them is over.
const KEEP_WITHIN: Duration = Duration::from_millis(700);

/// How often it is looked whether something that was kept can be applied.
const PACE: Duration = Duration::from_secs(1);

/// A press that may have to be kept.
pub(super) struct Keepable {
    spool: Arc<Spool>,
    press: Press,
}

/// A press that is kept, and held until its fate is known.
pub(super) struct Kept {
    spool: Arc<Spool>,
    name: Name,
    is_modal: bool,
}

impl Keepable {
    /// `None` if there is nowhere to keep it, or nothing to be kept: opening a dialog is no use later, and what Slack does
    /// not name could not be told from another press.
    pub(super) fn of(app: &App, interaction: &Result<Interaction, Unreadable>) -> Option<Keepable> {
        let spool = Arc::clone(app.spool.as_ref()?);
        let interaction = interaction.as_ref().ok()?;
        interaction.identity()?;
        let press = Press { at: app.gateway.clock().now(), interaction: interaction.clone() };
        interaction.acts().then_some(Keepable { spool, press })
    }

    /// Keeps it. `None` if the disk does not take it, or not in time.
    pub(super) async fn keep(self) -> Option<Kept> {
        let Keepable { spool, press } = self;
        let request = press.interaction.request;
        let is_modal = press.interaction.kind.modal_blocks().is_some();
        let writer = Arc::clone(&spool);
        let mut kept = tokio::spawn(async move {
            spool::blocking(&writer, move |spool| spool.keep(&press))
                .await
                .inspect_err(|error| tracing::error!(%request, %error, "a press in Slack cannot be kept"))
                .ok()
        });
        if let Ok(kept) = tokio::time::timeout(KEEP_WITHIN, &mut kept).await {
            let name = kept.ok().flatten()?;
            return Some(Kept { spool, name, is_modal });
        }
        tracing::error!(%request, "the disk takes too long to keep a press in Slack");
        // The person is told that it is not kept, so it must not count hours later.
        tokio::spawn(async move {
            if let Ok(Some(name)) = kept.await {
                forget(&spool, name).await;
            }
        });
        None
    }
}

impl Kept {
    /// It is left to [`apply`]. What the person is answered.
    pub(super) fn leave(self) -> Answer {
        self.spool.release(&self.name);
        Answer::recorded(self.is_modal)
    }

    /// It need not be kept any longer: it was stored, or refused.
    pub(super) async fn forget(self) {
        forget(&self.spool, self.name).await;
    }
}

/// Whether the store is why an interaction had no effect, or why that is not known.
pub(super) fn is_of_store(finished: &Result<Answer, InteractionError>) -> bool {
    match finished {
        Ok(answer) => answer.store_failed,
        Err(InteractionError::Gateway(error)) => answer::is_of_store(error),
        Err(_) => false,
    }
}

/// Applies what was kept, in the order in which it came, whenever the store can be written to; for ever.
pub(crate) async fn apply(app: Arc<App>) {
    let Some(spool) = &app.spool else { return };
    loop {
        if app.readiness.store_fault().is_none() {
            while let Some(name) = spool.next() {
                if !apply_one(&app, spool, name).await {
                    break;
                }
            }
        }
        tokio::time::sleep(PACE).await;
    }
}

/// False if the store fails again: then it stays where it is.
async fn apply_one(app: &Arc<App>, spool: &Arc<Spool>, name: Name) -> bool {
    let read = {
        let name = name.clone();
        spool::blocking(spool, move |spool| spool.read(&name)).await
    };
    let press = match read {
        Ok(press) => press,
        Err(SpoolError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            tracing::error!(press = %name, "a press that was kept is gone from the spool");
            forget(spool, name).await;
            return true;
        }
        Err(SpoolError::Io(error)) => {
            tracing::error!(%error, press = %name, "a press that was kept cannot be read; trying again");
            return false;
        }
        Err(error) => {
            tracing::error!(%error, press = %name, "a file in the spool is set aside");
            let aside = spool::blocking(spool, move |spool| Ok(spool.set_aside(&name)?)).await;
            return aside.is_ok();
        }
    };
    let request = press.interaction.request;
    let interaction = Ok(press.interaction);
    let person = Person::of(&interaction);
    let (worker, at) = (Arc::clone(app), press.at);
    // A press that breaks something must not keep others from being applied.
    let done = app.background.spawn(async move {
        let late = worker.gateway.clock().now().since(at) >= REMEMBER_MS;
        match interaction {
            Ok(interaction) if !late => answer::answer(&worker, interaction, None).await,
            _ => Answer::refusal(&worker, "too_late", "what was done came too late"),
        }
    });
    let Ok(answer) = done.await else {
        tracing::error!(%request, press = %name, "applying a press that was kept broke something; it is set aside");
        return spool::blocking(spool, move |spool| Ok(spool.set_aside(&name)?)).await.is_ok();
    };
    if answer.store_failed {
        return false;
    }
    tracing::info!(%request, press = %name, "a press that was kept is done with");
    forget(spool, name).await;
    respond(app, person, answer, true).await;
    true
}

async fn forget(spool: &Arc<Spool>, name: Name) {
    let named = name.to_string();
    if let Err(error) = spool::blocking(spool, move |spool| Ok(spool.forget(&name)?)).await {
        tracing::error!(%error, press = named, "a press that is done with cannot be removed; it counts once");
    }
}

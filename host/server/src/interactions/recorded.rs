//! What is done when the store cannot take a press: it is kept on disk, and applied once the store can.

use std::sync::Arc;
use std::time::Duration;

use countersign_slack::{Interaction, InteractionKind, Unreadable};
use tokio::time::Instant;

use super::answer::{self, Answer};
use super::later::{self, Applied};
use super::person::Person;
use super::{InteractionError, respond};
use crate::spool::{self, Name, Press, Spool, SpoolError, Turn};
use crate::state::App;

/// How long a disk may take to keep a press: Slack waits for 3 s, and a part of them is over.
const KEEP_WITHIN: Duration = Duration::from_millis(700);

/// How often it is looked whether something that was kept can be applied.
const PACE: Duration = Duration::from_secs(1);

/// A press that may have to be kept.
#[derive(Clone)]
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

    /// Waits until nothing that the same person did before on the same request is being handled. A denial need not wait: it
    /// ends what the others are about, and the dialog for its reason opens within 3 s or never.
    pub(super) async fn turn(&self) -> Option<Turn> {
        if self.press.denies() {
            return None;
        }
        Some(self.spool.turn(&self.press.subject()).await)
    }

    /// Whether something that the same person did before on the same request is kept, so that this has to be, too; unless it
    /// is a denial.
    pub(super) fn is_behind(&self) -> bool {
        !self.press.denies() && self.spool.is_behind(&self.press)
    }

    /// The press as it is kept, if it was delivered before.
    pub(super) fn kept_before(self) -> Option<Press> {
        let at = self.spool.kept_since(&self.press)?;
        Some(Press { at, ..self.press })
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
        // The person is told that it is not kept, so it must not count hours later; unless it was delivered again, and they
        // are told then that it is.
        tokio::spawn(async move {
            if let Ok(Some(name)) = kept.await
                && let Err(error) = spool::blocking(&spool, move |spool| Ok(spool.abandon(&name)?)).await
            {
                tracing::error!(%error, press = %name, "a press that was kept too late cannot be removed; it counts once");
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

/// Whether the store is why an interaction had no effect, or why that is not known, or an earlier one waits for it.
pub(super) fn must_be_kept(answer: &Result<Answer, InteractionError>) -> bool {
    match answer {
        Ok(answer) => answer.must_be_kept,
        Err(InteractionError::Gateway(error)) => answer::is_of_store(error),
        Err(_) => false,
    }
}

/// Applies what was kept, in the order in which it came, whenever the store can be written to; for ever.
pub(crate) async fn apply(app: Arc<App>) {
    let Some(spool) = &app.spool else { return };
    let mut applied = Applied::new();
    loop {
        if app.readiness.store_fault().is_none() {
            apply_all(&app, spool, &mut applied).await;
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Applies what can be applied now, until the store fails.
async fn apply_all(app: &Arc<App>, spool: &Arc<Spool>, applied: &mut Applied) {
    while let Some(name) = spool.next(Instant::now()) {
        if !apply_one(app, spool, name, applied).await {
            return;
        }
        applied.retain(|subject, _| spool.has(subject));
    }
}

/// False if the store fails again: then it stays where it is.
async fn apply_one(app: &Arc<App>, spool: &Arc<Spool>, name: Name, applied: &mut Applied) -> bool {
    let press = match spool::blocking(spool, move |spool| spool.read(&name)).await {
        Ok(press) => press,
        Err(SpoolError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            tracing::error!(press = %name, "a press that was kept is gone from the spool");
            forget(spool, name).await;
            return true;
        }
        Err(SpoolError::Io(error)) => {
            if spool.put_off(&name, Instant::now()) {
                tracing::error!(%error, press = %name, "a press that was kept cannot be read; trying again");
            }
            return true;
        }
        Err(error) => {
            set_aside(spool, name).await;
            tracing::error!(%error, press = %name, "a file in the spool is set aside");
            return true;
        }
    };
    let (request, subject) = (press.interaction.request, press.subject());
    let withdraws = press.interaction.kind == InteractionKind::Withdraw;
    let interaction = Ok(press.interaction.clone());
    let person = Person::of(&interaction);
    let (worker, before) = (Arc::clone(app), applied.clone());
    let begun = app.gateway.clock().now();
    // A press that breaks something must not keep others from being applied.
    let done = app.background.spawn(async move { later::answer(&worker, press, &before).await });
    let Ok(answer) = done.await else {
        tracing::error!(%request, press = %name, "applying a press that was kept broke something; it is set aside");
        set_aside(spool, name).await;
        return true;
    };
    if answer.must_be_kept {
        return false;
    }
    if withdraws {
        applied.entry(subject).or_default().push(begun);
    }
    tracing::info!(%request, press = %name, "a press that was kept is done with");
    forget(spool, name).await;
    respond(app, person, answer, true).await;
    true
}

async fn forget(spool: &Arc<Spool>, name: Name) {
    if let Err(error) = spool::blocking(spool, move |spool| Ok(spool.forget(&name)?)).await {
        tracing::error!(%error, press = %name, "a press that is done with cannot be removed; it counts once");
    }
}

async fn set_aside(spool: &Arc<Spool>, name: Name) {
    if let Err(error) = spool::blocking(spool, move |spool| Ok(spool.set_aside(&name)?)).await {
        tracing::error!(%error, press = %name, "a file in the spool cannot be set aside; it is not read again");
    }
}

//! A change of the set in force, made or only tried, as the store, the audit log and the metrics tell it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::lifecycle::{AuditEntry, AuditEvent, Count, Counter, Digest, Timestamp};

/// How many errors of a set that was refused are kept.
const MOST_FAULTS: usize = 10;

/// One attempt to change which policy set is in force, or what could be put in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// When.
    pub at: Timestamp,
    /// What was tried.
    pub what: ChangeKind,
    /// What set it off.
    pub trigger: ChangeTrigger,
    /// Who asked for it; `None` for what happens by itself, and for signals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// How an admin asked for it; `None` for everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<AdminCall>,
    /// What became of it.
    pub outcome: ChangeOutcome,
    /// The set that was in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Digest>,
    /// The set that was wanted, if it came to having a hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Digest>,
    /// The fingerprint of the folder at that time; tells after a restart whether it has changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<Digest>,
    /// The public keys whose signatures of the wanted set are valid, if one is required.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signed_by: Vec<String>,
    /// What was wrong, the first few only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<ChangeFault>,
}

/// How an admin called, as the audit log tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdminCall {
    /// How the admin was authenticated.
    pub authentication: Authentication,
    /// The address of the client.
    pub address: IpAddr,
    /// Who the call says that the admin is. Nothing proves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_actor: Option<String>,
}

/// How an admin was authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Authentication {
    /// By `ADMIN_TOKEN`.
    AdminToken,
    /// By an API key of the access file.
    ApiKey,
    /// By a token of an identity provider.
    Oidc,
    /// By a client certificate.
    Certificate,
}

impl AdminCall {
    /// The fields of the audit entry of what the admin did.
    #[must_use]
    pub fn audited(&self) -> Map<String, Value> {
        let mut detail = Map::from_iter([
            ("authentication".to_owned(), json!(self.authentication)),
            ("address".to_owned(), json!(self.address)),
        ]);
        if let Some(claimed) = &self.claimed_actor {
            detail.insert("claimedActor".to_owned(), json!(claimed));
        }
        detail
    }
}

/// One thing that was wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeFault {
    /// Where: `FILE:LINE:COLUMN`, `FILE`, or empty.
    pub path: String,
    /// What.
    pub message: String,
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// The gateway started.
    Start,
    /// The folder was read again.
    Reload,
    /// A stored set was to be put in force.
    Activate,
    /// The set before was to be put in force again.
    Rollback,
    /// Another instance had put a set in force.
    Follow,
    /// A set was to be stored.
    StoreSet,
    /// A module was to be stored.
    StoreModule,
}

/// What set a change off; the values of the metric label `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeTrigger {
    /// The start of the gateway.
    Start,
    /// SIGHUP.
    Sighup,
    /// The folder changed.
    File,
    /// An admin's call.
    Api,
    /// The store says that another instance made it.
    Store,
}

/// What became of an attempt; the values of the metric label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeOutcome {
    /// Another set is in force.
    Ok,
    /// The set that was wanted was in force already.
    Unchanged,
    /// Nothing has changed: somebody else was faster.
    Conflict,
    /// Nothing has changed: the set may be half-written, and nobody asked for it.
    HeldBack,
    /// Nothing has changed.
    Failed,
}

impl PolicyChange {
    /// The set that it put in force, if it put one.
    #[must_use]
    pub fn in_force(&self) -> Option<Digest> {
        let puts = matches!(
            self.what,
            ChangeKind::Start | ChangeKind::Reload | ChangeKind::Activate | ChangeKind::Rollback
        );
        self.to.filter(|_| puts && self.outcome == ChangeOutcome::Ok)
    }

    /// Whether an admin put the set in force, rather than whoever wrote the folder.
    #[must_use]
    pub fn by_admin(&self) -> bool {
        matches!(self.what, ChangeKind::Activate | ChangeKind::Rollback)
    }

    /// As one that was not carried out, with these faults, as far as they are kept.
    #[must_use]
    pub fn failed(mut self, faults: impl IntoIterator<Item = ChangeFault>) -> PolicyChange {
        if !matches!(self.outcome, ChangeOutcome::Conflict | ChangeOutcome::HeldBack) {
            self.outcome = ChangeOutcome::Failed;
        }
        self.faults = faults.into_iter().take(MOST_FAULTS).collect();
        self
    }

    /// What the audit log says of it.
    #[must_use]
    pub fn audit(&self) -> AuditEntry {
        let event = match self.outcome {
            ChangeOutcome::Ok | ChangeOutcome::Unchanged => AuditEvent::PolicyReloaded,
            ChangeOutcome::HeldBack => AuditEvent::PolicyReloadHeldBack,
            ChangeOutcome::Conflict | ChangeOutcome::Failed => AuditEvent::PolicyReloadFailed,
        };
        let mut detail = Map::from_iter([
            ("what".to_owned(), json!(self.what)),
            ("source".to_owned(), json!(self.trigger)),
            ("outcome".to_owned(), json!(self.outcome)),
            ("hash".to_owned(), json!(self.to)),
            ("previousHash".to_owned(), json!(self.from)),
        ]);
        if !self.signed_by.is_empty() {
            detail.insert("signedBy".to_owned(), json!(self.signed_by));
        }
        if !self.faults.is_empty() {
            detail.insert("errors".to_owned(), json!(self.faults));
        }
        detail.extend(self.call.iter().flat_map(AdminCall::audited));
        AuditEntry::of_admin(self.at, event, self.actor.clone(), detail)
    }

    /// How the metrics count it. A start counts nothing: what it loads is no reload.
    #[must_use]
    pub fn counts(&self) -> Vec<Count> {
        if self.trigger == ChangeTrigger::Start {
            return Vec::new();
        }
        vec![Count { counter: PolicyChange::counter(self.trigger, self.outcome), by: 1 }]
    }

    /// The counter of attempts that were set off so and came to this.
    #[must_use]
    pub fn counter(trigger: ChangeTrigger, outcome: ChangeOutcome) -> Counter {
        let labels = [("source", trigger.as_str()), ("outcome", outcome.as_str())];
        Count::one("policy_reloads_total", &labels).counter
    }
}

impl std::fmt::Display for ChangeFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

impl ChangeKind {
    /// As it is told.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ChangeKind::Start => "start",
            ChangeKind::Reload => "reload",
            ChangeKind::Activate => "activate",
            ChangeKind::Rollback => "rollback",
            ChangeKind::Follow => "follow",
            ChangeKind::StoreSet => "store_set",
            ChangeKind::StoreModule => "store_module",
        }
    }
}

impl ChangeTrigger {
    /// As it is told.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ChangeTrigger::Start => "start",
            ChangeTrigger::Sighup => "sighup",
            ChangeTrigger::File => "file",
            ChangeTrigger::Api => "api",
            ChangeTrigger::Store => "store",
        }
    }
}

impl ChangeOutcome {
    /// As it is told.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ChangeOutcome::Ok => "ok",
            ChangeOutcome::Unchanged => "unchanged",
            ChangeOutcome::Conflict => "conflict",
            ChangeOutcome::HeldBack => "held_back",
            ChangeOutcome::Failed => "failed",
        }
    }
}

//! The request that a policy judges, and the two scalar types of the contract: JSON text and instants.

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::Actor;

/// A request for approval, as its caller made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The request's id; opaque.
    pub id: String,
    /// The action that the caller wants to perform.
    pub action: String,
    /// Who asks.
    pub requester: Actor,
    /// Ids of people who count as requesters, too: the owners of a machine that asks.
    pub owners: Vec<String>,
    /// Who wanted an earlier request made again, if somebody did.
    pub rerequested_by: Option<Actor>,
    /// The submitted parameters, a JSON object: whole in [`Policy::admit`](crate::Policy::admit), redacted in
    /// [`Policy::judge`](crate::Policy::judge).
    pub params: Json,
    /// Origin, justification and links, as submitted; a JSON object.
    pub meta: Json,
    /// When the request was made.
    pub submitted_at: Instant,
    /// When it expires, unless it was decided before.
    pub expires_at: Instant,
    /// How many requests of the same lineage came before this one.
    pub lineage_depth: u32,
}

impl Request {
    /// Whether somebody asks, or counts as who asks.
    #[must_use]
    pub fn is_asked_by(&self, actor: &Actor) -> bool {
        self.requester.id == actor.id || self.owners.contains(&actor.id)
    }

    /// The ids of all who count as who asks: the requester, and the owners if it is a machine.
    pub fn askers(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.requester.id.as_str()).chain(self.owners.iter().map(String::as_str))
    }
}

/// JSON text that is read only when a policy asks, because most judgements never look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(String);

impl Json {
    /// Takes text as it is; whether it is JSON shows when it is parsed.
    #[must_use]
    pub fn from_text(text: String) -> Self {
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Reads the text as `T`: [`serde_json::Value`] for anything, or a struct of the members that matter.
    ///
    /// # Errors
    /// If the text is not JSON, or not of the shape of `T`.
    /// ```
    /// use countersign_policy_sdk::Json;
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// struct Params { replicas: u32 }
    ///
    /// let params = Json::from_text(r#"{"replicas": 3, "ref": "main"}"#.into());
    /// assert_eq!(params.parse::<Params>()?.replicas, 3);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.0)
    }
}

/// A point in time, in milliseconds since the Unix epoch, UTC.
///
/// Instants come from the gateway; there is no way to ask what time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.0
    }

    /// This much later, to the millisecond; the end of time if there is nothing later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

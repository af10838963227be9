//! `Idempotency-Key`: a call that is sent again gets the answer of the first one.
//!
//! The store keeps a fingerprint of the body, under a key of the gateway: a plain digest of it would let whoever reads the
//! store find hidden parameters by trying values.

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use countersign_access::Caller;
use countersign_core::lifecycle::Digest;
use countersign_core::mac::hmac;
use countersign_gateway::IdempotencyKey;
use serde::Serialize;
use serde_json::{Value, json};

use super::error::{ApiError, Invalid};
use crate::keys::Keys;

/// The header.
pub(super) const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// The header of an answer that was given before, for the same key.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// How the header is called in errors.
const NAME: &str = "Idempotency-Key";

/// Makes fingerprints of bodies.
pub(crate) struct Fingerprints {
    current: [u8; 32],
    previous: Option<[u8; 32]>,
}

impl Fingerprints {
    pub(crate) fn new(keys: &Keys) -> Fingerprints {
        const PURPOSE: &str = "countersign idempotency fingerprint";
        let previous = keys.previous.as_ref().map(|key| key.derive(PURPOSE));
        Fingerprints { current: keys.current.derive(PURPOSE), previous }
    }
}

/// An answer that says, if it was given before for the same key, that it is no new one: whoever runs a job twice with one
/// key must not take the first one's approval for its own.
pub(super) struct Replayable<T> {
    pub(super) replayed: bool,
    pub(super) view: T,
}

impl<T: Serialize> IntoResponse for Replayable<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.view).into_response();
        if self.replayed {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// A key that was sent with a body, before it is known whose it is.
pub(super) struct Sent {
    key: String,
    fingerprint: Digest,
    earlier: [Option<Digest>; 2],
}

impl Sent {
    /// The key in these headers, if there is one, and the fingerprint of the body that came with it: for a caller whose
    /// requesters come from claims also of the person, so that nobody is given what another one has asked for.
    ///
    /// # Errors
    /// If there are several, or it does not have the form of a key.
    pub(super) fn read(
        headers: &HeaderMap,
        fingerprints: &Fingerprints,
        body: &Value,
        person: Option<&str>,
    ) -> Result<Option<Sent>, ApiError> {
        let mut values = headers.get_all(HEADER).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Invalid::new(NAME, "must come once").into());
        }
        let key = value
            .to_str()
            .ok()
            .filter(|key| (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()));
        let Some(key) = key else {
            let form = "must have 1 to 255 printable ASCII characters and no spaces";
            return Err(Invalid::new(NAME, form).into());
        };
        let plain = match person {
            Some(person) => Digest::of_json(&json!({"body": body, "person": person})),
            None => Digest::of_json(body),
        };
        let under = |key: &[u8; 32]| Digest::from_bytes(hmac(key, plain.as_bytes()));
        Ok(Some(Sent {
            key: key.to_owned(),
            fingerprint: under(&fingerprints.current),
            // An earlier version kept the plain digest; what it has kept ends within a day.
            earlier: [fingerprints.previous.as_ref().map(under), Some(plain).filter(|_| person.is_none())],
        }))
    }

    /// The key of a call of this kind that makes a request. It belongs to the caller; without callers, to the repository.
    pub(super) fn of_maker(
        self,
        what: &str,
        (caller, repository): (Option<&Caller>, &str),
    ) -> IdempotencyKey {
        let owner = match caller {
            Some(caller) => format!("caller\0{}", caller.name),
            None => format!("repository\0{repository}"),
        };
        self.of(what, &owner)
    }

    /// The key of a call of this kind, which is told apart from those of other owners.
    pub(super) fn of(self, what: &str, owner: &str) -> IdempotencyKey {
        let Sent { key, fingerprint, earlier } = self;
        IdempotencyKey { key: Digest::of(format!("{what}\0{owner}\0{key}").as_bytes()), fingerprint, earlier }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is stored by an earlier version, and by an instance that still runs it, must count.
    #[test]
    fn only_a_person_changes_the_fingerprint_of_a_body() {
        let fingerprints = Fingerprints { current: [1; 32], previous: Some([2; 32]) };
        let headers = HeaderMap::from_iter([(HEADER, HeaderValue::from_static("run-1"))]);
        let body = json!({"action": "deploy"});
        let sent = |person| {
            let sent = Sent::read(&headers, &fingerprints, &body, person).expect("sound").expect("a key");
            (sent.fingerprint, sent.earlier)
        };
        let plain = Digest::of_json(&body);
        let under = |key: [u8; 32]| Digest::from_bytes(hmac(&key, plain.as_bytes()));
        assert_eq!(sent(None), (under([1; 32]), [Some(under([2; 32])), Some(plain)]));

        let (dana, earlier) = sent(Some("github:dana"));
        assert_eq!(sent(Some("github:dana")), (dana, earlier));
        let others = [sent(None), sent(Some("github:rita"))];
        let known: Vec<Digest> =
            others.iter().flat_map(|(now, earlier)| [Some(*now), earlier[0], earlier[1]]).flatten().collect();
        assert!(!known.contains(&dana) && earlier.iter().flatten().all(|digest| !known.contains(digest)));
    }
}

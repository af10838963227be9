//! The use of an approval: it is consumed once, for the parameters that were agreed to, and what came of it is noted.

use std::sync::Arc;

use countersign_core::lifecycle::{
    AuditEntry, Consumption, Count, Digest, PayloadHashVersion, Presented, PresentedParameters, Repeat,
    Request, RunReport, RunResult, Timestamp, UseAct, UseRefusal, parameter_digests,
};
use countersign_trace::Name;
use serde_json::{Map, Value};

use super::{Gateway, GatewayError, IdempotencyKey, MOST_CONFLICTS, traces};

/// What a caller is about to run.
#[derive(Clone, Debug)]
pub struct Given {
    /// The action, if the caller says it.
    pub action: Option<String>,
    /// With which parameters.
    pub parameters: GivenParameters,
}

/// The parameters that a caller is about to use.
#[derive(Clone, Debug)]
pub enum GivenParameters {
    /// The parameters themselves.
    Params(Map<String, Value>),
    /// The payload hash, computed from them.
    PayloadHash(Digest),
}

/// An approval that was used.
#[derive(Clone, Debug)]
pub struct Used {
    /// The request.
    pub request: Arc<Request>,
    /// Whether an earlier call with the same idempotency key did it.
    pub replayed: bool,
}

impl Gateway {
    /// Consumes the approval of a request, for what is given. Whether it is the caller's is not looked at here.
    ///
    /// # Errors
    /// [`UseRefusal`] if there is no approval, it was used before or has lapsed, or something else was agreed to; and
    /// [`GatewayError::KeyReused`] if it was consumed with this idempotency key and another body.
    pub async fn consume(
        &self,
        request: Arc<Request>,
        given: &Given,
        by: Option<&str>,
        key: Option<IdempotencyKey>,
    ) -> Result<Used, GatewayError> {
        let span = self.tracer.start(Name::Consume);
        traces::about(&span, &request);
        let used = span.around(self.consume_within(request, given, by, key)).await;
        traces::say_used(&span, &used);
        used
    }

    async fn consume_within(
        &self,
        mut request: Arc<Request>,
        given: &Given,
        by: Option<&str>,
        key: Option<IdempotencyKey>,
    ) -> Result<Used, GatewayError> {
        for _ in 0..MOST_CONFLICTS {
            if let (Some(sent), Some(known)) = (&key, request.consumption().and_then(|used| used.repeat))
                && sent.key == known.key
            {
                let is_same = sent.matches(known.fingerprint);
                return if is_same {
                    Ok(Used { request, replayed: true })
                } else {
                    Err(GatewayError::KeyReused)
                };
            }
            let now = self.clock.now();
            let repeat = key.map(|sent| Repeat { key: sent.key, fingerprint: sent.fingerprint });
            let consumption = Consumption { at: now, by: by.map(str::to_owned), repeat, report: None };
            let presented = self.presented(&request, given);
            match presented.and_then(|presented| request.consume(now, consumption, &presented)) {
                Ok(step) => {
                    if let Some(stored) = self.commit(&request, step, None).await? {
                        return Ok(Used { request: stored, replayed: false });
                    }
                }
                Err(refusal) => return Err(self.refuse_use(&request, UseAct::Consume, refusal, by).await),
            }
            request = self.request(request.id).await?;
        }
        Err(GatewayError::Contended)
    }

    /// Notes what came of the run that an approval was consumed for. The same report again changes nothing.
    ///
    /// # Errors
    /// [`UseRefusal`] if the approval was not consumed, or another outcome was reported before.
    pub async fn report(
        &self,
        request: Arc<Request>,
        came_of_it: (RunResult, Option<String>),
        by: Option<&str>,
    ) -> Result<Used, GatewayError> {
        let span = self.tracer.start(Name::Report);
        traces::about(&span, &request);
        let used = span.around(self.report_within(request, came_of_it, by)).await;
        traces::say_used(&span, &used);
        used
    }

    async fn report_within(
        &self,
        mut request: Arc<Request>,
        (result, detail): (RunResult, Option<String>),
        by: Option<&str>,
    ) -> Result<Used, GatewayError> {
        for _ in 0..MOST_CONFLICTS {
            let known = request.consumption().and_then(|used| used.report.as_ref());
            if known.is_some_and(|known| known.result == result && known.detail == detail) {
                return Ok(Used { request, replayed: true });
            }
            let now = self.clock.now();
            match request.report(now, by, RunReport { at: now, result, detail: detail.clone() }) {
                Ok(step) => {
                    if let Some(stored) = self.commit(&request, step, None).await? {
                        return Ok(Used { request: stored, replayed: false });
                    }
                }
                Err(refusal) => return Err(self.refuse_use(&request, UseAct::Report, refusal, by).await),
            }
            request = self.request(request.id).await?;
        }
        Err(GatewayError::Contended)
    }

    /// Refuses the use of an approval. What may be an attack is in the audit log, and so is what a person has to look at:
    /// an approval that was about to be used for something else. The same once more is told by [`Gateway::refused_uses`].
    pub async fn refuse_use(
        &self,
        request: &Request,
        act: UseAct,
        refusal: UseRefusal,
        by: Option<&str>,
    ) -> GatewayError {
        if refusal.is_audited() && self.refused_uses.is_first(request, act, &refusal, by) {
            let at: Timestamp = request.time_of_next(self.clock.now());
            let audit = vec![refusal.audit(request, at, act, by)];
            if let Err(error) = self.store.append(audit, vec![refusal.count(request)]).await {
                self.refused_uses.not_audited(request, act, &refusal, by);
                return error.into();
            }
        }
        refusal.into()
    }

    /// What was refused more than once since this was last called, to be audited and counted.
    #[must_use]
    pub fn refused_uses(&self) -> (Vec<AuditEntry>, Vec<Count>) {
        self.refused_uses.take(self.clock.now())
    }

    /// What is given, as it can be compared with what was agreed to.
    fn presented(&self, request: &Request, given: &Given) -> Result<Presented, UseRefusal> {
        let parameters = match &given.parameters {
            GivenParameters::PayloadHash(hash) => PresentedParameters::PayloadHash(*hash),
            GivenParameters::Params(params)
                if request.submission.payload_hash_version == PayloadHashVersion::One =>
            {
                PresentedParameters::Commitments(parameter_digests(params))
            }
            GivenParameters::Params(params) => {
                let salt = self.salt_of(request).ok_or(UseRefusal::SaltLost)?;
                let commitments = params.iter().map(|(key, value)| (key.clone(), salt.commit(value)));
                PresentedParameters::Commitments(commitments.collect())
            }
        };
        Ok(Presented { action: given.action.clone(), parameters })
    }
}

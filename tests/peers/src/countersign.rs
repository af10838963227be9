//! Countersign: the policy `quorum`, in a new sandbox for each call, as in production.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use countersign_core::directory::Directory;
use countersign_core::lifecycle::{
    self, Commitments, Digest, Event, Origin, Party, Request, RequestId, Ruling, Standing, Timestamp, Verdict,
};
use countersign_policy::decide::{Ask, Issued, Who, submission};
use countersign_policy::{CompileCache, Engine, Kept, Limits, PolicySet, Source, Trust};

use crate::case::{Act, Answer, Case, JUSTIFICATION, SUBMITTED_AT, params};
use crate::engine::Judge;

const ACTION: &str = "deploy";

pub(crate) struct Countersign {
    set: PolicySet,
    input: Option<(Request, Event)>,
}

impl Countersign {
    /// Loads the module, as the gateway does when it starts: compiled code is kept in `cache`.
    pub(crate) fn prepare(module: &Path, cache: &Path) -> Result<Countersign> {
        let bytes = std::fs::read(module).with_context(|| format!("cannot read `{}`", module.display()))?;
        let digest = Digest::of(&bytes).to_string();
        let source = Source {
            name: "quorum.yaml".to_owned(),
            text: include_str!("rule/quorum.yaml").replace("{digest}", &digest),
            modules: vec![("quorum.wasm".to_owned(), bytes)],
            schemas: Vec::new(),
            signatures: Vec::new(),
            unfetched: Default::default(),
            kept: Kept::InFolder,
            manifest: None,
        };
        let cache = CompileCache::new(cache, &[1; 32]);
        let engine = Engine::new(Limits::default(), Some(cache), Trust::default())?;
        Ok(Countersign { set: PolicySet::build(&source, &engine)?, input: None })
    }
}

impl Judge for Countersign {
    fn take(&mut self, case: &Case) -> Result<()> {
        let policy = self.set.action(ACTION).context("the set has no such action")?;
        let at = Timestamp::from_millis(SUBMITTED_AT);
        let id = RequestId::new(at, 1, 1);
        let params = params().as_object().cloned().unwrap_or_default();
        let ask = Ask {
            action: ACTION.to_owned(),
            params: params.clone(),
            origin: Origin { repo: "acme/billing".to_owned(), branch: None, pr: None, run_id: None },
            requester: Party { id: case.requester.to_owned(), source: "slack".to_owned(), display: None },
            who: Who::asserted(case.requester),
            caller: None,
            justification: JUSTIFICATION.to_owned(),
            links: Vec::new(),
            policy_hints: None,
        };
        let commitments = Commitments::unsalted(&params);
        let issued = Issued { id, token_hash: Digest::of(b"token"), commitments, at };
        let directory = Directory::default();
        let submission = submission(policy, &ask, issued, None, &directory);
        let memos = policy.admit(id, &submission, &params, |_| None);
        let memos = memos.map_err(|refused| anyhow::anyhow!("not admitted: {refused:?}"))?;
        let mut request = lifecycle::draft(id, submission, memos);
        let mut event = |by: Option<&str>, act| {
            let seq = u32::try_from(request.history.len())?;
            let at = at.plus(u64::from(seq) * 1000);
            let by = by.map(|by| policy.entry().actor(by, &directory, at));
            let event = Event { seq, at, by, act };
            request.history.push(event);
            anyhow::Ok(())
        };
        let approve = || lifecycle::Act::Approve { edits: Vec::new() };
        event(None, lifecycle::Act::Submitted)?;
        for by in case.approved {
            event(Some(by), approve())?;
        }
        let act = match case.act {
            Act::Approve => approve(),
            Act::Deny => lifecycle::Act::Deny { reason: None },
        };
        event(Some(case.by), act)?;
        let event = request.history.pop().context("the vote is the last event")?;
        self.input = Some((request, event));
        Ok(())
    }

    fn judge(&mut self) -> Result<Answer> {
        let policy = self.set.action(ACTION).context("the set has no such action")?;
        let (request, event) = self.input.as_ref().context("there is no case")?;
        let verdicts = policy.judge(request, event);
        match verdicts.as_slice() {
            [Verdict::Ruled(Ruling { grants: true, standing: Standing::Waiting(_), .. })] => {
                Ok(Answer::Waiting)
            }
            [Verdict::Ruled(Ruling { grants: true, standing: Standing::Satisfied, .. })] => {
                Ok(Answer::Satisfied)
            }
            [Verdict::Ruled(Ruling { grants: true, standing: Standing::Denied(_), .. })] => {
                Ok(Answer::Denied)
            }
            [Verdict::Ruled(Ruling { grants: false, standing: Standing::Waiting(_), .. })] => {
                Ok(Answer::NoSay)
            }
            [Verdict::Refused(reasons)] => match reasons.as_slice() {
                [reason] => Answer::named(&reason.code),
                _ => bail!("{reasons:?}"),
            },
            _ => bail!("{verdicts:?}"),
        }
    }
}

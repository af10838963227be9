//! Cedar: the rule as policies whose ids are the answers. A vote is a question, and the request is its resource, with
//! everybody who has approved as an attribute: Cedar cannot walk over events.

use std::collections::BTreeSet;
use std::str::FromStr as _;

use anyhow::{Context as _, Result, bail};
use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityUid, PolicyId, PolicySet, Request, Response,
};
use serde_json::{Value, json};

use crate::case::{Act, Answer, Case, SUBMITTED_AT, meta, params};
use crate::engine::Judge;

const RULE: &str = include_str!("rule/quorum.cedar");

/// Entities and question are ready before the call.
pub(crate) struct Ready {
    rule: Rule,
    input: Option<(Request, Entities)>,
}

/// Entities and question are read from JSON in each call.
pub(crate) struct FromJson {
    rule: Rule,
    input: Input,
}

impl Ready {
    pub(crate) fn prepare() -> Result<Ready> {
        Ok(Ready { rule: Rule::prepare()?, input: None })
    }
}

impl Judge for Ready {
    fn take(&mut self, case: &Case) -> Result<()> {
        self.input = Some(read(&input(case))?);
        Ok(())
    }

    fn judge(&mut self) -> Result<Answer> {
        let (question, entities) = self.input.as_ref().context("there is no case")?;
        self.rule.answer(question, entities)
    }
}

impl FromJson {
    pub(crate) fn prepare() -> Result<FromJson> {
        Ok(FromJson { rule: Rule::prepare()?, input: Input::default() })
    }
}

impl Judge for FromJson {
    fn take(&mut self, case: &Case) -> Result<()> {
        self.input = input(case);
        Ok(())
    }

    fn judge(&mut self) -> Result<Answer> {
        let (question, entities) = read(&self.input)?;
        self.rule.answer(&question, &entities)
    }
}

struct Rule {
    authorizer: Authorizer,
    policies: PolicySet,
}

impl Rule {
    /// Parses the policies, each under the id of its annotation.
    fn prepare() -> Result<Rule> {
        let mut policies = PolicySet::new();
        for policy in PolicySet::from_str(RULE)?.policies() {
            let id = policy.annotation("id").context("a policy without an id")?;
            policies.add(policy.new_id(PolicyId::new(id)))?;
        }
        Ok(Rule { authorizer: Authorizer::new(), policies })
    }

    fn answer(&self, question: &Request, entities: &Entities) -> Result<Answer> {
        let response = self.authorizer.is_authorized(question, &self.policies, entities);
        answer(&response)
    }
}

/// The answer is the policy that decided. One that is satisfied would be waiting, too; without any, nobody has a say.
fn answer(response: &Response) -> Result<Answer> {
    if let Some(error) = response.diagnostics().errors().next() {
        bail!("{error}");
    }
    let decided = || response.diagnostics().reason().map(AsRef::<str>::as_ref);
    if decided().any(|id| id == "satisfied") {
        return Ok(Answer::Satisfied);
    }
    match (decided().next(), response.decision()) {
        (Some(id), _) => Answer::named(id),
        (None, Decision::Deny) => Ok(Answer::NoSay),
        (None, Decision::Allow) => bail!("allowed by no policy"),
    }
}

/// JSON, as a caller sends it.
#[derive(Default)]
struct Input {
    question: String,
    entities: String,
}

fn read(input: &Input) -> Result<(Request, Entities)> {
    let mut question: Value = serde_json::from_str(&input.question)?;
    let mut part = |name: &str| question.get_mut(name).map(Value::take).context("a part is missing");
    let question = Request::new(
        EntityUid::from_json(part("principal")?)?,
        EntityUid::from_json(part("action")?)?,
        EntityUid::from_json(part("resource")?)?,
        Context::from_json_value(part("context")?, None)?,
        None,
    )?;
    Ok((question, Entities::from_json_str(&input.entities, None)?))
}

fn input(case: &Case) -> Input {
    let user = |id: &str| json!({ "__entity": { "type": "User", "id": id } });
    let approved: BTreeSet<&str> = case.approved.iter().copied().collect();
    let resource = json!({ "type": "Request", "id": "req_1" });
    let entities = json!([{
        "uid": resource,
        "attrs": {
            "action": "deploy",
            "requester": user(case.requester),
            "approved": approved.into_iter().map(user).collect::<Vec<_>>(),
            "params": params(),
            "meta": meta(case.requester),
            "submitted_at": SUBMITTED_AT,
        },
        "parents": [],
    }]);
    let act = match case.act {
        Act::Approve => "approve",
        Act::Deny => "deny",
    };
    let question = json!({
        "principal": { "type": "User", "id": case.by },
        "action": { "type": "Action", "id": act },
        "resource": resource,
        "context": {},
    });
    Input { question: question.to_string(), entities: entities.to_string() }
}

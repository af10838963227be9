//! regorus: the rule in Rego, interpreted, and compiled to its virtual machine's code. The input is parsed from JSON for
//! each call.

use anyhow::Result;
use regorus::languages::rego::compiler::Compiler;
use regorus::rvm::RegoVM;
use regorus::{Engine, Value};
use serde_json::json;

use crate::case::{Act, Answer, Case, SUBMITTED_AT, meta, params};
use crate::engine::Judge;

const RULE: &str = include_str!("rule/quorum.rego");
const ANSWER: &str = "data.quorum.answer";

pub(crate) struct Interpreted {
    engine: Engine,
    input: String,
}

impl Interpreted {
    pub(crate) fn prepare() -> Result<Interpreted> {
        Ok(Interpreted { engine: engine()?, input: String::new() })
    }
}

impl Judge for Interpreted {
    fn take(&mut self, case: &Case) -> Result<()> {
        self.input = input(case);
        Ok(())
    }

    fn judge(&mut self) -> Result<Answer> {
        self.engine.set_input_json(&self.input)?;
        Answer::named(self.engine.eval_rule(ANSWER.to_owned())?.as_string()?)
    }
}

pub(crate) struct Compiled {
    machine: RegoVM,
    input: String,
}

impl Compiled {
    pub(crate) fn prepare() -> Result<Compiled> {
        let policy = engine()?.compile_with_entrypoint(&ANSWER.into())?;
        let mut machine = RegoVM::new();
        machine.load_program(Compiler::compile_from_policy(&policy, &[ANSWER])?);
        Ok(Compiled { machine, input: String::new() })
    }
}

impl Judge for Compiled {
    fn take(&mut self, case: &Case) -> Result<()> {
        self.input = input(case);
        Ok(())
    }

    fn judge(&mut self) -> Result<Answer> {
        self.machine.set_input(Value::from_json_str(&self.input)?);
        Answer::named(self.machine.execute()?.as_string()?)
    }
}

fn engine() -> Result<Engine> {
    let mut engine = Engine::new();
    engine.add_policy("quorum.rego".to_owned(), RULE.to_owned())?;
    Ok(engine)
}

fn input(case: &Case) -> String {
    let event = |seq: usize, by: &str, act: Act| {
        let act = match act {
            Act::Approve => "approve",
            Act::Deny => "deny",
        };
        json!({ "seq": seq, "at": SUBMITTED_AT, "by": by, "act": act })
    };
    let mut history = vec![json!({ "seq": 0, "at": SUBMITTED_AT, "act": "submitted" })];
    for by in case.approved {
        history.push(event(history.len(), by, Act::Approve));
    }
    let event = event(history.len(), case.by, case.act);
    let request = json!({
        "id": "req_1",
        "action": "deploy",
        "requester": case.requester,
        "params": params(),
        "meta": meta(case.requester),
        "submitted_at": SUBMITTED_AT,
    });
    json!({ "request": request, "history": history, "event": event }).to_string()
}

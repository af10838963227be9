//! The engines that are compared.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::case::{Answer, CASES, Case};
use crate::countersign::Countersign;
use crate::{cedar, rego};

/// In the order of the report; the others are compared with the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    Countersign,
    RegorusInterpreted,
    RegorusCompiled,
    CedarFromJson,
    CedarReady,
}

/// An engine with the rule loaded.
pub(crate) trait Judge {
    /// Sets what is judged from now on, as far as that is no part of a call.
    fn take(&mut self, case: &Case) -> Result<()>;

    /// One call.
    fn judge(&mut self) -> Result<Answer>;
}

impl Engine {
    /// What the report calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Engine::Countersign => "Countersign: a new sandbox for each call",
            Engine::RegorusInterpreted => "regorus, interpreted; input from JSON",
            Engine::RegorusCompiled => "regorus, compiled (RVM); input from JSON",
            Engine::CedarFromJson => "Cedar; request and entities from JSON",
            Engine::CedarReady => "Cedar; request and entities ready",
        }
    }

    /// Loads the rule. `module` is the policy for Countersign, which keeps its compiled code in `cache`.
    pub(crate) fn prepare(self, module: &Path, cache: &Path) -> Result<Box<dyn Judge>> {
        let prepared: Result<Box<dyn Judge>> = match self {
            Engine::Countersign => Countersign::prepare(module, cache).map(boxed),
            Engine::RegorusInterpreted => rego::Interpreted::prepare().map(boxed),
            Engine::RegorusCompiled => rego::Compiled::prepare().map(boxed),
            Engine::CedarFromJson => cedar::FromJson::prepare().map(boxed),
            Engine::CedarReady => cedar::Ready::prepare().map(boxed),
        };
        prepared.with_context(|| format!("cannot prepare {self:?}"))
    }

    /// Makes sure that it answers every case as it must.
    pub(crate) fn check(self, judge: &mut dyn Judge) -> Result<()> {
        for case in CASES {
            judge.take(case)?;
            let answer = judge.judge().with_context(|| format!("{self:?}, {}", case.name))?;
            ensure!(
                answer == case.answer,
                "{self:?}, {}: {answer:?}, but it should be {:?}",
                case.name,
                case.answer
            );
        }
        Ok(())
    }
}

fn boxed<J: Judge + 'static>(judge: J) -> Box<dyn Judge> {
    Box::new(judge)
}

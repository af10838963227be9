//! From a typed policy to the contract: reads what the gateway sends, and writes what it answers.
//! The only place where the generated types meet the typed ones; whatever cannot be read becomes a reason, never a panic.

use std::marker::PhantomData;

use crate::{
    Act, Actor, Context, Edit, Event, INVALID_CONFIG, INVALID_EVENT, INVALID_MEMO, Instant, Json, Known,
    Policy, Reason, Request, Requirement, RequirementKind, Ruling, Standing,
    bindings::exports::countersign::policy::policy as wire, policy::SDK_REASONS,
};

/// Makes the crate's WebAssembly module of a [`Policy`]. Native builds ignore it, so that `cargo test` works.
///
/// Say it once, in a crate of type `cdylib` (and `rlib`, for its own tests); see the [crate's
/// example](crate#a-whole-policy).
#[macro_export]
macro_rules! export_policy {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Exported = $crate::Exported<$policy>;
    $crate::bindings::export!(Exported with_types_in $crate::bindings);
        };
    };
}

/// The contract's view of the policy `P`.
#[derive(Debug)]
pub struct Exported<P>(PhantomData<P>);

impl<P: Policy> wire::Guest for Exported<P> {
    fn describe() -> wire::Descriptor {
        let document =
            |doc: &crate::ReasonDoc| wire::ReasonDoc { code: doc.code.to_owned(), help: doc.help.to_owned() };
        wire::Descriptor {
            name: P::NAME.to_owned(),
            version: P::VERSION.to_owned(),
            summary: P::SUMMARY.to_owned(),
            config_schema: P::CONFIG_SCHEMA.to_owned(),
            reasons: P::REASONS.iter().chain(SDK_REASONS).map(document).collect(),
        }
    }

    fn check_config(config: String) -> Vec<wire::Reason> {
        let reasons = match read_config::<P>(&config) {
            Ok(config) => P::check(&config),
            Err(reasons) => reasons,
        };
        write_reasons(reasons)
    }

    fn admit(config: String, request: wire::Request) -> Result<String, Vec<wire::Reason>> {
        let memo = read_config::<P>(&config).and_then(|config| {
            let memo = P::admit(&config, &read_request(request))?;
            serde_json::to_string(&memo).map_err(|error| Reason::new(INVALID_MEMO, error.to_string()).into())
        });
        memo.map_err(write_reasons)
    }

    fn judge(context: wire::Context) -> Result<wire::Ruling, Vec<wire::Reason>> {
        let ruling = read_context::<P>(context).and_then(|context| P::judge(&context));
        ruling.map(write_ruling).map_err(write_reasons)
    }
}

fn read_config<P: Policy>(text: &str) -> Result<P::Config, Vec<Reason>> {
    serde_json::from_str(text).map_err(|error| Reason::new(INVALID_CONFIG, error.to_string()).into())
}

fn read_context<P: Policy>(context: wire::Context) -> Result<Context<P>, Vec<Reason>> {
    Ok(Context {
        config: read_config::<P>(&context.config)?,
        memo: serde_json::from_str(&context.memo)
            .map_err(|error| Reason::new(INVALID_MEMO, error.to_string()))?,
        request: read_request(context.request),
        event: read_event(context.event)?,
        accepted: context.history.into_iter().map(read_event).collect::<Result<_, _>>()?,
    })
}

fn read_request(request: wire::Request) -> Request {
    Request {
        id: request.id,
        action: request.action,
        requester: read_actor(request.requester),
        owners: request.owners,
        rerequested_by: request.rerequested_by.map(read_actor),
        params: Json::from_text(request.params),
        meta: Json::from_text(request.meta),
        submitted_at: Instant::from_millis(request.submitted_at),
        expires_at: Instant::from_millis(request.expires_at),
        lineage_depth: request.lineage_depth,
    }
}

fn read_actor(actor: wire::Actor) -> Actor {
    let known = match actor.known {
        wire::Known::Person => Known::Person,
        wire::Known::Machine => Known::Machine,
        wire::Known::Unknown => Known::Unknown,
    };
    Actor { id: actor.id, groups: actor.groups, known, authenticated: actor.authenticated }
}

fn read_event(event: wire::Event) -> Result<Event, Reason> {
    let by = event
        .by
        .map(read_actor)
        .ok_or_else(|| Reason::new(INVALID_EVENT, "an act of a person lacks its actor"));
    let act = match event.act {
        wire::Act::Submitted => Act::Submitted,
        wire::Act::Acknowledge(persona) => Act::Acknowledge { by: by?, persona },
        wire::Act::Approve(edits) => {
            Act::Approve { by: by?, edits: edits.into_iter().map(read_edit).collect() }
        }
        wire::Act::Deny(message) => Act::Deny { by: by?, message },
        wire::Act::Withdraw => Act::Withdraw { by: by? },
        wire::Act::Escalated => Act::Escalated,
        wire::Act::Tick => Act::Tick,
    };
    Ok(Event { seq: event.seq, at: Instant::from_millis(event.at), act })
}

fn read_edit(edit: wire::Edit) -> Edit {
    Edit {
        key: edit.key,
        before: edit.before.map(Json::from_text),
        after: edit.after.map(Json::from_text),
        violations: edit.violations,
    }
}

fn write_ruling(ruling: Ruling) -> wire::Ruling {
    let standing = match ruling.standing {
        Standing::Satisfied => wire::Standing::Satisfied,
        Standing::Waiting(requirements) => {
            wire::Standing::Waiting(requirements.into_iter().map(write_requirement).collect())
        }
        Standing::Denied(reason) => wire::Standing::Denied(write_reason(reason)),
    };
    wire::Ruling {
        grants: ruling.grants,
        standing,
        editable: ruling.editable,
        wake_at: ruling.wake_at.map(Instant::millis),
    }
}

fn write_requirement(requirement: Requirement) -> wire::Requirement {
    let kind = match requirement.kind {
        RequirementKind::Approval => wire::RequirementKind::Approval,
        RequirementKind::Acknowledgement => wire::RequirementKind::Acknowledgement,
        RequirementKind::Time => wire::RequirementKind::Time,
    };
    wire::Requirement {
        kind,
        label: requirement.label,
        have: requirement.have,
        need: requirement.need,
        eligible: requirement.eligible,
        excluded: requirement.excluded,
    }
}

fn write_reasons(reasons: Vec<Reason>) -> Vec<wire::Reason> {
    reasons.into_iter().map(write_reason).collect()
}

fn write_reason(reason: Reason) -> wire::Reason {
    wire::Reason { code: reason.code.to_owned(), message: reason.message, path: reason.path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReasonDoc;
    use wire::Guest as _;

    /// Wants a number as configuration, and remembers it as text.
    struct Echo;

    impl Policy for Echo {
        type Config = u32;
        type Memo = String;
        const NAME: &'static str = "echo";
        const VERSION: &'static str = "0.1.0";
        const SUMMARY: &'static str = "Remembers its configuration.";
        const CONFIG_SCHEMA: &'static str = r#"{"type":"integer"}"#;
        const REASONS: &'static [ReasonDoc] = &[ReasonDoc { code: "own", help: "Its own." }];

        fn admit(config: &u32, _: &Request) -> Result<String, Vec<Reason>> {
            Ok(config.to_string())
        }

        fn judge(context: &Context<Self>) -> Result<Ruling, Vec<Reason>> {
            Ok(Ruling::waiting([Requirement::time(context.memo.clone())])
                .granting()
                .editable(["k"])
                .wake_at(context.request.expires_at))
        }
    }

    fn request() -> wire::Request {
        wire::Request {
            id: "r".into(),
            action: "a".into(),
            requester: actor(),
            owners: Vec::new(),
            rerequested_by: None,
            params: "not even JSON".into(),
            meta: String::new(),
            submitted_at: 1,
            expires_at: 2,
            lineage_depth: 0,
        }
    }

    fn actor() -> wire::Actor {
        wire::Actor { id: "U1".into(), groups: Vec::new(), known: wire::Known::Person, authenticated: true }
    }

    fn event(by: Option<wire::Actor>, act: wire::Act) -> wire::Event {
        wire::Event { seq: 0, at: 0, by, act }
    }

    fn context(config: &str, memo: &str, history: Vec<wire::Event>, event: wire::Event) -> wire::Context {
        wire::Context { config: config.into(), memo: memo.into(), request: request(), history, event }
    }

    fn codes<T: std::fmt::Debug>(judged: Result<T, Vec<wire::Reason>>) -> Vec<String> {
        judged.expect_err("a refusal").into_iter().map(|reason| reason.code).collect()
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_never_a_panic() {
        let tick = || event(None, wire::Act::Tick);
        for (context, code) in [
            (context("", r#""7""#, vec![], tick()), INVALID_CONFIG),
            (context(r#""seven""#, r#""7""#, vec![], tick()), INVALID_CONFIG),
            (context("7", "7", vec![], tick()), INVALID_MEMO),
            (context("7", "{", vec![], tick()), INVALID_MEMO),
            (context("7", r#""7""#, vec![], event(None, wire::Act::Approve(vec![]))), INVALID_EVENT),
            (context("7", r#""7""#, vec![event(None, wire::Act::Withdraw)], tick()), INVALID_EVENT),
        ] {
            assert_eq!(codes(Exported::<Echo>::judge(context)), [code]);
        }
        assert_eq!(codes(Exported::<Echo>::admit("{}".into(), request())), [INVALID_CONFIG]);
        assert_eq!(Exported::<Echo>::check_config("-1".into()).len(), 1);
    }

    #[test]
    fn a_deeply_nested_configuration_is_refused() {
        let nested = "[".repeat(100_000);
        assert_eq!(codes(Exported::<Echo>::admit(nested, request())), [INVALID_CONFIG]);
    }

    #[test]
    fn config_memo_and_ruling_go_through_as_text() {
        assert_eq!(Exported::<Echo>::admit("7".into(), request()).expect("an admission"), r#""7""#);
        assert!(Exported::<Echo>::check_config("7".into()).is_empty());
        let context = context("7", r#""7""#, vec![], event(Some(actor()), wire::Act::Approve(vec![])));
        let ruling = Exported::<Echo>::judge(context).expect("a ruling");
        assert_eq!((ruling.grants, ruling.editable, ruling.wake_at), (true, vec!["k".to_owned()], Some(2)));
        let wire::Standing::Waiting(wanted) = ruling.standing else { panic!("{:?}", ruling.standing) };
        assert!(matches!(wanted.as_slice(), [wanted] if wanted.label == "7"));
    }

    #[test]
    fn the_descriptor_documents_the_sdk_s_reasons_too() {
        let codes: Vec<_> = Exported::<Echo>::describe().reasons.into_iter().map(|doc| doc.code).collect();
        assert_eq!(codes, ["own", INVALID_CONFIG, INVALID_MEMO, INVALID_EVENT]);
    }
}

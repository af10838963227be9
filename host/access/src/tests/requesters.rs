//! In whose name callers ask.

use std::sync::Arc;

use countersign_core::lifecycle::Party;

use super::*;

const FILE: &str = r#"
version: 1
issuers: { github: { issuer: https://token.actions.githubusercontent.com, audience: countersign } }
callers:
  job:
    oidc: { issuer: github, claims: { repository_id: "4711" } }
    requester: { source: github, id: "{actor}" }
    actions: "*"
  nightly: { keys: [{ sha256: 51d0000000000000000000000000000000000000000000000000000000000000 }], requester: machine, owners: dana, actions: "*" }
  portal: { keys: [{ sha256: 51d0000000000000000000000000000000000000000000000000000000000001 }], requester: asserted, actions: "*" }
people:
  dana: { slack: U0DANA, github: dana-d }
"#;

fn party(source: &str, id: &str) -> Option<Party> {
    Some(Party { id: id.to_owned(), source: source.to_owned(), display: None })
}

fn ask(
    caller: &str,
    actor: Option<&str>,
    asserted: Option<Party>,
) -> Result<(String, bool, bool), RequesterError> {
    let access = read(FILE);
    let claims = actor.map(|actor| Arc::new(object(json!({"actor": actor}))));
    let identified = Identified { caller: Arc::clone(access.caller(caller).unwrap()), claims };
    let requester = identified.requester(asserted, access.people())?;
    Ok((requester.name, requester.machine, requester.authenticated))
}

#[test]
fn claims_take_the_place_of_what_is_asserted() {
    let expected = || Ok(("github:dana-d".to_owned(), false, true));
    assert_eq!(ask("job", Some("dana-d"), None), expected());
    assert_eq!(ask("job", Some("dana-d"), party("github", "dana-d")), expected());
    // Another name of the same person.
    assert_eq!(ask("job", Some("dana-d"), party("slack", "U0DANA")), expected());
    for other in [party("github", "rita"), party("slack", "U0RITA"), party("github", "Dana-d")] {
        assert!(matches!(ask("job", Some("dana-d"), other), Err(RequesterError::Mismatch { .. })));
    }
    // Two strangers are not one person because nobody knows either.
    assert!(matches!(ask("job", Some("eve"), party("slack", "U0EVE")), Err(RequesterError::Mismatch { .. })));
    assert_eq!(ask("job", None, party("github", "dana-d")), Err(RequesterError::Claim));
}

/// Whoever approves takes what stands beside a proven name for proven.
#[test]
fn nobody_chooses_how_a_proven_requester_is_called() {
    let access = read(FILE);
    let called = |caller: &str, actor: Option<&str>, display: Option<&str>| {
        let claims = actor.map(|actor| Arc::new(object(json!({"actor": actor}))));
        let identified = Identified { caller: Arc::clone(access.caller(caller).unwrap()), claims };
        let display = display.map(str::to_owned);
        let asserted = Party { display, ..party("github", actor.unwrap_or("eve")).unwrap() };
        identified.requester(Some(asserted), access.people()).unwrap().party.display
    };
    for display in [None, Some("Dana Diaz (U0DANA)")] {
        assert_eq!(called("job", Some("eve"), display), None);
        assert_eq!(called("job", Some("dana-d"), display).as_deref(), Some("dana"));
        assert_eq!(called("nightly", None, display), None);
        // All of it is as the caller says.
        assert_eq!(called("portal", None, display).as_deref(), display);
    }
}

#[test]
fn a_machine_is_itself_whatever_is_asserted() {
    let expected = || Ok(("machine:nightly".to_owned(), true, true));
    assert_eq!(ask("nightly", None, None), expected());
    assert_eq!(ask("nightly", None, party("slack", "U0DANA")), expected());
}

#[test]
fn what_is_asserted_is_marked_so_and_must_have_its_form() {
    assert_eq!(ask("portal", None, party("slack", "U0EVE")), Ok(("U0EVE".to_owned(), false, false)));
    assert_eq!(ask("portal", None, party("github", "eve")), Ok(("github:eve".to_owned(), false, false)));
    assert_eq!(ask("portal", None, None), Err(RequesterError::Missing));
    for (source, id) in
        [("slack", "u0dana"), ("slack", "U0DANA "), ("github", " eve"), ("machine", "nightly"), ("", "x")]
    {
        let error = ask("portal", None, party(source, id));
        assert!(matches!(error, Err(RequesterError::Malformed(_))), "{source} {id}: {error:?}");
    }
}

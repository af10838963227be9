//! What is no fault of a policy set, and whoever wrote it may not want.

use countersign_core::directory::{Directory, Members, Presence};
use countersign_core::people::{People, Person};

use super::sets::Folder;
use super::*;

/// Dana has a Slack id, and the bot has none; `S0TEAM` has two members.
fn directory() -> Directory {
    let mut people = People::default();
    for (name, aliases) in [("dana", &["U0DANA", "github:dana-d"][..]), ("bot", &["github:bot"])] {
        let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        people.add(Person { name: name.to_owned(), aliases }).unwrap();
    }
    let directory = Directory::default();
    directory.set_people(Arc::new(people));
    directory.put("S0TEAM", Members { ids: ["U1", "U0DANA"].map(str::to_owned).into(), as_of: SUBMITTED_AT });
    directory.put("S0EMPTY", Members { ids: Default::default(), as_of: SUBMITTED_AT });
    directory.put_user("U0GONE", Presence { gone: true, as_of: SUBMITTED_AT });
    directory
}

/// The warnings of a set with these groups, and an action `deploy` with these members, which shows its parameters.
#[track_caller]
fn check(groups: &str, action: &str, expected: &[&str]) {
    let redact = if action.contains("redact:") { "" } else { "redact: { hide: [] }, " };
    check_exactly(groups, &format!("{redact}{action}"), expected);
}

#[track_caller]
fn check_exactly(groups: &str, action: &str, expected: &[&str]) {
    check_with("channel: C0DEPLOYS", groups, action, expected);
}

#[track_caller]
fn check_with(defaults: &str, groups: &str, action: &str, expected: &[&str]) {
    let text = format!(
        "version: 1\nmodules: {{ quorum: \"{{quorum}}\", persona-gate: \"{{persona-gate}}\", \
         override-guard: \"{{override-guard}}\", misbehaving: \"{{misbehaving}}\" }}\n\
         groups: {{ {groups} }}\ndefaults: {{ {defaults} }}\nactions:\n  deploy: {{ {action} }}\n"
    );
    let set = Folder::new(&text).load(&engine()).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    let warnings = set.warnings(&directory(), SUBMITTED_AT);
    let same = |(warning, expected): (&String, &&str)| warning.starts_with(expected);
    assert!(
        warnings.len() == expected.len() && warnings.iter().zip(expected).all(same),
        "{groups} {action}\nexpected: {expected:#?}\nseen: {warnings:#?}"
    );
}

fn quorum(approvers: &str, approvals: u32) -> String {
    format!("policies: [{{ use: quorum, with: {{ approvers: [{approvers}], approvals: {approvals} }} }}]")
}

#[test]
fn what_works_is_not_warned_of() {
    for (groups, approvers, approvals) in [
        ("", "U1", 1),
        ("", "U1, W2", 2),
        ("team: [U1, U2]", "\"@team\"", 2),
        ("team: [dana]", "\"@team\", U0RITA", 2),
        ("", "dana, \"github:dana-d\", U1", 2),
        ("team: [S0TEAM]", "\"@team\"", 2),
        // Who is in that user group is not known yet.
        ("team: [S0OTHER]", "\"@team\"", 5),
    ] {
        check(groups, &quorum(approvers, approvals), &[]);
    }
    check(
        "security: [U3], team: [U1, U2]",
        "escalate: { before: 1m, mention: \"@team\" }, rerequest: { by: [requester, \"@team\", dana] }, policies: [ \
         { use: persona-gate, with: { personas: { security: [\"@security\"] } } }, \
         { use: quorum, with: { approvers: [\"@team\"], approvals: 2 } }]",
        &[],
    );
}

#[test]
fn an_action_that_was_not_tried() {
    let refusing = "policies: [{ use: misbehaving, with: { do: refuse, requester: U0SYNTHETIC } }]";
    let why = "the action `deploy` was not tried, because its policies do not admit a synthetic request: not for them";
    check("", refusing, &[why]);
}

#[test]
fn actions_that_show_approvers_nothing() {
    let nothing = "the action `deploy` shows approvers no parameters: `redact` is missing";
    for (redact, expected) in [
        ("", &[nothing][..]),
        ("redact: { show: [] }, ", &[nothing]),
        ("redact: { show: [ref] }, ", &[]),
        ("redact: { hide: [token] }, ", &[]),
    ] {
        check_exactly("", &format!("{redact}{}", quorum("U1", 1)), expected);
    }
}

/// `hide: [db.password]` hides nothing.
#[test]
fn parameters_that_are_no_top_level_keys() {
    for key in ["db.password", "/db/password", "password, token", "db password", "a\\tb"] {
        for (redact, does) in [("hide", "hides"), ("show", "shows")] {
            let warned =
                format!("the action `deploy` {does} the parameter `{key}`: parameters are named by their");
            check_exactly(
                "",
                &format!("redact: {{ {redact}: [\"{key}\"] }}, {}", quorum("U1", 1)),
                &[&warned],
            );
        }
        let warned = format!("the action `deploy` supersedes by the parameter `{key}`: parameters");
        check("", &format!("supersede: [\"{key}\"], {}", quorum("U1", 1)), &[&warned]);
    }
    check("", &format!("redact: {{ hide: [db_password, x-y] }}, {}", quorum("U1", 1)), &[]);
}

#[test]
fn approvers_whom_nobody_in_slack_can_be() {
    for name in ["bob", "alice@acme.example", "u0alice", "bot", "\"github:bot\"", "\"U0ALICE-2\""] {
        let plain = name.trim_matches('"');
        let asks = format!("the action `deploy` asks for `{plain}`, who can be nobody in Slack");
        check("", &quorum(&format!("{name}, U1"), 1), &[&asks]);
        let holds = format!("the group `team` holds `{plain}`, who can be nobody in Slack");
        check(&format!("team: [{name}, U1]"), &quorum("\"@team\"", 1), &[&holds]);
    }
    let other = "escalate: { before: 1m, mention: bob }, rerequest: { by: [carol] }";
    check(
        "",
        &format!("{other}, {}", quorum("U1", 1)),
        &["the action `deploy` mentions `bob`", "the action `deploy` lets requests be made again by `carol`"],
    );
}

#[test]
fn groups_without_anybody() {
    let nobody = "the action `deploy`: an approval is needed that nobody can give";
    for group in ["empty: []", "empty: [S0EMPTY]"] {
        let empty = "the group `empty` has no members";
        check(group, &quorum("\"@empty\"", 1), &[empty, nobody]);
        // Said even where it does no harm.
        check(group, &quorum("U1", 1), &[empty]);
    }
    check(
        "left: [U0GONE]",
        &quorum("\"@left\"", 1),
        &["the group `left` holds `U0GONE`, who has left", nobody],
    );
    check("", &quorum("U0GONE, U1", 1), &["the action `deploy` asks for `U0GONE`, who has left Slack"]);
}

#[test]
fn fewer_people_than_approvals() {
    let fewer = |names: &str, approvals: usize, people: usize| {
        format!(
            "the action `deploy`: {approvals} approvals are needed, which only {people} people can give: {names}; \
             only {}, if the requester is among them",
            people - 1
        )
    };
    check("g: [U1, U2]", &quorum("U1, \"@g\"", 3), &[&fewer("U1, U2", 3, 2)]);
    check("g: [S0TEAM], h: [U1]", &quorum("\"@g\", \"@h\"", 3), &[&fewer("U1, dana", 3, 2)]);
    // One person under three names.
    check(
        "",
        &quorum("dana, U0DANA, \"github:dana-d\"", 2),
        &[
            "the action `deploy`: 2 approvals are needed, which only one person can give: dana; nobody, if the requester is among them",
        ],
    );
    check(
        "",
        "escalate: { before: 1m }, policies: [{ use: quorum, with: { approvers: [\"@g\"], escalated_approvals: 3 } }]"
            .replace("\"@g\"", "U1, U2, U3")
            .as_str(),
        &[],
    );
    check(
        "g: [U1, U2]",
        "escalate: { before: 1m }, policies: [{ use: quorum, with: { approvers: [\"@g\"], escalated_approvals: 3 } }]",
        &[
            "the action `deploy`: once it is escalated, 3 approvals are needed, which only 2 people can give: U1, U2",
        ],
    );
}

/// Whoever may approve their own requests is counted in.
#[test]
fn a_requester_who_may_approve_is_one_of_the_people() {
    for (own, expected) in [
        ("true", "which only 2 people can give: U1, U2"),
        ("false", "which only 2 people can give: U1, U2; only 1, if the requester is among them"),
    ] {
        let text = format!(
            "version: 1\nmodules: {{ quorum: \"{{quorum}}\" }}\ngroups: {{ g: [U1, U2] }}\nactions:\n  deploy:\n    \
             policies: [{{ use: quorum, with: {{ approvers: [\"@g\"], approvals: 3, requester_may_approve: {own} }} }}]\n"
        );
        let set = Folder::new(&text).load(&engine()).unwrap_or_else(|errors| panic!("{errors}"));
        let warnings = set.warnings(&directory(), SUBMITTED_AT);
        assert!(warnings.iter().any(|warning| warning.ends_with(expected)), "{own}: {warnings:#?}");
    }
}

#[test]
fn actions_that_nobody_could_ever_approve() {
    check(
        "empty: [bob]",
        "policies: [{ use: persona-gate, with: { personas: { security: [\"@empty\"] } } }, \
         { use: quorum, with: { approvers: [U1] } }]",
        &["the group `empty` holds `bob`", "the action `deploy`: nobody can acknowledge `security`"],
    );
    // A gate that grants acknowledgements only, and a guard that grants nothing.
    let alone = "redact: { show: [ref] }, policies: [{ use: persona-gate, with: { personas: { security: [U1] } } }, \
                 { use: override-guard, with: { keys: [ref] } }]";
    check("", alone, &["the action `deploy`: acknowledgements are enough to approve a request"]);
    let granting_nobody = "policies: [{ use: misbehaving, with: { do: grant_nothing } }]";
    check("", granting_nobody, &["the action `deploy`: nobody could ever approve it"]);
    // A super-approver could, if a policy says so; this one does not.
    check("admins: [U0ADMIN]", granting_nobody, &["the action `deploy`: nobody could ever approve it"]);
    let guard = "redact: { show: [ref] }, unattended: true, policies: [{ use: override-guard, with: { keys: [ref] } }]";
    check("", guard, &[]);
}

/// By trial, whatever the policies are called.
#[test]
fn acknowledgements_that_approve_by_themselves() {
    let enough = "the action `deploy`: acknowledgements are enough to approve a request";
    let own =
        format!("{enough}, and whoever asks may give one themselves: put a policy that asks for approvals");
    let gate = |personas: &str| format!("use: persona-gate, with: {{ personas: {{ {personas} }} }}");
    let alone = |personas: &str| format!("policies: [{{ {} }}]", gate(personas));
    for personas in
        ["sec: [U0SEC]", "sec: [U0SEC], release: [U1, \"@team\"]", "sec: [dana]", "sec: [\"@team\"]"]
    {
        check("team: [S0TEAM]", &alone(personas), &[&own]);
        // Also if Slack was not asked yet who is in the group.
        check("team: [S0OTHER]", &alone(personas), &[&own]);
    }
    let two = format!("policies: [{{ {} }}, {{ {} }}]", gate("sec: [U0SEC]"), gate("release: [U1]"));
    check("", &two, &[&own]);
    let with_quorum = "{ use: quorum, with: { approvers: [U1], approvals: 1 } }";
    check("", &format!("policies: [{{ {} }}, {with_quorum}]", gate("sec: [U0SEC]")), &[]);
    check("", &quorum("U1", 1), &[]);
    // An action that approves by itself says so.
    let guard = "{ use: override-guard, with: { keys: [ref] } }";
    check("", &format!("redact: {{ show: [ref] }}, unattended: true, policies: [{guard}]"), &[]);
}

/// What is set for after the escalation is in vain without one.
#[test]
fn approvals_after_an_escalation_that_never_comes() {
    let policies = |more: &str| {
        format!("policies: [{{ use: quorum, with: {{ approvers: [U1, U2, U3], approvals: 1{more} }} }}]")
    };
    let never = "the action `deploy`: its policies ask for something else once a request is escalated, but none ever is";
    check("", &policies(", escalated_approvals: 3"), &[never]);
    check("", &policies(", escalated_approvals: 1"), &[]);
    check("", &policies(""), &[]);
    check("", &format!("escalate: {{ before: 1m }}, {}", policies(", escalated_approvals: 3")), &[]);
}

#[test]
fn names_that_are_nearly_groups() {
    let asks = "the action `deploy` asks for `managers`, who can be nobody in Slack: it is neither a Slack id (`U…` or \
                `W…`, in capitals) nor a name of somebody in `people` of the access file who has one; did you mean the group \
                `\"@managers\"`?";
    check("managers: [U1]", &quorum("managers, U2", 1), &[asks]);
    for (group, hint) in [("super-approver", true), ("super_approvers", true), ("approvers", false)] {
        let warning = format!(
            "the group `{group}` has no say unless a policy names it; did you mean `super-approvers`?"
        );
        let expected: &[&str] = if hint { &[&warning] } else { &[] };
        check(&format!("{group}: [U1]"), &quorum("U2", 1), expected);
        check(&format!("{group}: [U1], super-approvers: [U1]"), &quorum("U2", 1), &[]);
    }
}

/// Without the access file nobody can say that a name is nobody's.
#[test]
fn names_of_people_who_are_not_known() {
    let text = format!(
        "version: 1\nmodules: {{ quorum: \"{{quorum}}\" }}\ngroups: {{ g: [erik], h: [U1, S0TEAM] }}\n\
         defaults: {{ channel: C0 }}\nactions:\n  deploy: {{ redact: {{ hide: [] }}, rerequest: {{ by: [\"github:kim\"] }}, {} }}\n",
        quorum("dana, \"@g\"", 2)
    );
    let set = Folder::new(&text).load(&engine()).unwrap_or_else(|errors| panic!("{errors}"));
    let warnings = set.warnings(&Directory::without_people(), SUBMITTED_AT);
    let expected = [
        "the group `g` holds `erik`, which is no Slack id",
        "the action `deploy` asks for `dana`, which is no Slack id (`U…` or `W…`, in capitals), and only `people` of the \
         access file says who has this name: give it with `--access FILE`",
        "the action `deploy` lets requests be made again by `github:kim`, which is no Slack id",
    ];
    let same = |(warning, expected): (&String, &&str)| warning.starts_with(expected);
    assert!(warnings.len() == expected.len() && warnings.iter().zip(&expected).all(same), "{warnings:#?}");
    let policy = set.action("deploy").expect("it is there");
    let names = ["dana", "erik", "github:kim"].map(str::to_owned);
    assert_eq!(policy.unknown_people(&Directory::without_people(), SUBMITTED_AT), names.into());
    assert!(policy.unknown_people(&directory(), SUBMITTED_AT).is_empty());
}

#[test]
fn without_a_channel_nobody_is_told() {
    let nobody = "the action `deploy` has no channel, so nobody is told of its requests";
    let in_vain = format!("{nobody}, though it says `notify: true`");
    for (says, expected) in [
        ("", &[nobody][..]),
        ("notify: true, ", &[in_vain.as_str()]),
        ("notify: true, channel: C0DEPLOYS, ", &[]),
        ("channel: C0DEPLOYS, ", &[]),
    ] {
        let action = format!("redact: {{ hide: [] }}, {says}{}", quorum("U1", 1));
        check_with("timeout: 10m", "", &action, expected);
    }
}

#[test]
fn redaction_of_parameters_that_no_request_can_have() {
    let schema = r#"{ "type": "object", "properties": { "service": {}, "secret": {} }, "additionalProperties": false }"#;
    let warnings = |redact: &str| {
        let text = format!(
            "version: 1\nmodules: {{ quorum: \"{{quorum}}\" }}\ndefaults: {{ channel: C0DEPLOYS }}\n\
             actions:\n  deploy: {{ redact: {redact}, {} }}\n",
            quorum("U1", 1)
        );
        let set = Folder::new(&text).write("schemas/deploy.json", schema).load(&engine());
        set.unwrap_or_else(|errors| panic!("{errors}")).warnings(&directory(), SUBMITTED_AT)
    };
    assert_eq!(warnings("{ hide: [secret] }"), [""; 0]);
    assert_eq!(
        warnings("{ hide: [secert] }"),
        [
            "the action `deploy` hides the parameter `secert`, which its schema does not list; did you mean `secret`?"
        ]
    );
    assert_eq!(
        warnings("{ show: [service, ref] }"),
        ["the action `deploy` shows the parameter `ref`, which its schema does not list"]
    );
}

#[test]
fn a_set_that_shows_no_request_to_anybody() {
    let text = "version: 1\nmodules: { quorum: \"{quorum}\" }\nactions:\n  deploy: { redact: { hide: [] }, ACTION }\n  \
                rotate: { redact: { hide: [] }, ACTION }\n"
        .replace("ACTION", &quorum("U1", 1));
    let warnings =
        |text: &str| Folder::new(text).load(&engine()).unwrap().warnings(&directory(), SUBMITTED_AT);
    assert!(warnings(&text)[0].starts_with("no action has a channel"), "{:?}", warnings(&text));
    // What is approved at once is shown to nobody anyhow.
    let unattended = text.replacen("redact:", "unattended: true, redact:", 1);
    assert!(!warnings(&unattended)[0].starts_with("no action"), "{:?}", warnings(&unattended));
    let one = text.replacen("redact:", "channel: C0DEPLOYS, redact:", 1);
    assert!(warnings(&one).iter().all(|warning| !warning.starts_with("no action")), "{:?}", warnings(&one));
}

#[test]
fn a_schema_that_allows_anything() {
    let text =
        "version: 1\nmodules: { quorum: \"{quorum}\" }\ndefaults: { channel: C0DEPLOYS }\nactions:\n  \
                deploy: { redact: { hide: [] }, ACTION }\n"
            .replace("ACTION", &quorum("U1", 1));
    for (schema, is_warned_of) in [
        (r#"{ "type": "object", "title": "Parameters" }"#, true),
        ("{}", true),
        (r#"{ "type": ["object", "null"], "minProperties": 0, "required": [] }"#, true),
        (r#"{ "properties": {}, "additionalProperties": true }"#, true),
        (r#"{ "additionalProperties": { "title": "any" }, "propertyNames": {} }"#, true),
        (r#"{ "patternProperties": { "^x-": true } }"#, true),
        (r#"{ "allOf": [{}, { "type": "object" }] }"#, true),
        (r#"{ "anyOf": [{ "required": ["ref"] }, {}] }"#, true),
        (r#"{ "additionalProperties": false }"#, false),
        (r#"{ "additionalProperties": { "type": "object" } }"#, false),
        (r#"{ "patternProperties": { "^x-": { "type": "string" } } }"#, false),
        (r#"{ "allOf": [{}, { "required": ["ref"] }] }"#, false),
        (r#"{ "minProperties": 1 }"#, false),
        (r#"{ "not": {} }"#, false),
        (r#"{ "properties": { "ref": {} } }"#, false),
        (r#"{ "required": ["ref"] }"#, false),
    ] {
        let set = Folder::new(&text).write("schemas/deploy.json", schema).load(&engine()).unwrap();
        let warnings = set.warnings(&directory(), SUBMITTED_AT);
        let found = warnings
            .iter()
            .any(|warning| warning.starts_with("the schema of the action `deploy` allows any"));
        assert_eq!(found, is_warned_of, "{schema}: {warnings:?}");
    }
}

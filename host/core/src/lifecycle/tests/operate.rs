//! What an admin does to a request.

use super::*;

#[test]
fn an_admin_ends_what_is_open_whether_or_not_its_time_is_over() {
    let by = || AdminActor { name: "dana".into(), call: Map::from_iter([("address".into(), "::1".into())]) };
    let request = open();
    let late = request.submission.expires_at.plus(60_000);
    for at in [START.plus(60_000), late] {
        for (ending, status, how) in [
            (Ending::Cancelled, Status::Cancelled, "cancelled_by_admin"),
            (Ending::Expired, Status::Expired, "expired_by_admin"),
        ] {
            let end = AdminEnd { ending, by: by(), reason: Some("stuck".into()) };
            let step =
                Intent::End(end.clone()).ending(&request, at).expect("no policy is asked").expect("open");
            let ended = &step.request;
            assert_eq!((ended.status(), ended.version), (status, request.version + 1));
            assert_eq!((ended.ended_by_admin(), ended.reason()), (Some("dana"), Some("stuck")));
            let events: Vec<&str> = step.audit.iter().map(|entry| entry.event.as_str()).collect();
            assert_eq!(events, [how, status.as_str()]);
            assert!(step.audit.iter().all(|entry| entry.actor.as_deref() == Some("dana")));
            assert_eq!(step.audit[0].detail["address"], "::1");
            assert_eq!(ended.decision_entry().as_ref(), step.audit.last());
            assert!(step.effects.contains(&Effect::ShowRequest));
            // What is recorded is enough to do it again.
            let recorded = AdminEnd::recorded(&ended.state).expect("an admin has ended it");
            assert_eq!(request.end_by_admin(at, &recorded).expect("open").request, *ended);
            assert_eq!(ended.end_by_admin(at, &end), Err(Refusal::Ended(status)));
            assert_eq!(ended.show_again(at, &by()), Err(Refusal::Ended(status)));
        }
    }
    let cancelled = request.cancel(START.plus(1), Some("mine".into())).expect("it is open").request;
    assert_eq!((AdminEnd::recorded(&cancelled.state), cancelled.ended_by_admin()), (None, None));
}

#[test]
fn to_show_a_request_again_changes_its_version_alone() {
    let by = AdminActor { name: "dana".into(), call: Map::new() };
    let request = open();
    let step = request.show_again(START.plus(1), &by).expect("it is open");
    assert_eq!(step.request, Request { version: request.version + 1, ..request });
    assert_eq!(step.effects, [Effect::ShowRequest]);
    assert_eq!(
        (step.audit[0].event.as_str(), step.audit[0].actor.as_deref()),
        ("message_resent", Some("dana"))
    );
}

//! Acts that may be delivered more than once.

use super::*;

fn once(press: &str) -> Option<Once> {
    let identity = Digest::of(press.as_bytes());
    Some(Once { identity, at: START, until: START.plus(60 * MINUTE) })
}

#[tokio::test]
async fn an_act_counts_once_however_often_it_is_delivered() {
    let house = House::ready().await;
    let request = house.ask("double").await.request;
    let press = |name: &'static str| {
        let (gateway, id) = (&house.gateway, request.id);
        async move { gateway.act_on(id, "U1", &Intent::approve(), None, once(name)).await }
    };
    assert!(!house.gateway.has_counted(request.id, once("one").unwrap()).await.unwrap());
    // At the same instant: some find a conflict, and try again with the same nonce.
    let counted = join_all((0..20).map(|_| press("one"))).await;
    assert_eq!(counted.iter().filter(|counted| counted.is_ok()).count(), 1);
    assert!(house.gateway.has_counted(request.id, once("one").unwrap()).await.unwrap());
    let withdrawn = house.gateway.act_on(request.id, "U1", &Intent::Withdraw, None, once("two")).await;
    assert!(withdrawn.unwrap().approvers().is_empty());
    // It would count by itself, and another press does.
    assert!(matches!(press("one").await, Err(GatewayError::Repeated)));
    assert_eq!(press("three").await.unwrap().approvers(), ["U1"]);
    assert_eq!(house.events().await, ["created", "approval_recorded", "withdrawn", "approval_recorded"]);

    let house = house.restarted(ACTIONS).await;
    let again = house.gateway.act_on(request.id, "U1", &Intent::Withdraw, None, once("two")).await;
    assert!(matches!(again, Err(GatewayError::Repeated)), "{again:?}");
}

#[tokio::test]
async fn a_refused_act_is_audited_once_and_does_not_count_later() {
    let house = House::ready().await;
    let request = house.ask("personas").await.request;
    let approve = Intent::approve();
    let press = || house.gateway.act_on(request.id, "U1", &approve, None, once("too early"));
    for _ in 0..3 {
        assert!(matches!(press().await, Err(GatewayError::Refused(_))));
    }
    let check = house.gateway.check(request.id, "U1", &approve, None, once("too early")).await;
    assert!(matches!(check, Err(GatewayError::Refused(_))));
    let refused = Refusal::Unread;
    let refused = house.gateway.refuse(request.id, "U1", Intent::approve(), refused, once("too early")).await;
    assert!(matches!(refused, GatewayError::Refused(Refusal::Unread)));
    assert_eq!(house.events().await.len(), 2, "the request was made, and one press was refused");

    house.gateway.act(request.id, "U7", &acknowledged("security")).await.expect("counts");
    house.gateway.act(request.id, "U8", &acknowledged("release")).await.expect("counts");
    assert!(matches!(press().await, Err(GatewayError::Repeated)), "it was refused when it was pressed");
    assert!(!house.gateway.has_counted(request.id, once("too early").unwrap()).await.unwrap());
    house.gateway.act_on(request.id, "U1", &approve, None, once("in time")).await.expect("counts");
}

#[tokio::test]
async fn a_request_is_made_again_once_however_often_that_is_asked_for() {
    let house = House::ready().await;
    let first = house.ask("double").await.request;
    house.gateway.act(first.id, "U1", &Intent::Deny { reason: None }).await.expect("counts");
    house.clock.advance(5 * MINUTE);
    let again = || {
        let actor = Party { id: "U1".into(), source: "slack".into(), display: None };
        let again = Again { who: Who::of(&actor), party: actor };
        house.gateway.rerequest(first.id, again, None, MostOpen::default(), once("again"))
    };
    let made = join_all((0..10).map(|_| again())).await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1);
    assert!(house.gateway.has_counted(first.id, once("again").unwrap()).await.unwrap());
    let second = made.into_iter().find_map(Result::ok).unwrap().request;
    house.gateway.act(second.id, "U1", &Intent::Deny { reason: None }).await.expect("counts");
    house.clock.advance(5 * MINUTE);
    // It would be made again by now.
    assert!(matches!(again().await, Err(GatewayError::Repeated)));
    assert_eq!(house.gateway.store().lineage(first.id, 0, 10).await.unwrap().len(), 2);
}

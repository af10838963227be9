//! The gateway under measurement, and calls that were prepared so that they cost nothing to make.

use anyhow::Result;
use countersign_tests::{Ask, Authority, Gateway, Home, Name, Receipt};
use futures_util::future::try_join_all;

const ACTIONS: &str = "
  simple:
    description: One approver
    timeout: 24h
    redact: { hide: [password] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB, U0CAROL] }
  brief:
    description: Over soon
    timeout: 2s
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
  full:
    description: Personas, two approvers, and edits
    timeout: 24h
    redact: { hide: [password] }
    escalate: { before: 1h }
    policies:
      - use: persona-gate
        with: { personas: { security: [U0SEC], release: [\"@release-managers\"] } }
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB, U0CAROL], approvals: 2 }
      - use: override-guard
        with: { keys: [replicas], max_keys: 1, max_chars: 40 }
";

/// A gateway with nothing in it.
pub(crate) async fn gateway() -> Gateway {
    home().start().await
}

/// The same, over TLS. Its callers need client certificates, and have one.
pub(crate) async fn secured() -> Gateway {
    let authority = Authority::new();
    let client = authority.tls_client(Some(&authority.client(&[Name::Dns("bench.acme.example")])));
    let home = home()
        .with_tls(&authority.server(), client)
        .with_file("TLS_CA_FILE", "ca.pem")
        .with("REQUIRE_CLIENT_CERT", "true")
        .with("COUNTERSIGN_OPS_LISTEN", "127.0.0.1:0")
        .with("COUNTERSIGN_SLACK_LISTEN", "127.0.0.1:0");
    home.write("ca.pem", authority.pem().as_bytes());
    home.start().await
}

/// A place for one. Its log is off, as a developer's terminal is no part of the measurement. All load comes from one
/// address, which may have as many connections as a proxy.
pub(crate) fn home() -> Home {
    let home = Home::new(ACTIONS).with("COUNTERSIGN_TRUSTED_PROXIES", "127.0.0.1");
    home.with("COUNTERSIGN_LOG", "warn").without("COUNTERSIGN_POLICY_DEADLINE_MS")
}

/// Opens this many requests for `action`, on a few connections at once.
pub(crate) async fn open(gateway: &Gateway, action: &str, count: usize) -> Result<Vec<Receipt>> {
    const CONNECTIONS: usize = 32;
    let create = Ask::new(action).call().bytes();
    let shares = (0..CONNECTIONS).map(|n| (count + n) / CONNECTIONS);
    let work = shares.map(async |share| {
        let mut connection = gateway.try_connect().await?;
        let mut receipts = Vec::with_capacity(share);
        for _ in 0..share {
            let reply = connection.send_bytes(&create).await?;
            receipts.push(Receipt::read(reply).map_err(|problem| anyhow::anyhow!("{problem:?}"))?);
        }
        anyhow::Ok(receipts)
    });
    Ok(try_join_all(work).await?.into_iter().flatten().collect())
}

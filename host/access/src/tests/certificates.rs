//! Callers and admins who are recognised by client certificates.

use super::*;

/// A caller by URI, a caller by DNS names, and an admin.
const SOUND: &str = r#"version: 1
issuers: { acme: { issuer: https://id.acme.example, audience: countersign } }
callers:
  portal: { certificate: { uri: "spiffe://acme/portal" }, requester: asserted, actions: "*" }
  nightly: { certificate: { dns: [nightly.acme.example, cron.acme.example] }, requester: machine, actions: "*" }
admins:
  ada: { certificate: { uri: "spiffe://acme/ada" }, roles: read }
"#;

#[test]
fn a_name_is_compared_whole() {
    let authenticator = Authenticator::new(read(SOUND));
    let of = |name: CertificateName| match authenticator.certified(&name) {
        Ok(Holder::Caller(Identified { caller, claims: None })) => Ok(caller.name.clone()),
        Ok(Holder::Admin(admin)) => Ok(format!("admin {}", admin.name)),
        Ok(other) => panic!("{other:?}"),
        Err(why) => Err(why),
    };
    let uri = |name: &str| of(CertificateName::Uri(name.to_owned()));
    let dns = |name: &str| of(CertificateName::Dns(name.to_owned()));
    assert_eq!(uri("spiffe://acme/portal").as_deref(), Ok("portal"));
    assert_eq!(uri("spiffe://acme/ada").as_deref(), Ok("admin ada"));
    assert_eq!(dns("cron.acme.example").as_deref(), Ok("nightly"));
    for unknown in
        ["spiffe://acme/portal/", "spiffe://acme/porta", "spiffe://ACME/portal", "cron.acme.example"]
    {
        assert_eq!(uri(unknown), Err(Unauthenticated::UnknownCertificate), "{unknown}");
    }
    for unknown in ["spiffe://acme/portal", "CRON.acme.example", "x.cron.acme.example", "cron.acme.example."]
    {
        assert_eq!(dns(unknown), Err(Unauthenticated::UnknownCertificate), "{unknown}");
    }
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_with_its_place() {
    for (from, to, expected) in [
        ("{ uri: \"spiffe://acme/portal\" }", "{}", ":4:26: `certificate` has neither `uri` nor `dns`"),
        ("{ uri: \"spiffe://acme/portal\" }", "{ url: x }", "`certificate` has no field `url`; did you mean"),
        ("{ uri: \"spiffe://acme/portal\" }", "spiffe://acme/portal", "`certificate`"),
        ("spiffe://acme/portal", "acme/portal", "`acme/portal` is no URI"),
        ("spiffe://acme/portal", "spiffe://acme/*", "is no pattern"),
        ("spiffe://acme/portal", "spiffe://acme/é", "has other characters"),
        ("spiffe://acme/portal", "spiffe://acme/a b", "has other characters"),
        ("spiffe://acme/portal", "spiffe://acme/ada", ":7:30: the certificate `spiffe://acme/ada` is one of"),
        ("nightly.acme.example", "\"*.acme.example\"", "is no pattern"),
        ("nightly.acme.example", "\"https://acme.example\"", "is no DNS name"),
        ("nightly.acme.example", "cron.acme.example", "`cron.acme.example` is listed twice"),
        ("[nightly.acme.example, cron.acme.example]", "[]", "`dns` is an empty list"),
        (
            "requester: asserted",
            "oidc: { issuer: acme, claims: { team: web } }, requester: { source: github, id: \"{actor}\" }",
            "a certificate has no claims to make the requester from",
        ),
        (
            "certificate: { uri: \"spiffe://acme/ada\" }, ",
            "",
            "the admin `ada` has neither `keys` nor `oidc` nor `certificate`",
        ),
    ] {
        assert!(SOUND.contains(from), "{from}");
        let text = SOUND.replacen(from, to, 1);
        let errors = Access::read(Path::new("access.yaml"), &text).expect_err(to).to_string();
        assert!(errors.contains(expected), "{to}: {errors}");
    }
}

//! Credentials in files of Docker's format.

use std::fs;
use std::path::Path;

use super::super::credentials::Credential;
use super::*;

/// `user:hunter2`
const AUTH: &str = "dXNlcjpodW50ZXIy";

async fn look_up(file: &Path, of: &str) -> Result<Option<Credential>, RegistryError> {
    Credentials::file(file.to_owned()).with_helpers().of(&repository(of)).await
}

/// What is found, with the secret in it.
fn shown(credential: Option<Credential>) -> String {
    let text =
        |secret: &countersign_core::secret::Secret| String::from_utf8(secret.expose().to_vec()).unwrap();
    match credential {
        Some(Credential::Password { user, password }) => format!("{user}:{}", text(&password)),
        Some(Credential::IdentityToken(token)) => format!("token {}", text(&token)),
        None => "nothing".to_owned(),
    }
}

#[tokio::test]
async fn entries_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let entry = format!(r#"{{ "auth": "{AUTH}" }}"#);
    for (config, of, found) in [
        (format!(r#"{{ "auths": {{ "ghcr.io": {entry} }} }}"#), "ghcr.io/a", "user:hunter2"),
        (format!(r#"{{ "auths": {{ "https://ghcr.io/v1/": {entry} }} }}"#), "ghcr.io/a", "user:hunter2"),
        (format!(r#"{{ "auths": {{ "ghcr.io": {entry} }} }}"#), "quay.io/a", "nothing"),
        (format!(r#"{{ "auths": {{ "localhost:5000": {entry} }} }}"#), "localhost:5001/a", "nothing"),
        (format!(r#"{{ "auths": {{ "localhost:5000": {entry} }} }}"#), "localhost:5000/a", "user:hunter2"),
        (
            format!(r#"{{ "auths": {{ "https://index.docker.io/v1/": {entry} }} }}"#),
            "docker.io/acme/a",
            "user:hunter2",
        ),
        (
            r#"{ "auths": { "ghcr.io": { "username": "u", "password": "p:q" } } }"#.into(),
            "ghcr.io/a",
            "u:p:q",
        ),
        (r#"{ "auths": { "ghcr.io": { "identitytoken": "t" } } }"#.into(), "ghcr.io/a", "token t"),
        (r#"{ "auths": { "ghcr.io": {} } }"#.into(), "ghcr.io/a", "nothing"),
        ("{}".into(), "ghcr.io/a", "nothing"),
    ] {
        fs::write(&file, &config).unwrap();
        assert_eq!(shown(look_up(&file, of).await.unwrap()), found, "{config}, {of}");
    }
}

#[tokio::test]
async fn a_file_that_is_wrong_is_never_the_same_as_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let error = look_up(&file, "ghcr.io/a").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot read the credentials for `ghcr.io` from `{}`: the file cannot be read",
            file.display()
        )
    );
    for (config, why) in [
        ("", "not in the format of Docker's `config.json`"),
        ("hunter2", "not in the format of Docker's `config.json`"),
        (r#"{ "auths": ["ghcr.io"] }"#, "not in the format of Docker's `config.json`"),
        (r#"{ "auths": { "ghcr.io": { "auth": "hunter2" } } }"#, "is not `user:password` in base64"),
        (
            r#"{ "auths": { "ghcr.io": { "auth": "dXNlcjpodW50ZXIy", "username": "user", "password": "x" } } }"#,
            "`auth` is not its `username` and `password`",
        ),
        (r#"{ "credsStore": "of-nobody" }"#, "cannot run the credential helper"),
        (r#"{ "credHelpers": { "ghcr.io": "of-nobody" } }"#, "cannot run the credential helper"),
    ] {
        fs::write(&file, config).unwrap();
        let error = look_up(&file, "ghcr.io/a").await.unwrap_err();
        assert!(error.to_string().contains(why), "{config}: {error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        assert!(error.may_pass(), "the file may be replaced at any time");
    }
}

#[tokio::test]
async fn no_secret_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    fs::write(&file, format!(r#"{{ "auths": {{ "ghcr.io": {{ "auth": "{AUTH}" }} }} }}"#)).unwrap();
    let credential = look_up(&file, "ghcr.io/a").await.unwrap();
    let registries = Registries::any(Credentials::file(file));
    assert!(!format!("{credential:?} {registries:?}").contains("hunter2"));
}

#[test]
fn dockers_own_file_is_used_where_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let environment = |set: &'static [&str]| {
        let home = path("home").display().to_string();
        let docker = path("docker").display().to_string();
        move |name: &str| {
            let value = if name == "HOME" { &home } else { &docker };
            set.contains(&name).then(|| value.clone())
        }
    };
    let of = |set| Credentials::of_docker(environment(set));
    assert_eq!(of(&["HOME", "DOCKER_CONFIG"]), Credentials::none().with_helpers());
    fs::create_dir_all(path("home/.docker")).unwrap();
    fs::create_dir_all(path("docker")).unwrap();
    fs::write(path("home/.docker/config.json"), "{}").unwrap();
    assert_eq!(of(&["HOME"]), Credentials::file(path("home/.docker/config.json")).with_helpers());
    // `DOCKER_CONFIG` takes precedence, even if its folder has no such file.
    assert_eq!(of(&["HOME", "DOCKER_CONFIG"]), Credentials::none().with_helpers());
    fs::write(path("docker/config.json"), "{}").unwrap();
    assert_eq!(of(&["HOME", "DOCKER_CONFIG"]), Credentials::file(path("docker/config.json")).with_helpers());
    assert_eq!(of(&[]), Credentials::none().with_helpers());
}

#[tokio::test]
async fn a_gateway_runs_no_credential_helper() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    let known = r#""auths": { "ghcr.io": { "auth": "dTpw" } }"#;
    for (text, runs) in [
        (format!("{{ {known} }}"), false),
        (format!(r#"{{ {known}, "credHelpers": {{ "elsewhere.example": "x" }} }}"#), false),
        (format!(r#"{{ {known}, "credHelpers": {{ "ghcr.io": "x" }} }}"#), true),
        (format!(r#"{{ {known}, "credsStore": "x" }}"#), true),
    ] {
        std::fs::write(&file, &text).unwrap();
        let found = Credentials::file(file.clone()).of(&repository("ghcr.io/acme")).await;
        match found {
            Ok(found) => assert!(found.is_some() && !runs, "{text}"),
            Err(error) => {
                assert!(runs && error.to_string().contains("a gateway runs none"), "{text}: {error}");
            }
        }
    }
}

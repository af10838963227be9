//! What is fuzzed: each function hands bytes from outside to the code that they reach in production, checks what must hold
//! whatever they are, and says whether they were taken.
//!
//! `fuzz/` runs them with libFuzzer (`cargo xtask fuzz`). The test here runs them over the seeds in `fuzz/corpus`.

mod gateway;
mod genuine;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use countersign_access::{Access, Authenticator, ClientHeader, Proxies};
use countersign_client::GatewayUrl;
use countersign_core::clock::{Moment, Monotonic};
use countersign_core::json;
use countersign_core::lifecycle::{Digest, Request, canonical};
use countersign_core::receipt::signed;
use countersign_gateway::{Tokens, WaitToken, bundle};
use countersign_policy::{Engine, Kept, Limits, PolicySet, Source, Trust};
use countersign_slack::parse_form;
use countersign_store::{StoreUrl, fixtures};
use ipnet::{IpNet, Ipv4Net};
use tokio::runtime::Runtime;

pub use genuine::Genuine;

/// One that takes bytes and says whether the code behind it does.
pub type Target = fn(&[u8]) -> bool;

/// All of them, by the names of their corpora.
pub const TARGETS: [(&str, Target); 12] = [
    ("access_file", access_file),
    ("bundle", bundle),
    ("gateway_url", gateway_url),
    ("identity_token", identity_token),
    ("module", module),
    ("policy_set", policy_set),
    ("proxy_header", proxy_header),
    ("receipt", receipt),
    ("request", request),
    ("slack_form", slack_form),
    ("store_url", store_url),
    ("wait_token", wait_token),
];

/// An access file.
#[must_use]
pub fn access_file(bytes: &[u8]) -> bool {
    // A key file that it names is read, and nothing here may be.
    let names_none = |text: &&str| !text.contains("jwks");
    let Some(text) = std::str::from_utf8(bytes).ok().filter(names_none) else { return false };
    match Access::read(Path::new("/nonexistent/access.yaml"), text) {
        Ok(_) => true,
        Err(errors) => {
            assert!(!errors.0.is_empty(), "a file that is refused without a reason");
            false
        }
    }
}

/// A bundle, as `countersign receipt replay` reads it and compares it with a receipt.
#[must_use]
pub fn bundle(bytes: &[u8]) -> bool {
    let Ok(bundle) = bundle::read(bytes) else { return false };
    assert_eq!(bundle.canonical().expect("it was read").as_bytes(), bytes, "another text means the same");
    let document = signed::unverified(&Genuine::get().receipt).expect("it is genuine");
    // There are no modules to run, so it never comes to a decision.
    assert!(bundle::replay(&document, &bundle, None, engine()).is_err(), "a decision without its modules");
    true
}

/// The URL of a gateway.
#[must_use]
pub fn gateway_url(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(url) = GatewayUrl::new(text, false) else { return false };
    assert!(url.is_encrypted() || url.is_here(), "credentials would be sent in clear");
    true
}

/// A token of an identity provider, as a caller shows it.
#[must_use]
pub fn identity_token(bytes: &[u8]) -> bool {
    static CALLERS: OnceLock<(Runtime, Authenticator)> = OnceLock::new();
    let (runtime, callers) = CALLERS.get_or_init(|| {
        let access = Access::read(&gateway::folder().join("access.yaml"), genuine::ACCESS).expect("sound");
        (runtime(), Authenticator::new(access))
    });
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let now = Moment { wall: fixtures::at(0), monotonic: Monotonic::START };
    let is_taken = runtime.block_on(callers.identify(text, now)).is_ok();
    assert!(!is_taken || text == Genuine::get().identity_token, "a token that nobody has signed");
    is_taken
}

/// A module.
#[must_use]
pub fn module(bytes: &[u8]) -> bool {
    engine().load(bytes, &[]).is_ok()
}

/// The file of a policy set, without any modules.
#[must_use]
pub fn policy_set(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let _ = PolicySet::pinned(text);
    let source = Source {
        name: "policy-set.yaml".to_owned(),
        text: text.to_owned(),
        modules: Vec::new(),
        schemas: Vec::new(),
        signatures: Vec::new(),
        unfetched: BTreeMap::new(),
        kept: Kept::InFolder,
        manifest: None,
    };
    match PolicySet::build(&source, engine()) {
        Ok(_) => true,
        Err(errors) => {
            assert!(!errors.0.is_empty(), "a set that is refused without a reason");
            false
        }
    }
}

/// Lines of the header in which proxies say whom they were called by, as either of the two headers: taken if one could
/// be read.
#[must_use]
pub fn proxy_header(bytes: &[u8]) -> bool {
    const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const CALLER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
    let trusted = vec![IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8))];
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let read = [ClientHeader::XForwardedFor, ClientHeader::Forwarded].map(|header| {
        let proxies = Proxies { trusted: trusted.clone(), header };
        assert_eq!(proxies.client(CALLER, &lines), (CALLER, true), "the header of somebody else is believed");
        // What our proxy adds stands right of all that its caller wrote, on the same line or on one of its own.
        let added: &[u8] = match header {
            ClientHeader::XForwardedFor => b"198.51.100.7",
            ClientHeader::Forwarded => b"for=198.51.100.7",
        };
        let own_line: Vec<&[u8]> = lines.iter().copied().chain([added]).collect();
        assert_eq!(proxies.client(PROXY, &own_line), (CALLER, true), "the caller says who it is");
        let same_line = [bytes, b",", added].concat();
        let same_line: Vec<&[u8]> = same_line.split(|byte| *byte == b'\n').collect();
        assert_eq!(proxies.client(PROXY, &same_line), (CALLER, true), "the caller says who it is");
        let (client, is_read) = proxies.client(PROXY, &lines);
        assert_eq!(client, client.to_canonical(), "one address in two forms");
        assert!(is_read || proxies.is_trusted(client), "an address that nobody of ours wrote");
        is_read
    });
    read.contains(&true)
}

/// A receipt.
#[must_use]
pub fn receipt(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let genuine = Genuine::get();
    let is_genuine = signed::verify(text, &genuine.receipt_keys).is_ok();
    assert!(!is_genuine || text == genuine.receipt, "a receipt that nobody has signed");
    signed::unverified(text).is_ok()
}

/// The body of a request, as a caller sends it to a gateway: taken if it is sound, and so reaches the policies.
#[must_use]
pub fn request(bytes: &[u8]) -> bool {
    let Ok(value) = json::parse(bytes) else {
        assert!(!gateway::asks(bytes), "a request that cannot be read");
        return false;
    };
    let text = canonical(&value);
    let again = json::parse(text.as_bytes()).expect("what was taken is taken in canonical form");
    assert_eq!(canonical(&again), text, "the canonical form of a canonical form");
    assert_eq!(Digest::of_json(&again), Digest::of_json(&value), "it is approved under one hash");
    let is_taken = gateway::asks(bytes);
    assert_eq!(gateway::asks(text.as_bytes()), is_taken, "what means the same is judged otherwise");
    is_taken
}

/// What Slack posts when somebody acts.
#[must_use]
pub fn slack_form(bytes: &[u8]) -> bool {
    parse_form(bytes).is_ok()
}

/// The address of a store.
#[must_use]
pub fn store_url(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(url) = text.parse::<StoreUrl>() else { return false };
    assert!(!url.has_password() || url.to_string() != text, "a password is shown");
    true
}

/// A wait token. One that names the request of the fixtures is compared with that.
#[must_use]
pub fn wait_token(bytes: &[u8]) -> bool {
    static OPEN: OnceLock<(WaitToken, Request)> = OnceLock::new();
    let (token, open) = OPEN.get_or_init(|| {
        let mut request = fixtures::request(1);
        let token = Tokens::new([1; 32], Vec::new()).of(request.id);
        Arc::make_mut(&mut request.submission).token_hash = token.hash();
        (token, request)
    });
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    assert_eq!(Tokens::opens(text, open), text == token.reveal(), "another token opens it");
    Tokens::names(text).is_some()
}

/// Everything on this thread.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let new = || Engine::new(Limits { concurrent_calls: 2, ..Limits::default() }, None, Trust::default());
    ENGINE.get_or_init(|| new().expect("an engine"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    /// Seeds are named by what becomes of them: `taken-…` and `refused-…`.
    #[test]
    fn each_seed_is_taken_or_refused_as_its_name_says() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
        let listed = |folder: &Path| -> Vec<PathBuf> {
            let mut found: Vec<PathBuf> = fs::read_dir(folder)
                .expect("a folder")
                .map(|entry| entry.expect("an entry").path())
                .collect();
            found.sort();
            found
        };
        let name = |path: &PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
        let folders: Vec<String> = listed(&corpus).iter().map(name).collect();
        assert_eq!(folders, TARGETS.map(|(target, _)| target.to_owned()), "one corpus for each target");
        for (target, run) in TARGETS {
            let mut seen = BTreeMap::new();
            for seed in listed(&corpus.join(target)) {
                let taken = run(&fs::read(&seed).expect("readable"));
                let named = name(&seed);
                let (becomes, _) = named.split_once('-').expect("what becomes of it, and what it is");
                assert_eq!(if taken { "taken" } else { "refused" }, becomes, "{target}: {named}");
                *seen.entry(becomes.to_owned()).or_insert(0) += 1;
            }
            // A module that is taken is large; those that tests build are loaded by the tests of `host/policy`.
            let kinds = if target == "module" { 1 } else { 2 };
            assert_eq!(seen.len(), kinds, "{target}: {seen:?}");
        }
    }

    /// Whatever one byte of a seed is, nothing panics.
    #[test]
    fn no_changed_byte_of_a_seed_breaks_anything() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        for (target, run) in TARGETS {
            for entry in fs::read_dir(corpus.join(target)).expect("a folder") {
                let mut bytes = fs::read(entry.expect("an entry").path()).expect("readable");
                for _ in 0..50.min(bytes.len()) {
                    let at = rng.usize(..bytes.len());
                    let before = std::mem::replace(&mut bytes[at], rng.u8(..));
                    let _ = run(&bytes);
                    bytes[at] = before;
                }
            }
        }
    }
}

//! Keys, signatures, and what is refused without them.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::signing_key::SigningKey;
use crate::{ModuleError, PolicySet, Signed, Source, Stored, Trust};
use countersign_core::record::Signature;

/// Made by OpenSSL, as what it signed: `openssl pkeyutl -sign -rawin -inkey key.pem -in text`.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIFw0BIreL3mMZXhuVi6FTVQ+nP7L6dxw70PYDp9RqN+y
-----END PRIVATE KEY-----
";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAZmLn8Wg/uwx47Gq/m5D2nCVk9i2Ra4RDLbkzuyNC1Qk=
-----END PUBLIC KEY-----
";
const OF_MODULE: &str =
    "JdgM+vOtAwp/6IiKgTaRxZC39jp2e1ZTEc8ZTcnU1wi+3PXZR88HKGr2EbPCCYFkGA0lJ5kQoAHJk0Nn7DihDw==";
const OF_SET: &str =
    "72fgd0WBsVhdWv3ubyOc/sKw0dd9D4KfpmlR2BkcJwWnFre4A8OEeozfvTGDz9lRsJNnq3WYCGUXzSJw/8nfAg==";

/// A key of another kind.
const ELLIPTIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE3Aj39mRT1mcHKrsN5QzJPM3z71M4
l4aJGFTwTfSTPdwzrYf9ymdHdDnXzDE65OCDrTjyh6UgXVofzlgfE9FQig==
-----END PUBLIC KEY-----
";

/// Files of keys.
struct Keys(TempDir);

impl Keys {
    fn new() -> Keys {
        Keys(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A key of its own, and the PEM of its public half.
    fn made(&self, name: &str) -> (SigningKey, String) {
        let (private, public) = crate::signing_key::generate().unwrap();
        (SigningKey::read(&self.file(name, &private)).unwrap(), public)
    }

    fn trust(&self, modules: Option<&str>, sets: Option<&str>) -> Trust {
        let modules = modules.map(|text| self.file("modules.pem", text));
        let sets = sets.map(|text| self.file("sets.pem", text));
        Trust::read(modules.as_deref(), sets.as_deref()).unwrap()
    }
}

fn signature(text: &str) -> Signature {
    text.parse().unwrap()
}

#[test]
fn openssl_makes_the_same_signatures() {
    let keys = Keys::new();
    let key = SigningKey::read(&keys.file("key.pem", PRIVATE)).unwrap();
    assert!(PUBLIC.contains(&key.public().to_string()));
    let (module, set) = (Digest::of(b"module"), Digest::of(b"set"));
    assert_eq!(key.sign(Signed::Module, &module).to_string(), OF_MODULE);
    assert_eq!(key.sign(Signed::PolicySet, &set).to_string(), OF_SET);
    let trust = keys.trust(Some(PUBLIC), Some(PUBLIC));
    assert!(trust.verify(Signed::Module, &module, &[signature(OF_MODULE)]).is_ok());
    assert!(trust.verify(Signed::PolicySet, &set, &[signature(OF_SET)]).is_ok());
}

#[test]
fn a_signature_counts_for_one_thing_by_a_trusted_key() {
    let keys = Keys::new();
    let ((one, one_pem), (two, two_pem)) = (keys.made("one"), keys.made("two"));
    let (module, other) = (Digest::of(b"module"), Digest::of(b"other"));
    let trust = keys.trust(Some(&format!("Ada\n{one_pem}\nBob\n{two_pem}")), Some(&two_pem));
    let of = |key: &SigningKey, signed, digest| key.sign(signed, &digest);
    let mut broken = *of(&one, Signed::Module, module).as_bytes();
    broken[10] ^= 1;
    // What is asked for, the signatures at hand, and how many of them count.
    let rows: [(Signed, Digest, Vec<Signature>, usize); 9] = [
        (Signed::Module, module, vec![of(&one, Signed::Module, module)], 1),
        (Signed::Module, module, vec![of(&two, Signed::Module, module), of(&one, Signed::Module, module)], 2),
        (Signed::Module, module, vec![of(&one, Signed::Module, other), of(&two, Signed::Module, module)], 1),
        (Signed::Module, module, vec![], 0),
        (Signed::Module, module, vec![of(&one, Signed::Module, other)], 0),
        (Signed::Module, module, vec![of(&one, Signed::PolicySet, module)], 0),
        (Signed::Module, module, vec![Signature::from_bytes(broken)], 0),
        (Signed::PolicySet, module, vec![of(&two, Signed::PolicySet, module)], 1),
        (Signed::PolicySet, module, vec![of(&one, Signed::PolicySet, module)], 0),
    ];
    for (row, (signed, digest, signatures, counting)) in rows.into_iter().enumerate() {
        let verified = trust.verify(signed, &digest, &signatures);
        assert_eq!(verified.map_or(0, |verified| verified.len()), counting, "row {row}");
    }
    let none = Trust::default();
    assert_eq!(none.verify(Signed::Module, &module, &[]).unwrap(), []);
    assert!(trust.asks_for(Signed::Module) && !none.asks_for(Signed::Module));
}

#[test]
fn a_file_without_keys_stops_the_start() {
    let keys = Keys::new();
    for (text, wrong) in [
        ("", "holds no public key"),
        (PRIVATE, "holds something else than public keys"),
        (&format!("{PUBLIC}{PRIVATE}"), "holds something else than public keys"),
        ("Ada's key is to come", "holds no public key"),
        (&PUBLIC.replace("MCow", "????"), "is no PEM file as it should be"),
        (&PUBLIC.replace("-----END PUBLIC KEY-----\n", ""), "is no PEM file as it should be"),
        (ELLIPTIC, "holds a public key that is no Ed25519 key"),
        (&format!("{PUBLIC}{ELLIPTIC}"), "holds a public key that is no Ed25519 key"),
    ] {
        let file = keys.file("keys.pem", text);
        let error = Trust::read(Some(&file), None).expect_err(text).to_string();
        assert!(error.contains(wrong) && error.contains("keys.pem"), "{text:?}: {error}");
    }
    let error = Trust::read(None, Some(&keys.0.path().join("absent"))).unwrap_err().to_string();
    assert!(error.contains("absent` cannot be read"), "{error}");
    for (text, wrong) in [
        (PUBLIC, "holds no private key"),
        (&PRIVATE.replace("VwBC", "VwBD"), "holds a private key that is no Ed25519 key"),
    ] {
        let error = SigningKey::read(&keys.file("key.pem", text)).map(|_| ()).expect_err(text).to_string();
        assert!(error.contains(wrong) && !error.contains("IFw0"), "{text:?}: {error}");
    }
}

#[test]
fn signatures_are_read_line_by_line() {
    let (one, other) = (signature(OF_MODULE), signature(OF_SET));
    let read = |text: &str| Signature::read_all(text);
    assert_eq!(read(""), Ok(vec![]));
    assert_eq!(read(&format!("# Ada\n{one}\r\n\n  {other}  ")), Ok(vec![one, other]));
    for (text, line) in [("x", 1), ("\n\nQUJD", 3), (&format!("{one}\n{one}="), 2)] {
        let (at, wrong) = read(text).expect_err(text);
        assert!(at == line && wrong.contains("no signature"), "{text}: {at}: {wrong}");
    }
    let (line, wrong) = read(&format!("{one}\n").repeat(17)).unwrap_err();
    assert_eq!((line, wrong.as_str()), (17, "there are more than 16 signatures"));
}

/// A set that asks quorum, and says whether it may be loaded, with what is signed.
struct Case<'a> {
    engine: &'a Engine,
    source: Source,
}

impl Case<'_> {
    #[track_caller]
    fn refused(&self, why: &str) {
        let errors = PolicySet::build(&self.source, self.engine).expect_err("it was loaded").to_string();
        assert!(errors.contains(why), "{errors}");
    }
}

#[test]
fn nothing_unsigned_is_loaded_from_wherever_it_comes() {
    let keys = Keys::new();
    let ((ours, ours_pem), (theirs, theirs_pem)) = (keys.made("ours"), keys.made("theirs"));
    let trust = keys.trust(Some(&ours_pem), Some(&theirs_pem));
    let engine = Engine::new(Limits { deadline_ms: 10_000, ..Limits::default() }, None, trust).unwrap();
    let bytes = bytes_of("quorum");
    let digest = Digest::of(&bytes);
    let text = format!(
        "version: 1\nmodules:\n  quorum: sha256:{digest}\nactions:\n  deploy:\n    policies:\n      - use: quorum\n        \
         with: {{ approvers: [U1] }}\n"
    );
    assert!(matches!(engine.load(&bytes, &[]), Err(ModuleError::Unsigned(_))));
    let source = |signatures| Source {
        name: "set".to_owned(),
        text: text.clone(),
        modules: vec![("quorum.wasm".to_owned(), bytes.clone())],
        schemas: vec![],
        signatures,
        unfetched: Default::default(),
        kept: crate::Kept::InFolder,
        manifest: None,
    };
    let case = |signatures| Case { engine: &engine, source: source(signatures) };
    let of_module = ours.sign(Signed::Module, &digest);
    let by_others = theirs.sign(Signed::Module, &digest);
    let loose = PolicySet::build(&source(vec![]), &super::engine()).unwrap();
    assert_eq!(loose.pins().signatures, []);
    let of_set = theirs.sign(Signed::PolicySet, &loose.hash());
    let by_module_key = ours.sign(Signed::PolicySet, &loose.hash());

    let unsigned = format!("set: the set with the hash {} is refused: it is not signed", loose.hash());
    case(vec![]).refused(&format!("{unsigned}, as `COUNTERSIGN_SET_KEYS` demands"));
    case(vec![of_module])
        .refused(&format!("{unsigned} by a key of `COUNTERSIGN_SET_KEYS`: the signature at hand"));
    case(vec![of_module, by_module_key])
        .refused("it is not signed by a key of `COUNTERSIGN_SET_KEYS`: each of the 2 signatures at hand");
    // Nothing of an unsigned set is looked at: that its module is none is not even found out.
    let mut broken = case(vec![]);
    broken.source.modules = vec![];
    broken.refused(&unsigned);
    let module = "set:3:11: the module `quorum` (quorum.wasm) is refused: it is not signed by a key of \
                  `COUNTERSIGN_MODULE_KEYS`: ";
    case(vec![of_set]).refused(&format!("{module}the signature at hand is over something else"));
    case(vec![of_set, by_others]).refused(&format!("{module}each of the 2 signatures at hand"));
    let set = PolicySet::build(&source(vec![of_set, by_others, of_module]), &engine).unwrap();
    let pins = set.pins();
    assert_eq!(pins.signatures, [(set.hash(), of_set), (digest, of_module)]);

    // What was stored before anybody asked for signatures is refused as well.
    let stored = |signatures| Stored {
        name: "stored".into(),
        entries: pins.entries.clone(),
        modules: pins.modules.clone(),
        signatures,
    };
    for signatures in [vec![], vec![of_module], vec![of_set]] {
        assert!(PolicySet::restore(stored(signatures), &engine, &str::to_owned).is_err());
    }
    assert!(PolicySet::restore(stored(vec![of_module, of_set]), &engine, &str::to_owned).is_ok());
}

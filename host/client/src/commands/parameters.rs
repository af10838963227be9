//! Parameters on the command line: as `KEY=VALUE`, and in files.

use std::fs::File;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};

use clap::Args;
use countersign_core::json;
use serde_json::{Map, Value};

use super::exit::Ended;

/// The longest file of parameters, in bytes: the gateway takes 128 KiB of canonical JSON.
const MOST_BYTES: u64 = 1 << 20;

/// The parameters. Each can be given once.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Parameters")]
pub(super) struct Parameters {
    /// A parameter that is a text; may be repeated.
    #[arg(long = "param", value_name = "KEY=TEXT", value_parser = pair)]
    pub texts: Vec<(String, String)>,
    /// A parameter that is any JSON value; may be repeated.
    #[arg(long = "param-json", value_name = "KEY=JSON", value_parser = pair)]
    pub values: Vec<(String, String)>,
    /// Parameters in a file, as a JSON object; `-` for the standard input.
    #[arg(long = "params-file", value_name = "FILE")]
    pub file: Option<PathBuf>,
}

impl Parameters {
    /// All of them.
    pub(crate) fn read(&self) -> Result<Map<String, Value>, Ended> {
        let mut params = match &self.file {
            Some(path) => object(path)?,
            None => Map::new(),
        };
        let texts = self.texts.iter().map(|(key, text)| Ok((key, Value::from(text.as_str()))));
        let values = self.values.iter().map(|(key, text)| match json::parse_member(key, text.as_bytes()) {
            Ok(value) => Ok((key, value)),
            Err(refused) => Err(Ended::usage(format!("`--param-json {key}`: {refused}"))),
        });
        for given in texts.chain(values) {
            let (key, value) = given?;
            if params.insert(key.clone(), value).is_some() {
                return Err(Ended::usage(format!("the parameter `{key}` is given twice")));
            }
        }
        Ok(params)
    }
}

/// The JSON object in a file.
pub(crate) fn object(path: &Path) -> Result<Map<String, Value>, Ended> {
    let shown = path.display();
    let read = match path.to_str() {
        Some("-") => all(stdin().lock()),
        _ => File::open(path).and_then(all),
    };
    let bytes = read.map_err(|error| Ended::usage(format!("cannot read `{shown}`: {error}")))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MOST_BYTES {
        return Err(Ended::usage(format!("`{shown}` has more than {MOST_BYTES} bytes")));
    }
    // JSON has no byte order mark, but editors write one.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    match json::parse(bytes) {
        Ok(Value::Object(params)) => Ok(params),
        Ok(_) => Err(Ended::usage(format!("`{shown}` does not hold a JSON object"))),
        Err(refused) => Err(Ended::usage(format!("in `{shown}`: {refused}"))),
    }
}

fn all(input: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it is given as `KEY=VALUE`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::exit::Exit;
    use super::*;

    #[test]
    fn each_parameter_is_given_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            let path = folder.path().join("params.json");
            std::fs::write(&path, text).unwrap();
            path
        };
        let pairs = |texts: &[&str]| texts.iter().map(|text| pair(text).unwrap()).collect();
        let read = |texts: &[&str], values: &[&str], content: &str| {
            let parameters =
                Parameters { texts: pairs(texts), values: pairs(values), file: Some(file(content)) };
            parameters.read().map(|params| Value::Object(params).to_string())
        };
        assert_eq!(
            read(&["ref=v1=2", "empty="], &["replicas=3", "tags=[\"a\"]"], "{\"a\":null}").unwrap(),
            r#"{"a":null,"empty":"","ref":"v1=2","replicas":3,"tags":["a"]}"#
        );
        assert_eq!(read(&[], &[], "\u{feff}{\"a\":1}").unwrap(), r#"{"a":1}"#);
        for (texts, values, content, why) in [
            (&["a=1"][..], &["a=1"][..], "{}", "given twice"),
            (&["a=1", "a=1"], &[], "{}", "given twice"),
            (&["a=1"], &[], "{\"a\":1}", "given twice"),
            (&[], &[], "{\"a\":1,\"a\":1}", "params.json"),
            (&[], &["a={"], "{}", "--param-json a"),
            (&[], &["a=9007199254740993"], "{}", "--param-json a"),
            (&[], &[], "[]", "does not hold a JSON object"),
            (&[], &[], "", "params.json"),
        ] {
            let ended = read(texts, values, content).unwrap_err();
            assert!(ended.exit == Exit::Usage && ended.why.contains(why), "{ended:?}");
        }
        assert!(pair("a").is_err() && pair("=a").is_err());
    }
}

//! The command that is to be run, and how it gets the parameters: never through a shell.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use countersign_core::lifecycle::canonical;
use serde_json::{Map, Value};

use super::super::is_given;
use crate::environment::Environment;

/// The longest text that Linux takes as one argument or variable, in bytes, with the zero at its end.
const MOST_BYTES: usize = 128 * 1024;

/// A command with parameters in its arguments.
#[derive(Debug)]
pub(super) struct Program {
    name: String,
    arguments: Vec<Vec<Part>>,
    /// Variables of an outer command, which the inner one must not take for its own.
    stale: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Parameter(String),
}

/// A command that can be started.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Prepared {
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    pub(super) variables: BTreeMap<String, String>,
    pub(super) stale: Vec<String>,
}

impl Program {
    /// Reads the words of a command. `{name}` in an argument stands for a parameter, and `{{name}}` for the text `{name}`.
    pub(super) fn new(words: &[String], environment: &Environment) -> Result<Option<Program>, String> {
        let Some((name, arguments)) = words.split_first() else { return Ok(None) };
        if parts(name).iter().any(|part| matches!(part, Part::Parameter(_))) {
            return Err(format!("which program is run cannot be a parameter: `{name}`"));
        }
        if !is_there(name, environment) {
            return Err(format!("there is no program `{name}` that can be run"));
        }
        let stale = environment.names("COUNTERSIGN_").filter(|name| is_given(name));
        Ok(Some(Program {
            name: name.clone(),
            arguments: arguments.iter().map(|argument| parts(argument)).collect(),
            stale: stale.map(str::to_owned).collect(),
        }))
    }

    /// The command with these parameters.
    pub(super) fn prepare(&self, params: &Map<String, Value>) -> Result<Prepared, String> {
        let mut variables = BTreeMap::new();
        for (key, value) in params {
            if variables.insert(variable(key), text(value)).is_some() {
                return Err(format!("two parameters would be the variable `{}`", variable(key)));
            }
        }
        let argument = |parts: &Vec<Part>| {
            let texts = parts.iter().map(|part| match part {
                Part::Text(text) => Ok(text.clone()),
                Part::Parameter(key) => params.get(key).map(text).ok_or_else(|| {
                    format!(
                        "`{{{key}}}` is none of the parameters; write `{{{{{key}}}}}` for the text itself"
                    )
                }),
            });
            texts.collect::<Result<String, String>>()
        };
        let arguments = self.arguments.iter().map(argument).collect::<Result<Vec<_>, _>>()?;
        let fits = |text: &str| text.len() < MOST_BYTES && !text.contains('\0');
        let whole = variables.iter().map(|(name, value)| (name.as_str(), format!("{name}={value}")));
        if let Some((name, _)) = whole.into_iter().find(|(_, whole)| !fits(whole)) {
            return Err(format!("`{name}` cannot be a variable: it is too long, or has a zero byte"));
        }
        if arguments.iter().any(|argument| !fits(argument)) {
            return Err("an argument is too long, or has a zero byte".to_owned());
        }
        Ok(Prepared { name: self.name.clone(), arguments, variables, stale: self.stale.clone() })
    }
}

/// A text as it is, everything else as JSON.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| canonical(value), str::to_owned)
}

/// The variable of a parameter.
fn variable(key: &str) -> String {
    let letter =
        |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' };
    format!("COUNTERSIGN_PARAM_{}", key.chars().map(letter).collect::<String>())
}

fn parts(mut text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    while let Some(open) = text.find('{') {
        let (before, rest) = text.split_at(open);
        plain.push_str(before);
        let inner = rest.trim_start_matches('{');
        let braces = rest.len() - inner.len();
        let name = inner.find('}').and_then(|end| inner.get(..end)).filter(|name| is_name(name));
        let closing = name.map_or("", |name| inner.get(name.len()..).unwrap_or_default());
        match (braces, name) {
            (1, Some(name)) => {
                parts.push(Part::Text(std::mem::take(&mut plain)));
                parts.push(Part::Parameter(name.to_owned()));
                text = closing.strip_prefix('}').unwrap_or_default();
            }
            (2, Some(name)) if closing.starts_with("}}") => {
                plain.push_str(&format!("{{{name}}}"));
                text = closing.strip_prefix("}}").unwrap_or_default();
            }
            _ => {
                plain.push_str(rest.get(..braces).unwrap_or_default());
                text = inner;
            }
        }
    }
    plain.push_str(text);
    parts.push(Part::Text(plain));
    parts
}

/// Whether this in braces is meant as a parameter: other words in braces are left alone.
fn is_name(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-.".contains(letter))
}

/// Whether there is such a program: people should not be asked for one that is not.
fn is_there(name: &str, environment: &Environment) -> bool {
    let is_program = |path: &Path| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return is_program(Path::new(name));
    }
    let path = environment.get("PATH").unwrap_or("/usr/local/bin:/bin:/usr/bin");
    std::env::split_paths(path).any(|folder| is_program(&folder.join(name)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn prepare(words: &[&str], params: &Value) -> Result<Prepared, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let environment = Environment::from([
            ("PATH", "/usr/bin:/bin"),
            ("COUNTERSIGN_PARAM_OLD", "1"),
            ("COUNTERSIGN_URL", "x"),
        ]);
        Program::new(&words, &environment)?.unwrap().prepare(params.as_object().unwrap())
    }

    #[test]
    fn parameters_stand_in_arguments_and_variables() {
        let params =
            json!({"ref": "v1; rm -rf /", "replicas": 3, "dry-run": true, "tags": ["b", "a"], "no": null});
        let prepared = prepare(
            &[
                "sh",
                "--ref={ref}",
                "{replicas}{dry-run}",
                "{{ref}}",
                "{print $1}",
                "{",
                "{}",
                "{{.Name}}",
                "{tags}",
            ],
            &params,
        )
        .unwrap();
        assert_eq!(
            prepared.arguments,
            ["--ref=v1; rm -rf /", "3true", "{ref}", "{print $1}", "{", "{}", "{{.Name}}", "[\"b\",\"a\"]"]
        );
        let variables: Vec<_> =
            prepared.variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            variables,
            [
                "COUNTERSIGN_PARAM_DRY_RUN=true",
                "COUNTERSIGN_PARAM_NO=null",
                "COUNTERSIGN_PARAM_REF=v1; rm -rf /",
                "COUNTERSIGN_PARAM_REPLICAS=3",
                "COUNTERSIGN_PARAM_TAGS=[\"b\",\"a\"]",
            ]
        );
        assert_eq!(prepared.stale, ["COUNTERSIGN_PARAM_OLD"]);
    }

    #[test]
    fn what_cannot_be_run_as_it_is_meant_is_refused() {
        let long = "x".repeat(MOST_BYTES);
        for (words, params, why) in [
            (&["{program}"][..], json!({"program": "sh"}), "cannot be a parameter"),
            (&["no-such-program"], json!({}), "there is no program"),
            (&["/etc/passwd"], json!({}), "there is no program"),
            (&["sh", "{reff}"], json!({"ref": "v1"}), "`{reff}` is none of the parameters"),
            (&["sh"], json!({"a-b": 1, "a_b": 2}), "COUNTERSIGN_PARAM_A_B"),
            (&["sh"], json!({"a": "x\0y"}), "zero byte"),
            (&["sh"], json!({"a": long}), "too long"),
        ] {
            let refused = prepare(words, &params).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}

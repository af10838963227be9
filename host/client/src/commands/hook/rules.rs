//! The rules of a hook: which calls of tools go to the gateway, and which are decided here.

use std::collections::BTreeMap;

use countersign_core::glob::Glob;
use countersign_core::lifecycle::canonical;
use serde::Deserialize;
use serde_json::{Map, Value};
use serde_saphyr::{DuplicateKeyPolicy, MergeKeyPolicy};

/// What a shell ends a command at, or rewrites, beside control characters. A pattern such as `git status*` would fit what
/// comes after it, too, and a folder's name with it may become `..`.
const SHELL: &[char] =
    &[';', '&', '|', '$', '`', '<', '>', '(', ')', '{', '}', '[', ']', '?', '*', '\'', '"', '\\', '!', '#'];

/// What a shell rewrites at the beginning of a word.
const SHELL_FIRST: &[char] = &['~', '='];

/// What a path can come after, beside spaces.
const BEFORE_PATHS: &[char] = &['=', ':', ','];

/// A file of rules. The first rule that fits a call decides about it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rules {
    version: u64,
    /// What becomes of a call that no rule fits.
    #[serde(default)]
    default: Decide,
    /// In whose name requests are made, as `SOURCE:ID`, unless the credentials say so.
    #[serde(default)]
    pub(super) requester: Option<String>,
    /// The repository that requests come from; by default the folder that the agent works in.
    #[serde(default)]
    pub(super) repo: Option<String>,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// The name of the tool; `*` stands for any characters.
    tool: String,
    /// Patterns for fields of the tool's input, which all have to be there and to fit.
    #[serde(default)]
    input: BTreeMap<String, String>,
    /// What is decided here.
    #[serde(default)]
    decide: Option<Decide>,
    /// The action that is asked for.
    #[serde(default)]
    action: Option<String>,
    /// Further parameters, beside the fields of the input.
    #[serde(default)]
    params: Map<String, Value>,
}

/// What is decided without the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Decide {
    /// The call is made.
    Allow,
    /// The host asks its user.
    Ask,
    /// The call is not made.
    #[default]
    Deny,
}

/// What becomes of a call.
#[derive(Debug, PartialEq)]
pub(super) enum Fate<'a> {
    Decided(Decide),
    /// The gateway is asked.
    Gate {
        action: &'a str,
        params: &'a Map<String, Value>,
    },
}

impl Rules {
    /// Reads a file of rules.
    pub(super) fn read(text: &str) -> Result<Rules, String> {
        let options = serde_saphyr::options! {
            duplicate_keys: DuplicateKeyPolicy::Error,
            merge_keys: MergeKeyPolicy::Error,
            strict_booleans: true,
            with_snippet: false,
        };
        let rules = serde_saphyr::from_str_with_options::<Rules>(text, options);
        let rules = rules.map_err(|error| error.without_snippet().to_string())?;
        if rules.version != 1 {
            return Err(format!("`version` is {}, and only 1 is known", rules.version));
        }
        for (number, rule) in (1..).zip(&rules.rules) {
            let wrong = |why: &str| Err(format!("rule {number}, for the tool `{}`, {why}", rule.tool));
            match (&rule.action, rule.decide) {
                (Some(_), Some(_)) => return wrong("has `action` and `decide`; it needs one of them"),
                (None, None) => return wrong("has neither `action` nor `decide`"),
                (None, Some(_)) if !rule.params.is_empty() => return wrong("has `params` and no `action`"),
                _ => {}
            }
        }
        Ok(rules)
    }

    /// What becomes of a call.
    pub(super) fn fate(&self, tool: &str, input: &Map<String, Value>) -> Fate<'_> {
        let rule = self.rules.iter().find(|rule| rule.fits(tool, input));
        match rule.map(|rule| (&rule.action, rule.decide, &rule.params)) {
            Some((Some(action), _, params)) => Fate::Gate { action, params },
            Some((None, Some(decide), _)) => Fate::Decided(decide),
            Some((None, None, _)) => Fate::Decided(Decide::Deny),
            None => Fate::Decided(self.default),
        }
    }
}

impl Rule {
    fn fits(&self, tool: &str, input: &Map<String, Value>) -> bool {
        Glob::new(&self.tool).matches(tool)
            && self.input.iter().all(|(field, pattern)| {
                let Some(value) = input.get(field) else { return false };
                let text = value.as_str().map_or_else(|| canonical(value), str::to_owned);
                // What is allowed must be what the pattern shows, nothing after it, and nothing elsewhere.
                let is_free = self.decide != Some(Decide::Allow)
                    || text == *pattern
                    || !(is_rewritten(&text) || has_parent_folder(&text));
                is_free && Glob::new(pattern).matches(&text)
            })
    }
}

/// Whether a shell makes something else of it than its words.
fn is_rewritten(text: &str) -> bool {
    text.contains(|letter: char| SHELL.contains(&letter) || letter.is_control())
        || words(text).any(|word| word.starts_with(SHELL_FIRST))
}

/// Whether a path in it leads out of the folder that a pattern shows.
fn has_parent_folder(text: &str) -> bool {
    words(text).any(|word| word.split('/').any(|part| part == ".."))
}

/// What a shell, or a program that it runs, may take for a word or a path.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let apart = |letter: char| letter.is_whitespace();
    let inside = |word| std::iter::once(word).chain(str::split(word, BEFORE_PATHS));
    text.split(apart).flat_map(inside)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RULES: &str = "
version: 1
default: ask
rules:
  - { tool: Read, decide: allow }
  - { tool: Write, input: { file_path: '/srv/app/*' }, decide: allow }
  - { tool: Bash, input: { command: 'git status*' }, decide: allow }
  - { tool: Bash, input: { command: 'echo $HOME' }, decide: allow }
  - { tool: Bash, input: { command: '*deploy*' }, action: deploy, params: { environment: production, level: 2 } }
  - { tool: 'mcp__db__*', input: { limit: '1*' }, decide: allow }
  - { tool: Bash, decide: deny }
";

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = Rules::read(RULES).unwrap();
        let said = |tool: &str, input: Value| match rules.fate(tool, input.as_object().unwrap()) {
            Fate::Decided(decide) => format!("{decide:?}"),
            Fate::Gate { action, params } => format!("{action} {}", Value::Object(params.clone())),
        };
        let gate = r#"deploy {"environment":"production","level":2}"#;
        for (tool, input, expected) in [
            ("Read", json!({}), "Allow"),
            ("Reader", json!({}), "Ask"),
            ("Bash", json!({"command": "git status --short"}), "Allow"),
            ("Bash", json!({"command": "git status; rm -rf /"}), "Deny"),
            ("Bash", json!({"command": "git status\nrm -rf /"}), "Deny"),
            ("Bash", json!({"command": "git status $(rm -rf /)"}), "Deny"),
            ("Bash", json!({"command": "git status; ./deploy.sh"}), gate),
            ("Bash", json!({"command": "echo $HOME"}), "Allow"),
            ("Bash", json!({"command": ["git status"]}), "Deny"),
            ("Bash", json!({}), "Deny"),
            ("mcp__db__query", json!({"limit": 10}), "Allow"),
            ("mcp__db__query", json!({"limit": 20}), "Ask"),
            ("Write", json!({"file_path": "a"}), "Ask"),
            ("Write", json!({"file_path": "/srv/app/x"}), "Allow"),
            ("Write", json!({"file_path": "/srv/app/../../etc/x"}), "Ask"),
            ("Bash", json!({"command": "git status .."}), "Deny"),
        ] {
            assert_eq!(said(tool, input.clone()), expected, "{tool} {input}");
        }
        let nothing = Rules::read("version: 1").unwrap();
        assert_eq!(nothing.fate("Read", &Map::new()), Fate::Decided(Decide::Deny));
    }

    /// A shell makes paths and commands of these that the pattern does not show.
    #[test]
    fn what_a_shell_rewrites_is_allowed_only_as_it_stands() {
        let allowed = |pattern: &str, command: Value| {
            let rules = json!({"version": 1, "rules": [
                {"tool": "Bash", "input": {"command": pattern}, "decide": "allow"},
            ]});
            let input = Map::from_iter([("command".to_owned(), command)]);
            Rules::read(&rules.to_string()).unwrap().fate("Bash", &input) == Fate::Decided(Decide::Allow)
        };
        for command in [
            "bash scripts/\"../evil.sh\"",
            "bash scripts/.\\./evil.sh",
            "bash scripts/'..'/evil.sh",
            "bash scripts/''../evil.sh",
            "bash scripts/.?/evil.sh",
            "bash scripts/.[.]/evil.sh",
            "bash scripts/.*/evil.sh",
            "bash scripts/.{.,}/evil.sh",
            "bash scripts/$'..'/evil.sh",
            "bash scripts/.\0./evil.sh",
            "bash scripts/a\u{8}\u{8}..",
            "bash scripts/a\t/etc/evil.sh",
            "bash scripts/a ~/evil.sh",
            "bash scripts/a --from=~/evil.sh",
            "bash scripts/a =evil",
            "bash scripts/a --from=../evil.sh",
            "bash scripts/a HEAD:../evil.sh",
            "bash scripts/a !-1",
            "bash scripts/a #",
            "bash scripts/../evil.sh",
        ] {
            assert!(!allowed("bash scripts/*", command.into()), "{command}");
            assert!(allowed(command, command.into()), "{command} is what the rule shows");
        }
        assert!(!allowed("[\"bash\",\"scripts/*", json!(["bash", "scripts/a", "b"])));
        assert!(allowed("[\"bash\",\"scripts/a\"]", json!(["bash", "scripts/a"])));
        for command in
            ["bash scripts/a.sh", "bash scripts/a-b_c.sh --level=3 main..dev HEAD~1 x:1,2 50% a@b ü"]
        {
            assert!(allowed("bash scripts/*", command.into()), "{command}");
        }
    }

    #[test]
    fn rules_that_are_wrong_are_named() {
        for (text, why) in [
            ("", "end of input"),
            ("version: 2", "`version` is 2"),
            ("version: 1\ndefault: maybe", "maybe"),
            ("version: 1\nrule: []", "rule"),
            ("version: 1\nrules: [{ tool: Bash }]", "rule 1, for the tool `Bash`, has neither"),
            ("version: 1\nrules: [{ tool: Bash, action: a, decide: deny }]", "needs one of them"),
            ("version: 1\nrules: [{ tool: Bash, decide: deny, params: { a: 1 } }]", "no `action`"),
            ("version: 1\nrules: [{ tool: Bash, tol: Bash, decide: deny }]", "tol"),
            ("version: 1\nversion: 1", "version"),
            ("version: 1\nrules: [{ tool: Bash, decide: deny", ""),
        ] {
            let error = Rules::read(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}

//! Finds every setting with a malformed value, where the parser of the command line ends at the first.

use std::ffi::OsString;

use clap::builder::ValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Args as _, FromArgMatches as _};

use crate::config::Config;

/// If `error` is about the settings of a gateway: what is wrong with each of them, one sentence each; the settings without
/// those that are malformed; and the variables of these. `command` has the variables of the environment as defaults.
pub(crate) fn all_wrong(
    command: &clap::Command,
    arguments: &[OsString],
    error: &clap::Error,
) -> Option<(Vec<String>, Config, Vec<String>)> {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return None;
    }
    let name = arguments.get(1)?.to_str().filter(|name| ["serve", "check-config"].contains(name))?;
    let settings = command.find_subcommand(name)?;
    // First what was given, whatever it is; then each value by itself.
    let lenient = command.clone().mut_subcommand(name, |settings| {
        settings.mut_args(|arg| match arg.get_action().takes_values() {
            true => arg.required(false).value_parser(ValueParser::os_string()),
            false => arg,
        })
    });
    let (given, unread) = match lenient.clone().try_get_matches_from(arguments) {
        Ok(given) => (given, None),
        // What the environment says is looked at all the same.
        Err(error) => (lenient.try_get_matches_from(arguments.get(..2)?).ok()?, Some(sentence(&error))),
    };
    let given = given.subcommand_matches(name)?;
    let mut wrong = Vec::from_iter(unread.clone());
    let (mut sound, mut malformed) = (Vec::new(), Vec::new());
    for arg in settings.get_arguments().filter(|arg| arg.get_action().takes_values()) {
        let Some(value) = value(arg, given) else {
            if arg.is_required_set() && unread.is_none() {
                let (long, variable) = (arg.get_long()?, variable(arg)?);
                wrong.push(format!("`--{long} <{variable}>` is missing"));
            }
            continue;
        };
        // What was not read may be any of them.
        malformed.extend(variable(arg).filter(|_| unread.is_some()));
        let alone = clap::Command::new("countersign").no_binary_name(true).arg(arg.clone().required(false));
        match alone.try_get_matches_from([&value]) {
            Ok(_) => sound.push(value),
            Err(error) => {
                wrong.push(sentence(&error));
                malformed.extend(variable(arg));
            }
        }
    }
    // One that is missing gets any value, so that the others can be read.
    let rest = Config::augment_args(clap::Command::new("countersign").no_binary_name(true));
    let rest = rest.mut_args(|arg| match arg.is_required_set() {
        true => arg.required(false).default_value("."),
        false => arg,
    });
    let config = Config::from_arg_matches(&rest.try_get_matches_from(sound).ok()?).ok()?;
    Some((wrong, config, malformed))
}

/// The value that an argument has, as one flag.
fn value(arg: &Arg, given: &ArgMatches) -> Option<OsString> {
    let mut flag = OsString::from(format!("--{}=", arg.get_long()?));
    for (index, part) in given.get_raw(arg.get_id().as_str())?.enumerate() {
        if index > 0 {
            flag.push(",");
        }
        flag.push(part);
    }
    Some(flag)
}

fn variable(arg: &Arg) -> Option<String> {
    Some(arg.get_value_names()?.first()?.to_string())
}

/// What an error says, without the usage that follows it.
fn sentence(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let said = text.split("\n\n").next().unwrap_or_default();
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

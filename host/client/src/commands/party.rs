//! In whose name a request is made, as it is written on the command line and in files of rules.

use countersign_core::lifecycle::Party;

/// Reads `SOURCE:ID`, such as `github:583231`.
///
/// # Errors
/// If either of the two is missing.
pub fn party(text: &str) -> Result<Party, String> {
    match text.split_once(':') {
        Some((source, id)) if !source.is_empty() && !id.is_empty() => {
            Ok(Party { id: id.to_owned(), source: source.to_owned(), display: None })
        }
        _ => Err("it is given as `SOURCE:ID`, such as `github:583231`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parts_are_needed_and_the_first_colon_parts_them() {
        for (text, expected) in [
            ("github:583231", Some(("github", "583231"))),
            ("ci:job:7", Some(("ci", "job:7"))),
            ("github", None),
            (":583231", None),
            ("github:", None),
            ("", None),
        ] {
            let read = party(text).ok();
            let read = read.as_ref().map(|party| (party.source.as_str(), party.id.as_str()));
            assert_eq!(read, expected, "{text}");
        }
    }
}

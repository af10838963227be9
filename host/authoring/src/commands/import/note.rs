//! Notes about what an import could not carry over, with the place in the legacy files.

use std::path::Path;

use countersign_policy::yaml::document::Place;

/// One difference between the legacy service's behaviour and the policy set's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    place: Option<Place>,
    file: Option<String>,
    text: String,
}

impl Note {
    /// A note about a place in `guards.yml`.
    pub(super) fn at(place: Place, text: impl Into<String>) -> Note {
        Note { place: Some(place), file: None, text: text.into() }
    }

    /// A note about another file.
    pub(super) fn of_file(file: &str, text: impl Into<String>) -> Note {
        Note { place: None, file: Some(file.to_owned()), text: text.into() }
    }

    /// Line and column, to sort by; notes about other files come last.
    pub(super) fn position(&self) -> (u64, u64) {
        self.place.map_or((u64::MAX, 0), |place| (place.line, place.column))
    }

    /// The note in the format of an error message, with the path of `guards.yml`.
    pub(super) fn message(&self, guards: &Path) -> String {
        self.with_name(&guards.display().to_string())
    }

    /// The note in the format of an error message; `guards` names `guards.yml`.
    pub(super) fn with_name(&self, guards: &str) -> String {
        match (&self.file, self.place) {
            (Some(file), _) => format!("{file}: {}", self.text),
            (None, Some(place)) => format!("{guards}:{}:{}: {}", place.line, place.column, self.text),
            (None, None) => format!("{guards}: {}", self.text),
        }
    }
}

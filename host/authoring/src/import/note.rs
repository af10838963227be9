//! What could not be carried over, and where the ancestor's files said it.

use std::path::Path;

use countersign_policy::yaml::document::Place;

/// One thing that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    place: Option<Place>,
    file: Option<String>,
    text: String,
}

impl Note {
    /// About a place in `guards.yml`.
    pub(super) fn at(place: Place, text: impl Into<String>) -> Note {
        Note { place: Some(place), file: None, text: text.into() }
    }

    /// About another file.
    pub(super) fn of_file(file: &str, text: impl Into<String>) -> Note {
        Note { place: None, file: Some(file.to_owned()), text: text.into() }
    }

    /// Line and column, for putting notes in order; what concerns another file comes last.
    pub(super) fn position(&self) -> (u64, u64) {
        self.place.map_or((u64::MAX, 0), |place| (place.line, place.column))
    }

    /// The note as an error message looks, for a `guards.yml` of this path.
    pub(super) fn with(&self, guards: &Path) -> String {
        self.told(&guards.display().to_string())
    }

    /// The note for a `guards.yml` of this name.
    pub(super) fn told(&self, guards: &str) -> String {
        match (&self.file, self.place) {
            (Some(file), _) => format!("{file}: {}", self.text),
            (None, Some(place)) => format!("{guards}:{}:{}: {}", place.line, place.column, self.text),
            (None, None) => format!("{guards}: {}", self.text),
        }
    }
}

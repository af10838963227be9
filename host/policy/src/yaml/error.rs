//! What is wrong with a file, and where.

use std::fmt;

use countersign_core::text::plain;

use super::document::Place;

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// The file.
    pub file: String,
    /// Line and column, from 1, if they are known.
    pub place: Option<(u64, u64)>,
    /// JSON Pointer into the policy's configuration, if that is what is wrong.
    pub pointer: Option<String>,
    /// What is wrong.
    pub message: String,
}

/// Everything that is wrong with a file. Displays one error a line, whatever the file has in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadErrors(pub Vec<LoadError>);

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", plain(&self.message))
    }
}

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}
impl std::error::Error for LoadErrors {}

/// Collects errors about one file.
pub struct Errors {
    file: String,
    found: Vec<LoadError>,
}

impl Errors {
    /// No errors yet, about this file.
    #[must_use]
    pub fn about(file: &str) -> Errors {
        Errors { file: file.to_owned(), found: Vec::new() }
    }

    /// Adds an error at this place.
    pub fn add(&mut self, place: Place, message: impl Into<String>) {
        self.push(place, None, message.into());
    }

    /// Something is wrong with a policy's configuration, at this JSON Pointer into it.
    pub fn add_at(&mut self, place: Place, pointer: &str, message: impl Into<String>) {
        self.push(place, Some(pointer.to_owned()), message.into());
    }

    fn push(&mut self, place: Place, pointer: Option<String>, message: String) {
        let place = (place.line > 0).then_some((place.line, place.column));
        self.found.push(LoadError { file: self.file.clone(), place, pointer, message });
    }

    /// Adds an error about another file.
    pub fn add_in(&mut self, file: &str, message: impl Into<String>) {
        self.found.push(LoadError {
            file: file.to_owned(),
            place: None,
            pointer: None,
            message: message.into(),
        });
    }

    /// Adds an error about a line of another file.
    pub fn add_in_line(&mut self, file: &str, line: u64, message: impl Into<String>) {
        self.found.push(LoadError {
            file: file.to_owned(),
            place: Some((line, 1)),
            pointer: None,
            message: message.into(),
        });
    }

    /// How many errors there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.found.len()
    }

    /// Ends here if something was found.
    pub fn stop_here(&mut self) -> Result<(), LoadErrors> {
        Errors { file: self.file.clone(), found: std::mem::take(&mut self.found) }.into_result()
    }

    /// `Ok` if nothing was found.
    pub fn into_result(mut self) -> Result<(), LoadErrors> {
        if self.found.is_empty() {
            return Ok(());
        }
        // In the order in which the file is read; what concerns no line comes last.
        self.found.sort_by_key(|error| error.place.unwrap_or((u64::MAX, 0)));
        // What several readers of one value have found is one thing.
        self.found.dedup();
        Err(LoadErrors(self.found))
    }
}

/// `; did you mean …?` if one of `known` looks like `name`, else nothing.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let near = known.into_iter().map(|known| (distance(name, known), known)).min();
    match near {
        Some((distance, known)) if distance <= 2 && distance < known.len() => {
            format!("; did you mean `{known}`?")
        }
        _ => String::new(),
    }
}

/// How many letters must be put in, taken out or replaced (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (index, left) in a.chars().enumerate() {
        let mut diagonal = index;
        let mut before = index + 1;
        if let Some(first) = row.first_mut() {
            *first = before;
        }
        for (cell, right) in row.iter_mut().skip(1).zip(b.chars()) {
            let replaced = diagonal + usize::from(left != right);
            diagonal = *cell;
            before = replaced.min(*cell + 1).min(before + 1);
            *cell = before;
        }
    }
    row.last().copied().unwrap_or_default()
}

//! Whether a policy set that was found in a folder might be half of what somebody is writing.
//!
//! Half of a policy set can be a valid one that asks for less. So a gateway takes a set by itself only if something says
//! that all of it is there, or if it differs from the set in force in values alone.

use super::{PolicySet, Source};
use crate::yaml::document;
use crate::yaml::error::{Errors, LoadErrors};
use crate::yaml::shape;

/// What is known of a folder from how it came to be as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Known {
    /// Nothing: it may have been written in place.
    #[default]
    Nothing,
    /// `policy-set.yaml` was moved into its place, so its text is all there.
    Text,
    /// The folder was put in its place in one step, so all of it is there.
    Everything,
}

impl PolicySet {
    /// Checks that this set, which was read from `source`, is not half of another one. `before` is the set in force, and
    /// the text that it was read from. Blocks to parse.
    ///
    /// # Errors
    /// What is missing, or might be.
    pub fn doubts(
        &self,
        source: &Source,
        (before, text): (&PolicySet, Option<&str>),
        known: Known,
    ) -> Result<(), LoadErrors> {
        // A signature is over the hash of the whole set.
        if !self.signed_by().is_empty() {
            return Ok(());
        }
        let mut errors = Errors::about(&source.name);
        match &source.manifest {
            Some(manifest) => {
                if let Err(why) = &manifest.fits {
                    errors.add_in(&format!("{}.sha256", source.name), why);
                }
            }
            None if known == Known::Everything => {}
            None => {
                if known == Known::Nothing {
                    compare_texts(text, &source.text, &mut errors);
                }
                self.compare_schemas(before, &mut errors);
            }
        }
        errors.into_result()
    }

    /// A schema cannot be half, since its JSON would not end; but it can be missing.
    fn compare_schemas(&self, before: &PolicySet, errors: &mut Errors) {
        for (name, policy) in &self.actions {
            let had = before.actions.get(name).is_some_and(|before| before.entry().schema.is_some());
            if had && policy.entry().schema.is_none() {
                errors.add_in(&format!("schemas/{name}.json"), "is missing");
            }
        }
    }
}

fn compare_texts(before: Option<&str>, now: &str, errors: &mut Errors) {
    let documents = before.and_then(|before| document::parse(before).ok()).zip(document::parse(now).ok());
    let Some((before, parsed)) = documents else {
        errors.add(document::Place::default(), "the text of the set in force is not known");
        return;
    };
    for (at, what) in shape::differences((&before, &parsed), now, &|_| false) {
        errors.add(at, what);
    }
}

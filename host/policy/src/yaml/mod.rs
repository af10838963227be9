//! YAML read strictly: a key that comes twice, an unknown one and a value of another type are errors, each with file,
//! line and column. Policy sets, scenarios and other files that people write are read with it.

pub mod document;
pub mod error;
pub mod fields;
pub mod shape;

//! The variables of the process, as the program has read them.

use std::collections::BTreeMap;

/// The variables by which proxies are set, the likeliest first.
const PROXIES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// The variables that a client reads. The program reads the environment once, and hands it over.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// These variables.
    #[must_use]
    pub const fn new(variables: BTreeMap<String, String>) -> Environment {
        Environment(variables)
    }

    /// A variable that is set, and not empty: CI systems set those empty that do not apply.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A variable by which a proxy is set for other programs. Calls of a client go through none.
    #[must_use]
    pub fn unused_proxy(&self) -> Option<&'static str> {
        PROXIES.into_iter().find(|name| self.get(name).is_some())
    }

    /// The names that begin so.
    pub(crate) fn names<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.keys().map(String::as_str).filter(move |name| name.starts_with(prefix))
    }
}

/// Names alone: values may be secrets.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Environment {
        Environment(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }
}

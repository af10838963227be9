//! An admin, as the access file describes it: who administers the gateway, and with which roles.

use std::collections::BTreeSet;
use std::fmt;

use countersign_policy::yaml::fields::{NAME_RULE, is_name};

use crate::caller::TokenRule;

/// The name under which the audit log has whoever holds `ADMIN_TOKEN`. No admin of the access file can have it.
pub const ADMIN_TOKEN_NAME: &str = "admin-token";

/// The name of a caller or an admin, for commands that make what the access file keeps of it.
///
/// # Errors
/// Why the access file does not take it.
pub fn holder_name(name: &str) -> Result<String, String> {
    if !is_name(name) {
        return Err(NAME_RULE.to_owned());
    }
    if name == ADMIN_TOKEN_NAME {
        return Err(reserved());
    }
    Ok(name.to_owned())
}

/// Why no admin can be called [`ADMIN_TOKEN_NAME`].
pub(crate) fn reserved() -> String {
    format!("`{ADMIN_TOKEN_NAME}` is the holder of `ADMIN_TOKEN`: use another name")
}

/// Who may administer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Its name in the access file.
    pub name: String,
    /// What it may do. No role includes another one.
    pub roles: BTreeSet<Role>,
    /// The tokens that it is recognised by, if it is.
    pub tokens: Option<TokenRule>,
}

/// What an admin may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read the state of requests, and what is in force.
    Read,
    /// Act on requests.
    Operate,
    /// Change the policy set in force, and what could be put in force.
    Activate,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 3] = [Role::Read, Role::Operate, Role::Activate];

    /// As the access file writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Operate => "operate",
            Role::Activate => "activate",
        }
    }

    /// The role with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

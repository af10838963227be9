//! `admins`: who administers, with which roles.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign_policy::yaml::document::{Key, Node};

use super::Reading;
use crate::admin::{ADMIN_TOKEN_NAME, Admin, Role, reserved};
use crate::authenticate::Holder;
use crate::issuer::Issuer;

impl Reading<'_> {
    pub(super) fn admin(
        &mut self,
        key: &Key,
        node: &Node,
        issuers: &BTreeMap<String, Arc<Issuer>>,
    ) -> Option<Arc<Admin>> {
        let fields = self.reader.fields(node, "an admin", &["keys", "oidc", "certificate", "roles"])?;
        if key.text == ADMIN_TOKEN_NAME {
            self.reader.error(key.at, reserved());
        }
        let tokens = self.tokens(&fields, key, "admin", issuers);
        if fields.get("roles").is_none() {
            let message = format!("the admin `{}` has no `roles`: it could do nothing", key.text);
            self.reader.error(key.at, message);
        }
        let mut roles = BTreeSet::new();
        for (at, name) in self.one_or_more(fields.get("roles"), "`roles`") {
            match Role::named(&name) {
                Some(role) => drop(roles.insert(role)),
                None => {
                    let known = Role::ALL.map(|role| format!("`{role}`")).join(", ");
                    self.reader.error(at, format!("`{name}` is no role; there are {known}"));
                }
            }
        }
        let admin = Arc::new(Admin { name: key.text.clone(), roles, tokens });
        self.credentials(&fields, &Holder::Admin(Arc::clone(&admin)));
        Some(admin)
    }
}

//! The workspace: its people, groups and channels.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// The app's own ids: there is one app, and one bot of it.
pub(crate) const APP: &str = "A0COUNTERSIGN";
pub(crate) const BOT: &str = "B0COUNTERSIGN";
pub(crate) const BOT_USER: &str = "U0COUNTERSIGN";
pub(crate) const BOT_NAME: &str = "Countersign";

/// A workspace: its people, their groups and its channels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workspace {
    /// The workspace itself.
    pub team: Team,
    /// The people.
    pub people: Vec<Profile>,
    /// The user groups.
    #[serde(default)]
    pub groups: Vec<UserGroup>,
    /// The channels.
    pub channels: Vec<ChannelProfile>,
}

/// The name of a workspace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Team {
    /// `T…`.
    pub id: String,
    /// As people read it.
    pub name: String,
    /// As it stands in URLs.
    pub domain: String,
}

/// A person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// `U…` or `W…`.
    pub id: String,
    /// As mentions show it.
    pub handle: String,
    /// As people read it.
    pub name: String,
    /// Whether they have left: an admin has deactivated the account.
    #[serde(default)]
    pub deactivated: bool,
}

/// A user group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserGroup {
    /// `S…`.
    pub id: String,
    /// As mentions show it.
    pub handle: String,
    /// As people read it.
    pub name: String,
    /// The ids of its members.
    pub members: Vec<String>,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelProfile {
    /// `C…`.
    pub id: String,
    /// Without the `#`.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub topic: String,
    /// Whether only members see it.
    #[serde(default)]
    pub private: bool,
    /// Whether it is archived.
    #[serde(default)]
    pub archived: bool,
    /// Whether the app's bot was invited.
    #[serde(default = "invited")]
    pub bot_is_member: bool,
    /// The people in it; by default everybody.
    #[serde(default)]
    pub members: Option<Vec<String>>,
}

fn invited() -> bool {
    true
}

impl ChannelProfile {
    /// A public channel with everybody and the bot in it.
    #[must_use]
    pub fn new(id: &str, name: &str) -> ChannelProfile {
        ChannelProfile {
            id: id.to_owned(),
            name: name.to_owned(),
            topic: String::new(),
            private: false,
            archived: false,
            bot_is_member: true,
            members: None,
        }
    }

    /// With a topic.
    #[must_use]
    pub fn topic(mut self, topic: &str) -> ChannelProfile {
        topic.clone_into(&mut self.topic);
        self
    }
}

impl Workspace {
    /// The people and channels of the sample policies and the tests.
    #[must_use]
    pub fn sample() -> Workspace {
        let person = |(id, handle, name): (&str, &str, &str)| Profile {
            id: id.to_owned(),
            handle: handle.to_owned(),
            name: name.to_owned(),
            deactivated: false,
        };
        let people = [
            ("U0ALICE", "alice", "Alice Adeyemi"),
            ("U0BOB", "bob", "Bob Brandt"),
            ("U0CAROL", "carol", "Carol Castillo"),
            ("U0DANA", "dana", "Dana Dvořák"),
            ("U0SEC", "sec", "Sam Sec"),
            ("U0RM1", "rm1", "Rita Release"),
            ("U0RM2", "rm2", "Rolf Release"),
            ("U0RM3", "rm3", "Rosa Release"),
            ("U0LEAD", "lead", "Lena Lead"),
            ("U0ADMIN", "admin", "Ada Admin"),
            ("U0REQ", "requester", "Rea Quester"),
            ("U0MALLORY", "mallory", "Mallory Moss"),
        ];
        let members = ["U0RM1", "U0RM2", "U0RM3"].map(str::to_owned).to_vec();
        Workspace {
            team: Team { id: "T0ACME".into(), name: "Acme".into(), domain: "acme".into() },
            people: people.into_iter().map(person).collect(),
            groups: vec![UserGroup {
                id: "S0RELEASE".into(),
                handle: "release-managers".into(),
                name: "Release managers".into(),
                members,
            }],
            channels: vec![
                ChannelProfile::new("C0APPROVALS", "approvals").topic("What automation asks people"),
                ChannelProfile::new("C0ONCALL", "on-call").topic("What cannot wait"),
                ChannelProfile {
                    private: true,
                    ..ChannelProfile::new("C0PRIVATE", "ops-private").topic("Operations, among themselves")
                },
            ],
        }
    }

    /// Reads a workspace from JSON.
    ///
    /// # Errors
    /// If it has another structure, or uses an id twice.
    pub fn parse(json: &str) -> Result<Workspace> {
        let workspace: Workspace = serde_json::from_str(json).context("the workspace cannot be read")?;
        let people = workspace.people.iter().map(|person| &person.id);
        let groups = workspace.groups.iter().map(|group| &group.id);
        let channels = workspace.channels.iter().map(|channel| &channel.id);
        let mut ids: Vec<&String> = people.chain(groups).chain(channels).collect();
        let count = ids.len();
        ids.sort();
        ids.dedup();
        anyhow::ensure!(ids.len() == count, "two things in the workspace have the same id");
        Ok(workspace)
    }

    pub(crate) fn person(&self, id: &str) -> Option<&Profile> {
        self.people.iter().find(|person| person.id == id)
    }

    pub(crate) fn group(&self, id: &str) -> Option<&UserGroup> {
        self.groups.iter().find(|group| group.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_reads_back_and_mistakes_are_told() {
        let sample = Workspace::sample();
        let json = serde_json::to_string(&sample).unwrap();
        assert_eq!(Workspace::parse(&json).unwrap(), sample);
        assert!(Workspace::parse(&json.replace("U0BOB", "U0ALICE")).is_err());
        assert!(Workspace::parse(&json.replace("\"topic\"", "\"tropic\"")).is_err());
    }
}

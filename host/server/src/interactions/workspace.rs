//! Whether the person who acted belongs to the gateway's own workspace: only those people count, and those of the
//! workspaces that the settings list.

use std::collections::BTreeSet;

use countersign_slack::{Identity, Interaction, Workspace};

use super::perform::PerformError;
use crate::state::App;
use crate::telemetry::SecurityEvent;

/// Checks that the person belongs to a workspace whose people count. Until Slack has said which one the gateway's is,
/// all do.
pub(super) fn check(app: &App, interaction: &Interaction) -> Result<(), PerformError> {
    let Some(own) = app.outgoing.as_ref().and_then(|outgoing| outgoing.client.identity()) else {
        return Ok(());
    };
    let Interaction { request, workspace, .. } = interaction;
    if counts(&own, &app.slack_team_ids, workspace) {
        return Ok(());
    }
    app.metrics.count(SecurityEvent::ForeignWorkspace);
    let Workspace { team, enterprise } = workspace;
    let code = PerformError::ForeignWorkspace.code();
    tracing::warn!(%request, code, team, enterprise, "Slack interaction rejected");
    Err(PerformError::ForeignWorkspace)
}

/// Whether people of the workspace `theirs` count. One that Slack does not name does not.
fn counts(own: &Identity, listed: &BTreeSet<String>, theirs: &Workspace) -> bool {
    if own.team_id.is_none() && own.enterprise_id.is_none() {
        return true;
    }
    let is_own = |id| own.team_id.as_ref() == Some(id) || own.enterprise_id.as_ref() == Some(id);
    [&theirs.team, &theirs.enterprise].into_iter().flatten().any(|id| is_own(id) || listed.contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_of_the_own_workspace_and_organization_count() {
        let id = |id: &str| Some(id.to_owned()).filter(|id| !id.is_empty());
        let rows = [
            // The gateway's workspace and organization, the settings, the person's; whether they count.
            (("T1", ""), &[][..], ("T1", ""), true),
            (("T1", ""), &[], ("T2", ""), false),
            (("T1", ""), &[], ("T2", "E1"), false),
            (("T1", ""), &[], ("E2", ""), false),
            (("T1", ""), &[], ("", ""), false),
            (("T1", ""), &["T2"], ("T2", ""), true),
            (("T1", ""), &["T2"], ("T3", "E3"), false),
            (("T1", ""), &["T2", "E3"], ("T3", "E3"), true),
            (("T1", ""), &["E3"], ("E3", ""), true),
            (("T1", ""), &["T2"], ("T1", ""), true),
            (("T1", "E1"), &[], ("T1", "E1"), true),
            (("T1", "E1"), &[], ("T1", ""), true),
            (("T1", "E1"), &[], ("T2", "E1"), true),
            (("T1", "E1"), &[], ("E1", ""), true),
            (("T1", "E1"), &[], ("T2", "E2"), false),
            (("T1", "E1"), &[], ("T2", ""), false),
            (("T1", "E1"), &[], ("", ""), false),
            (("", "E1"), &[], ("T2", "E1"), true),
            (("E1", "E1"), &[], ("T2", "E1"), true),
            (("", "E1"), &[], ("T2", ""), false),
            // Slack did not say whose the token is.
            (("", ""), &[], ("T2", ""), true),
        ];
        for (own, listed, theirs, expected) in rows {
            let identity = Identity {
                team_id: id(own.0),
                enterprise_id: id(own.1),
                user_id: "UBOT".to_owned(),
                bot_id: None,
            };
            let listed = listed.iter().map(|id| (*id).to_owned()).collect();
            let workspace = Workspace { team: id(theirs.0), enterprise: id(theirs.1) };
            assert_eq!(counts(&identity, &listed, &workspace), expected, "{own:?} {listed:?} {theirs:?}");
        }
    }
}

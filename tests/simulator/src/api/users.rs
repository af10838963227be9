//! `auth.test`, `users.*` and `usergroups.*`.

use serde_json::json;

use super::{Addresses, Answer, Arguments};
use crate::workspace::{BOT, BOT_NAME, BOT_USER};
use crate::world::World;

pub(super) fn auth_test(world: &mut World, _: &Arguments, _: &Addresses) -> Answer {
    let team = &world.workspace.team;
    Ok(json!({
        "url": format!("https://{}.slack.com/", team.domain),
        "team": team.name,
        "user": BOT_NAME.to_lowercase(),
        "team_id": team.id,
        "user_id": BOT_USER,
        "bot_id": BOT,
        "is_enterprise_install": false,
    }))
}

pub(super) fn usergroup_members(world: &mut World, arguments: &Arguments, _: &Addresses) -> Answer {
    let group = world.workspace.group(&arguments.need("usergroup")?).ok_or("no_such_subteam")?;
    Ok(json!({"users": group.members}))
}

pub(super) fn info(world: &mut World, arguments: &Arguments, _: &Addresses) -> Answer {
    let id = arguments.need("user")?;
    let team = &world.workspace.team.id;
    let person = |id: &str, handle: &str, name: &str, (bot, deleted): (bool, bool)| {
        json!({"user": {
            "id": id,
            "team_id": team,
            "name": handle,
            "deleted": deleted,
            "real_name": name,
            "tz": "Etc/UTC",
            "tz_label": "Coordinated Universal Time",
            "tz_offset": 0,
            "profile": {"real_name": name, "display_name": handle, "team": team},
            "is_bot": bot,
            "is_app_user": false,
            "updated": 1_700_000_000,
        }})
    };
    if id == BOT_USER {
        return Ok(person(BOT_USER, &BOT_NAME.to_lowercase(), BOT_NAME, (true, false)));
    }
    let found = world.workspace.person(&id).ok_or("user_not_found")?;
    Ok(person(&found.id, &found.handle, &found.name, (false, found.deactivated)))
}

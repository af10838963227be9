//! `views.*`.

use serde_json::{Value, json};

use super::{Addresses, Answer, Arguments, Refusal};
use crate::world::World;
use crate::{blocks, clock};

pub(super) fn open(world: &mut World, arguments: &Arguments, _: &Addresses) -> Answer {
    let trigger = arguments.need("trigger_id")?;
    let view = view(arguments)?;
    let user = world.check_trigger(&trigger, clock::micros())?;
    let Some(opened) = world.open_view(&user, view) else { return Err("push_limit_reached".into()) };
    world.use_trigger(&trigger);
    Ok(json!({"view": opened.json(&world.workspace.team)}))
}

pub(super) fn update(world: &mut World, arguments: &Arguments, _: &Addresses) -> Answer {
    let view = view(arguments)?;
    let opened = match (arguments.text("view_id"), arguments.text("external_id")) {
        (Some(id), _) => world.views.iter().find(|view| view.id == id),
        (None, Some(id)) => world.views.iter().find(|view| view.view["external_id"] == *id),
        (None, None) => {
            let messages = vec!["missing required field: view_id or external_id".to_owned()];
            return Err(Refusal::because("invalid_arguments", messages));
        }
    };
    let opened = opened.ok_or("not_found")?;
    if arguments.text("hash").is_some_and(|hash| hash != opened.hash) {
        return Err("hash_conflict".into());
    }
    let id = opened.id.clone();
    let updated = world.update_view(&id, view).ok_or("not_found")?;
    Ok(json!({"view": updated.json(&world.workspace.team)}))
}

fn view(arguments: &Arguments) -> Result<Value, Refusal> {
    const MOST_BYTES: usize = 250_000;
    let malformed = |message: &str| Refusal::because("invalid_arguments", vec![message.to_owned()]);
    let view = arguments.json("view").map_err(|()| malformed("`view` is no JSON"))?;
    let view = view.ok_or_else(|| malformed("missing required field: view"))?;
    if view.to_string().len() > MOST_BYTES {
        return Err("view_too_large".into());
    }
    let problems = blocks::check_view(&view);
    if problems.is_empty() { Ok(view) } else { Err(Refusal::because("invalid_arguments", problems)) }
}

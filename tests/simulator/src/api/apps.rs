//! `apps.connections.open`.

use serde_json::json;

use super::{Addresses, Answer, Arguments};
use crate::workspace::APP;
use crate::world::World;

pub(super) fn open_connection(world: &mut World, _: &Arguments, addresses: &Addresses) -> Answer {
    let ticket = world.ticket();
    Ok(json!({"url": format!("{}/link/?ticket={ticket}&app_id={APP}", addresses.socket)}))
}

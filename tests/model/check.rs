//! What has to hold after every step.

use reverse_etl::{Value, state::record::RowRecord};

use crate::world::{Service, World};

/// Promises 1 and 2: the state claims nothing that the destination does not hold, unless others have changed it since.
pub(crate) fn state(world: &mut World) {
    for key in 0..world.keys {
        if let Some(record) = world.records[key].clone()
            && let Some(violation) = fields(world, key, &record).or_else(|| row(world, key, &record))
        {
            world.violate(violation);
        }
    }
}

fn fields(world: &World, key: usize, record: &RowRecord) -> Option<String> {
    let held = &world.held[key];
    for (slot, (field, id)) in &world.slots {
        let Some(print) = record.field(*slot) else { continue };
        let is_there = *id != 0 && world.field_ids[*field] == *id;
        if !is_there || world.learnt.get(&(key, *slot)) != Some(&world.edits[key]) {
            continue;
        }
        if !held.exists || print != world.print(*slot, held.values[*field].as_ref()) {
            let value = held.values[*field].as_ref().map_or("nothing".to_owned(), shown);
            return Some(format!(
                "promises 1 and 2: the state has another value of field {field} of {key} than the destination, which \
                 holds {value}{}",
                if held.exists { "" } else { " since it does not know the key" }
            ));
        }
    }
    None
}

fn row(world: &World, key: usize, record: &RowRecord) -> Option<String> {
    record.row()?;
    if record.mark().is_some() || record.held().is_some() {
        return Some(format!("row {key} is settled although it is marked or held"));
    }
    let is_untouched = world.settled_at[key] == world.edits[key];
    let held = &world.held[key];
    let is_there = if world.service == Service::Members { held.is_member } else { held.exists };
    (is_untouched && !is_there).then(|| format!("promises 1 and 2: row {key} is settled, and is not there"))
}

pub(crate) fn shown(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

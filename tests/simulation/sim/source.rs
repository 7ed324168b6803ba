//! What the source has, how it is mapped, and how a run is set up: all that its owner edits between runs.

use std::collections::BTreeSet;

use reverse_etl::{Column, DuplicatePolicy, FieldKind, Mapping, Record, Value, emarsys::FieldId};
use serde_json::{Value as Json, json};

use super::{
    choices::Draw,
    story::ORIGIN,
    switches::{Switch, Switches},
    world::{LISTS, email},
};

/// The fields that can be mapped: column, name of the field, and the values that its rows have, with what is stored of each.
pub(crate) const FIELDS: [(&str, &str); 4] =
    [("first_name", "1"), ("level", "Loyalty level"), ("sex", "5"), ("points", "Points")];

/// A value in the source, and what the account holds when it has arrived.
fn values(field: usize) -> [(Value, Json); 3] {
    let text = |text: &str| (Value::from(text), json!(text));
    match field {
        0 => [text("Ada"), text("Bob"), text("Cleo")],
        1 => [text("gold"), text("silver"), text("a \"b\"; c")],
        2 => [
            (Value::from("female"), json!("2")),
            (Value::from("Male"), json!("1")),
            (Value::from("2"), json!("2")),
        ],
        _ => [
            (Value::from(7), json!("7")),
            (Value::from(" 007.50 "), json!("7.5")),
            (Value::from("-3"), json!("-3")),
        ],
    }
}

/// A value of one row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Absent,
    Null,
    /// One of the field's values.
    Is(usize),
    /// One that does not fit, so that the row is invalid.
    Unfit,
}

/// What the source has under one key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Row {
    Absent,
    Once(Vec<Cell>),
    /// Two equal rows.
    Twice(Vec<Cell>),
    /// Two rows with other values.
    Conflict(Vec<Cell>),
}

/// How a run is set up.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Setup {
    pub(crate) inserts: bool,
    pub(crate) list: usize,
    pub(crate) mapped: [bool; 4],
    /// A value that only a creation writes: which of [`ORIGINS`], if any.
    pub(crate) on_create: Option<usize>,
    pub(crate) duplicates: DuplicatePolicy,
    pub(crate) leaves_late: bool,
    /// No contact may be added: a guard refuses.
    pub(crate) is_guarded: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            inserts: true,
            list: 0,
            mapped: [true; 4],
            on_create: None,
            duplicates: DuplicatePolicy::Withhold,
            leaves_late: false,
            is_guarded: false,
        }
    }
}

/// Where people come from, which only a creation writes.
pub(crate) const ORIGINS: [&str; 2] = ["import", "shop"];

impl Setup {
    /// The owner edits the set-up.
    pub(crate) fn edit(&mut self, choices: &mut Draw, switches: &Switches) {
        let before = self.clone();
        // Everything is drawn, whether it is edited or not: then a choice less does not shift those that follow.
        self.inserts ^= choices.one_in(4);
        self.list ^= usize::from(choices.one_in(6));
        let (is_edited, field) = (choices.one_in(4), choices.below(4));
        self.mapped[field] ^= is_edited;
        let (is_edited, origin) = (choices.one_in(4), choices.of(&[None, Some(0), Some(1)]));
        if is_edited {
            self.on_create = origin;
        }
        let policies = [DuplicatePolicy::Withhold, DuplicatePolicy::First, DuplicatePolicy::Last];
        let (is_edited, policy) = (choices.one_in(6), choices.of(&policies));
        if is_edited {
            self.duplicates = policy;
        }
        self.leaves_late = choices.one_in(8);
        self.is_guarded = choices.one_in(12);
        if switches.has(Switch::SteadySetup) {
            *self = before;
        }
        self.inserts &= !switches.has(Switch::UpdateOnly);
        self.is_guarded &= !switches.has(Switch::NoStops);
    }

    /// The set-up as a story tells it.
    pub(crate) fn told(&self) -> String {
        let mode = if self.inserts {
            format!("inserts into {}", LISTS[self.list])
        } else {
            "updates only".to_owned()
        };
        let mapped = FIELDS.iter().zip(self.mapped).filter(|(_, mapped)| *mapped);
        let mapped: Vec<&str> = mapped.map(|((column, _), _)| *column).collect();
        let origin =
            self.on_create.map(|origin| format!(", and {ORIGIN} \"{}\" for creation", ORIGINS[origin]));
        let which = match self.duplicates {
            DuplicatePolicy::First => ", of two rows the first",
            DuplicatePolicy::Last => ", of two rows the last",
            _ => "",
        };
        let mut told = format!("{mode}, maps {}{}{which}", mapped.join(", "), origin.unwrap_or_default());
        for (is_so, what) in [
            (self.leaves_late, ", leaves rows that have to wait to the next run"),
            (self.is_guarded, ", with a guard that refuses added rows"),
        ] {
            told.push_str(if is_so { what } else { "" });
        }
        told
    }

    /// What a creation writes beside the mapped fields.
    pub(crate) fn creation(&self) -> Option<usize> {
        self.on_create.filter(|_| self.inserts)
    }

    pub(crate) fn mapping(&self) -> Mapping {
        let mut mapping = Mapping::new("email");
        for ((column, field), _) in FIELDS.iter().zip(self.mapped).filter(|(_, mapped)| *mapped) {
            mapping = mapping.column(match *field {
                "Loyalty level" => Column::new(*column, *field).create(FieldKind::Text { chars_max: 60 }),
                "Points" => Column::new(*column, *field).create(FieldKind::Number { digits_max: 24 }),
                _ => Column::new(*column, *field),
            });
        }
        if self.on_create.is_some() {
            mapping = mapping.column(Column::new(ORIGIN, FieldId::CITY).on_create());
        }
        mapping
    }

    /// The fields that may be written to, by name or number.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let mapped = FIELDS.iter().zip(self.mapped).filter(|(_, mapped)| *mapped);
        mapped.map(|((_, field), _)| (*field).to_owned()).collect()
    }
}

impl Row {
    /// The owner edits the row.
    pub(crate) fn edit(&mut self, choices: &mut Draw) {
        let is_edited = choices.one_in(2) || *self == Row::Absent;
        let cell = |choices: &mut Draw| match choices.pick(18, 700) {
            1..4 => Cell::Null,
            4..7 => Cell::Absent,
            7..11 => Cell::Is(1),
            11..15 => Cell::Is(2),
            15 => Cell::Unfit,
            _ => Cell::Is(0),
        };
        let cells: Vec<Cell> = FIELDS.iter().map(|_| cell(choices)).collect();
        let row = match choices.pick(8, 400) {
            1 | 2 => Row::Absent,
            3 => Row::Twice(cells),
            4 => Row::Conflict(cells),
            _ => Row::Once(cells),
        };
        if is_edited {
            *self = row;
        }
    }

    /// The rows of the source.
    pub(crate) fn records(&self, key: usize, setup: &Setup, spelled: bool) -> Vec<Record> {
        let address = if spelled { email(key).to_uppercase() } else { email(key) };
        let record = |cells: &[Cell]| {
            let origin = ORIGINS[setup.on_create.unwrap_or(0)];
            let mut record = Record::new().with("email", address.clone()).with(ORIGIN, origin);
            for (field, ((column, _), cell)) in FIELDS.iter().zip(cells).enumerate() {
                record = match cell {
                    Cell::Absent => record,
                    Cell::Null => record.with(*column, Value::Null),
                    Cell::Is(at) => record.with(*column, values(field)[*at].0.clone()),
                    // Neither a choice nor a number, and too long for a text.
                    Cell::Unfit => record.with(*column, "x".repeat(300)),
                };
            }
            record
        };
        match self {
            Row::Absent => Vec::new(),
            Row::Once(cells) => vec![record(cells)],
            Row::Twice(cells) => vec![record(cells), record(cells)],
            Row::Conflict(cells) => vec![record(cells), record(&other(cells, setup))],
        }
    }

    /// The row as a story tells it.
    pub(crate) fn told(&self, setup: &Setup) -> String {
        let value = |field: usize, at: usize| serde_json::to_string(&values(field)[at].0).unwrap_or_default();
        let told = |cells: &[Cell]| {
            let cells = FIELDS.iter().zip(cells).enumerate();
            let told = cells.filter_map(|(field, ((column, _), cell))| match cell {
                Cell::Absent => None,
                Cell::Null => Some(format!("{column} null")),
                Cell::Is(at) => Some(format!("{column} {}", value(field, *at))),
                Cell::Unfit => Some(format!("{column} too long")),
            });
            format!("({})", told.collect::<Vec<_>>().join(", "))
        };
        match self {
            Row::Absent => "nothing".to_owned(),
            Row::Once(cells) => told(cells),
            Row::Twice(cells) => format!("twice {}", told(cells)),
            Row::Conflict(cells) => format!("{} and then {}", told(cells), told(&other(cells, setup))),
        }
    }

    /// What the account has to hold of a row that is in order: for each mapped field that the row has, what is stored.
    /// `None` of a row that is not to be synced.
    pub(crate) fn expected(&self, setup: &Setup) -> Option<Vec<(usize, Json)>> {
        let is_fit = |cells: &[Cell]| {
            let mut mapped = cells.iter().zip(setup.mapped).filter(|(_, mapped)| *mapped);
            mapped.all(|(cell, _)| *cell != Cell::Unfit)
        };
        let cells = match (self, setup.duplicates) {
            (Row::Once(cells) | Row::Twice(cells), _) => cells.clone(),
            (Row::Conflict(cells), DuplicatePolicy::First) if is_fit(cells) => cells.clone(),
            (Row::Conflict(cells), DuplicatePolicy::First | DuplicatePolicy::Last) => other(cells, setup),
            _ => return None,
        };
        let mut expected = Vec::new();
        for (field, cell) in cells.iter().enumerate().filter(|(field, _)| setup.mapped[*field]) {
            match cell {
                Cell::Absent => {}
                Cell::Null => expected.push((field, Json::Null)),
                Cell::Is(at) => expected.push((field, values(field)[*at].1.clone())),
                Cell::Unfit => return None,
            }
        }
        Some(expected)
    }
}

/// The cells of a second row of the same key: all mapped ones differ.
fn other(cells: &[Cell], setup: &Setup) -> Vec<Cell> {
    let mut cells = cells.to_vec();
    for (cell, mapped) in cells.iter_mut().zip(setup.mapped) {
        if mapped {
            *cell = if *cell == Cell::Is(1) { Cell::Is(0) } else { Cell::Is(1) };
        }
    }
    cells
}

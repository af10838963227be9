//! Increments of counters, summed over a transaction.

use std::collections::HashMap;

use countersign_core::lifecycle::Count;
use rusqlite::{Connection, params};

use crate::StoreError;
use crate::sqlite::column::{integer, json};

/// By how much each counter grows in a transaction: a counter that every write increments is updated once.
#[derive(Default)]
pub(super) struct Counts(HashMap<CounterRow, u64>);

/// The key of a counter's row: the metric's name, and its labels as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CounterRow {
    metric: String,
    labels: String,
}

/// An increment of a counter.
#[derive(Clone, Debug)]
pub(in crate::sqlite) struct CountRow {
    counter: CounterRow,
    by: u64,
}

impl CountRow {
    pub(in crate::sqlite) fn of(count: Count) -> Result<CountRow, StoreError> {
        let labels = json(&count.counter.labels)?;
        Ok(CountRow { counter: CounterRow { metric: count.counter.metric, labels }, by: count.by })
    }
}

impl Counts {
    pub(super) fn add(&mut self, count: &CountRow) {
        self.add_to(&count.counter, count.by);
    }

    pub(super) fn merge(&mut self, other: Counts) {
        for (counter, by) in other.0 {
            self.add_to(&counter, by);
        }
    }

    pub(super) fn store(self, db: &Connection) -> rusqlite::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut add = db.prepare_cached(
            "INSERT INTO counter (metric, labels, value) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET value = value + excluded.value",
        )?;
        for (CounterRow { metric, labels }, by) in self.0 {
            add.execute(params![metric, labels, integer(by)])?;
        }
        Ok(())
    }

    fn add_to(&mut self, counter: &CounterRow, by: u64) {
        match self.0.get_mut(counter) {
            Some(sum) => *sum = sum.saturating_add(by),
            None => {
                self.0.insert(counter.clone(), by);
            }
        }
    }
}

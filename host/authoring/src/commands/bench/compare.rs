//! Compares figures with earlier ones.
//!
//! Fuel is the same on every machine, so it is compared exactly.
//! Time depends on the machine, so its median and 95th percentile are compared with a tolerance.
//! The 99th percentile is not compared: other load on the machine decides it.

use serde::Serialize;

use super::measure::{Figures, Function};

/// How much worse a figure may become.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerance {
    pub(super) time_percent: u32,
    pub(super) fuel_percent: u32,
}

/// What has become worse, and what can no longer be compared.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Comparison {
    pub(super) worse: Vec<Worse>,
    pub(super) missing: Vec<Missing>,
}

/// One figure that is worse than it was.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Worse {
    pub(super) function: Function,
    /// `fuel of …`, `p50` or `p95`.
    pub(super) figure: String,
    pub(super) before: f64,
    pub(super) now: f64,
}

/// A call that was measured before and is no longer made, so that its cost is unknown.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Missing {
    pub(super) function: Function,
    pub(super) call: String,
}

impl Comparison {
    pub(super) fn good(&self) -> bool {
        self.worse.is_empty() && self.missing.is_empty()
    }
}

/// Compares two runs of the same module. Calls that are new are compared with nothing.
pub(super) fn compare(before: &Figures, now: &Figures, tolerance: Tolerance) -> Comparison {
    let over = |before: f64, now: f64, percent: u32| now > before * (1.0 + f64::from(percent) / 100.0);
    let mut worse = Vec::new();
    for (function, figure) in &now.functions {
        let Some(earlier) = before.functions.get(function) else { continue };
        for (call, fuel) in &figure.fuel {
            let Some(used) = earlier.fuel.get(call) else { continue };
            if fuel > used && over(exact(*used), exact(*fuel), tolerance.fuel_percent) {
                let figure = format!("fuel of {call}");
                worse.push(Worse { function: *function, figure, before: exact(*used), now: exact(*fuel) });
            }
        }
        let times = [("p50", earlier.p50_us, figure.p50_us), ("p95", earlier.p95_us, figure.p95_us)];
        for (name, before, now) in times {
            if over(before, now, tolerance.time_percent) {
                worse.push(Worse { function: *function, figure: name.to_owned(), before, now });
            }
        }
    }
    Comparison { worse, missing: missing(before, now) }
}

/// The calls that were measured before and are no longer made. Renaming a scenario renames its calls.
fn missing(before: &Figures, now: &Figures) -> Vec<Missing> {
    let mut missing = Vec::new();
    for (function, earlier) in &before.functions {
        let figure = now.functions.get(function);
        for call in earlier.fuel.keys() {
            if !figure.is_some_and(|figure| figure.fuel.contains_key(call)) {
                missing.push(Missing { function: *function, call: call.clone() });
            }
        }
    }
    missing
}

/// Fuel as a double, which is exact for all amounts that a call can use.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a call has at most ten million units of fuel"
)]
fn exact(fuel: u64) -> f64 {
    fuel as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn fuel_is_compared_exactly_and_time_with_a_tolerance() {
        let tolerance = |time_percent, fuel_percent| Tolerance { time_percent, fuel_percent };
        let before = Figures::example(1000, 10.0, 20.0);
        for (now, tolerance, worse) in [
            (Figures::example(1000, 10.0, 20.0), tolerance(0, 0), &[][..]),
            (Figures::example(1001, 10.0, 20.0), tolerance(50, 0), &["fuel of `a`"]),
            (Figures::example(1001, 10.0, 20.0), tolerance(50, 1), &[]),
            (Figures::example(999, 15.0, 30.0), tolerance(50, 0), &[]),
            (Figures::example(999, 15.1, 30.1), tolerance(50, 0), &["p50", "p95"]),
        ] {
            let comparison = compare(&before, &now, tolerance);
            let found: Vec<&str> = comparison.worse.iter().map(|worse| worse.figure.as_str()).collect();
            assert_eq!(found, worse, "{now:?}");
            assert_eq!(comparison.good(), worse.is_empty(), "{now:?}");
        }
        let none = Figures { functions: BTreeMap::new(), ..Figures::example(1, 1.0, 1.0) };
        // A new call has nothing to be compared with; one that is gone might have become worse.
        assert!(compare(&none, &before, tolerance(0, 0)).good());
        let gone = compare(&before, &none, tolerance(10_000, 10_000));
        assert_eq!(gone.missing, [Missing { function: Function::Judge, call: "`a`".to_owned() }]);
        assert!(!gone.good());
    }
}

//! Prints figures and a comparison.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;

use super::compare::{Comparison, Missing, Worse};
use super::measure::{Figure, Figures, Function};
use crate::shown::plain;
use crate::table::{cell, columns};
use crate::{Answer, words};

pub(super) fn text(figures: &Figures, before: Option<&Figures>, comparison: &Comparison) -> String {
    let mut text = format!(
        "{}  {}\neach call made {} times, in a fresh sandbox\n\n",
        plain(&figures.module),
        plain(&figures.digest),
        figures.calls
    );
    let mut heading = vec!["call", "p50 µs", "p95 µs", "p99 µs", "max fuel"];
    if before.is_some() {
        heading.extend(["p50 before", "p95 before", "fuel before"]);
    }
    let mut rows = vec![heading.into_iter().map(cell).collect::<Vec<_>>()];
    for (function, figure) in &figures.functions {
        let Figure { p50_us, p95_us, p99_us, .. } = figure;
        let mut row = vec![
            cell(function.name()),
            cell(format!("{p50_us:.1}")),
            cell(format!("{p95_us:.1}")),
            cell(format!("{p99_us:.1}")),
            cell(figure.max_fuel().to_string()),
        ];
        if let Some(before) = before.and_then(|before| before.functions.get(function)) {
            row.push(cell(format!("{:.1}", before.p50_us)));
            row.push(cell(format!("{:.1}", before.p95_us)));
            row.push(cell(before.max_fuel().to_string()));
        }
        rows.push(row);
    }
    text.push_str(&columns(2, &rows));
    if let Some(before) = before {
        let (fewer, compared) = less_fuel(before, figures);
        let _ = writeln!(
            text,
            "\nof {} measured before, {compared} could be compared, and {fewer} of those used less fuel",
            words::count(compared + comparison.missing.len(), "call")
        );
    }
    if !figures.functions.contains_key(&Function::Judge) {
        text.push_str("\nno synthetic request could be made: pass scenarios to measure the other calls\n");
    }
    for Worse { function, figure, before, now } in &comparison.worse {
        let _ = writeln!(text, "WORSE    {}: {} was {before}, is {now}", function.name(), plain(figure));
    }
    for Missing { function, call } in &comparison.missing {
        let _ =
            writeln!(text, "MISSING  {}: {} was measured before, but not now", function.name(), plain(call));
    }
    text
}

/// How many calls use less fuel than before, and how many were compared.
fn less_fuel(before: &Figures, now: &Figures) -> (usize, usize) {
    let pairs = now.functions.iter().flat_map(|(function, figure)| {
        let earlier = before.functions.get(function);
        figure.fuel.iter().filter_map(move |(call, fuel)| Some((earlier?.fuel.get(call)?, fuel)))
    });
    let pairs: Vec<_> = pairs.collect();
    (pairs.iter().filter(|(before, now)| now < before).count(), pairs.len())
}

pub(super) fn json(figures: &Figures, compared: bool, comparison: &Comparison) -> Result<Answer> {
    Answer::json(&View { figures, compared, comparison }, comparison.good())
}

#[derive(Serialize)]
struct View<'a> {
    #[serde(flatten)]
    figures: &'a Figures,
    compared: bool,
    #[serde(flatten)]
    comparison: &'a Comparison,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_as_text() {
        let (before, now) = (Figures::example(1000, 10.0, 20.0), Figures::example(1200, 8.0, 41.5));
        let comparison = Comparison {
            worse: vec![
                Worse {
                    function: Function::Judge,
                    figure: "fuel of `a`".to_owned(),
                    before: 1000.0,
                    now: 1200.0,
                },
                Worse { function: Function::Judge, figure: "p95".to_owned(), before: 20.0, now: 41.5 },
            ],
            missing: vec![Missing { function: Function::Admit, call: "`b`".to_owned() }],
        };
        insta::assert_snapshot!(text(&now, Some(&before), &comparison), @"
    m  sha256:00
    each call made 10 times, in a fresh sandbox

      call   p50 µs  p95 µs  p99 µs  max fuel  p50 before  p95 before  fuel before
      judge  8.0     41.5    99.0    1200      10.0        20.0        1000

    of 2 calls measured before, 1 could be compared, and 0 of those used less fuel
    WORSE    judge: fuel of `a` was 1000, is 1200
    WORSE    judge: p95 was 20, is 41.5
    MISSING  admit: `b` was measured before, but not now
    ");
    }
}

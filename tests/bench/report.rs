//! The report: what was measured, against which budget, on which machine.

use std::fmt::Write as _;

use crate::machine;

/// Rows, in the order in which they were measured.
pub(crate) struct Report {
    quick: bool,
    rows: String,
}

impl Report {
    pub(crate) fn new(quick: bool) -> Report {
        eprintln!("measuring; other work on this machine makes the figures worse");
        Report { quick, rows: String::new() }
    }

    /// A row with a budget, and whether it was kept.
    pub(crate) fn judged(&mut self, what: &str, budget: &str, measured: &str, kept: bool) {
        self.row(what, budget, measured, if kept { "yes" } else { "**no**" });
    }

    /// A row without a budget, for comparison.
    pub(crate) fn compared(&mut self, what: &str, measured: &str) {
        self.row(what, "", measured, "");
    }

    fn row(&mut self, what: &str, budget: &str, measured: &str, kept: &str) {
        eprintln!("  {what}: {measured}");
        writeln!(self.rows, "| {what} | {budget} | {measured} | {kept} |")
            .expect("a String takes all that is written to it");
    }

    /// Markdown.
    pub(crate) fn text(&self) -> String {
        let quick = if self.quick { " --quick" } else { "" };
        format!(
            "Measured by `cargo xtask bench{quick}` on {}.\n\n\
             | what | budget | measured | kept |\n|---|---|---|---|\n{}",
            machine::description(),
            self.rows
        )
    }
}

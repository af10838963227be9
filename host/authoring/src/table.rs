//! Lays out text in columns.

use crate::shown::plain;

/// The maximum width of a column; longer lines are wrapped at spaces.
const MAX_WIDTH: usize = 44;
/// The maximum width of the last column.
const LAST_MAX_WIDTH: usize = 80;

/// Formats rows of cells, each cell a list of lines that stay such, whoever wrote them. Columns are separated by two spaces.
pub(crate) fn columns(indent: usize, rows: &[Vec<Vec<String>>]) -> String {
    let rows: Vec<Vec<Vec<String>>> = rows.iter().map(|row| wrapped(row)).collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            let widest = cell.iter().map(|line| line.chars().count()).max().unwrap_or_default();
            match widths.get_mut(column) {
                Some(width) => *width = (*width).max(widest),
                None => widths.push(widest),
            }
        }
    }
    let mut text = String::new();
    for row in &rows {
        let height = row.iter().map(Vec::len).max().unwrap_or_default();
        for index in 0..height {
            let mut line = " ".repeat(indent);
            for (cell, width) in row.iter().zip(&widths) {
                let part = cell.get(index).map_or("", String::as_str);
                line.push_str(&format!("{part:<width$}  "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

/// A cell with one line.
pub(crate) fn cell(text: impl Into<String>) -> Vec<String> {
    vec![text.into()]
}

fn wrapped(row: &[Vec<String>]) -> Vec<Vec<String>> {
    let last = row.len().saturating_sub(1);
    let width = |column: usize| if column == last { LAST_MAX_WIDTH } else { MAX_WIDTH };
    let cell = |(column, cell): (usize, &Vec<String>)| {
        cell.iter().flat_map(|line| wrap(&plain(line), width(column))).collect()
    };
    row.iter().enumerate().map(cell).collect()
}

/// Breaks a line at spaces; continuation lines are indented by two.
fn wrap(line: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut current = String::new();
    for word in line.split(' ') {
        let wide = current.chars().count() + 1 + word.chars().count() > width;
        if wide && !current.trim().is_empty() {
            lines.push(std::mem::replace(&mut current, format!("  {word}")));
        } else {
            if !current.is_empty() {
                current.push(' ');
            }
            current.push_str(word);
        }
    }
    lines.push(current);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_long_cells_wrap() {
        let long = "a cell that is much longer than a column can be, and so is wrapped at a space".to_owned();
        let rows = [
            vec![cell("what"), cell("expected"), cell("seen")],
            vec![cell("outcome"), vec!["one".to_owned(), "two".to_owned()], vec![long.clone()]],
            vec![cell("memo"), vec![long.clone()], vec![format!("{long}, {long}")]],
        ];
        insta::assert_snapshot!(columns(2, &rows), @"
    what     expected                                      seen
    outcome  one                                           a cell that is much longer than a column can be, and so is wrapped at a space
             two
    memo     a cell that is much longer than a column can  a cell that is much longer than a column can be, and so is wrapped at a space, a
               be, and so is wrapped at a space              cell that is much longer than a column can be, and so is wrapped at a space
    ");
    }

    #[test]
    fn a_word_is_never_broken() {
        assert_eq!(wrap("abc defghijkl m", 5), ["abc", "  defghijkl", "  m"]);
        assert_eq!(wrap("", 5), [""]);
    }
}

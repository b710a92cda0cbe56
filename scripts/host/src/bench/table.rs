//! Tables, as Markdown and for a terminal.

use std::fmt::Write as _;

/// A table. Columns of figures are aligned to the right.
#[derive(Debug)]
pub(super) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty one.
    pub(super) fn new(header: &[&str]) -> Self {
        Self { header: header.iter().map(|&title| title.to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row, with a cell for each title.
    pub(super) fn push(&mut self, row: Vec<String>) {
        debug_assert_eq!(row.len(), self.header.len());
        self.rows.push(row);
    }

    /// Whether there are no rows.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// In Markdown.
    pub(super) fn markdown(&self) -> String {
        let mut text = String::new();
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        text.push_str(&line(&self.header));
        let rule = |column| if self.is_text(column) { "---|" } else { "---:|" };
        let rules: String = (0..self.header.len()).map(rule).collect();
        let _ = writeln!(text, "|{rules}");
        text.extend(self.rows.iter().map(|row| line(row)));
        text
    }

    /// In columns.
    pub(super) fn plain(&self) -> String {
        let all = || std::iter::once(&self.header).chain(&self.rows);
        let widths: Vec<usize> =
            (0..self.header.len()).map(|column| all().map(|row| row[column].len()).max().unwrap_or(0)).collect();
        let mut text = String::new();
        for row in all() {
            for (index, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let gap = if index == 0 { "" } else { "  " };
                let _ = match self.is_text(index) {
                    true => write!(text, "{gap}{cell:<width$}"),
                    false => write!(text, "{gap}{cell:>width$}"),
                };
            }
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
        text
    }

    /// Whether a cell of this column does not begin like a figure.
    fn is_text(&self, column: usize) -> bool {
        let figure =
            |cell: &String| cell.is_empty() || cell.starts_with(|c: char| c.is_ascii_digit() || "-+~".contains(c));
        !self.rows.iter().all(|row| figure(&row[column]))
    }
}

/// A count in few digits: decimals only where they say something, and commas between thousands.
pub(super) fn figure(value: f64) -> String {
    if value.abs() < 99.95 {
        let text = format!("{value:.1}");
        let text = text.strip_suffix(".0").unwrap_or(&text);
        return if text == "-0" { "0".into() } else { text.into() };
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The same, or nothing.
pub(super) fn cell(value: Option<f64>) -> String {
    value.map_or_else(String::new, figure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let cases = [(0.0, "0"), (2.0, "2"), (13.42, "13.4"), (99.94, "99.9"), (99.96, "100"), (999.6, "1,000")];
        for (value, text) in cases {
            assert_eq!(figure(value), text);
        }
        assert_eq!(figure(1_234_567.0), "1,234,567");
        assert_eq!(figure(-1234.0), "-1,234");
        assert_eq!(figure(-0.04), "0");
        assert_eq!(figure(-0.5), "-0.5");
    }

    #[test]
    fn both_forms() {
        let mut table = Table::new(&["operation", "bare"]);
        table.push(vec!["CLI".into(), "3".into()]);
        table.push(vec!["a long name".into(), String::new()]);
        assert_eq!(table.markdown(), "| operation | bare |\n|---|---:|\n| CLI | 3 |\n| a long name |  |\n");
        assert_eq!(table.plain(), "operation    bare\nCLI             3\na long name\n");
    }
}

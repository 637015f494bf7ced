//! Tables as kubectl prints them. Pure.

use std::borrow::Cow;

use super::inert;

const GAP: &str = "   ";

/// Rows under upper-case headings.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self {
            headings: headings.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub(crate) fn row(&mut self, mut cells: Vec<String>) {
        for cell in &mut cells {
            if let Cow::Owned(shown) = inert::line(cell) {
                *cell = shown;
            }
        }
        self.rows.push(cells);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut widths: Vec<usize> = self
            .headings
            .iter()
            .map(|text| text.chars().count())
            .collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for (width, cell) in widths.iter().zip(cells) {
                let cell = if cell.is_empty() { "-" } else { cell };
                text.push_str(&format!("{cell:<width$}{GAP}"));
            }
            writeln!(f, "{}", text.trim_end())
        };
        line(&mut self.headings.iter().copied())?;
        for row in &self.rows {
            line(&mut row.iter().map(String::as_str))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "PHASE", "AGE"]);
        table.row(vec!["nightly-29387".into(), "Complete".into(), "5m".into()]);
        table.row(vec!["ö".into(), String::new(), "2d1h".into()]);
        insta::assert_snapshot!(table, @r"
        NAME            PHASE      AGE
        nightly-29387   Complete   5m
        ö               -          2d1h
        ");
    }

    #[test]
    fn a_row_is_one_line_whatever_is_in_it() {
        let mut table = Table::new(&["NAME"]);
        table.row(vec!["a\nb\u{1b}[2J".into()]);
        insta::assert_snapshot!(table, @r"
        NAME
        a\nb\033[2J
        ");
    }
}

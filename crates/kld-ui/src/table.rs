//! Plain tables: a header, two spaces between columns, no borders, no trailing spaces.
//!
//! Width is counted in characters; text that is wider on screen (CJK, emoji) shifts its row, and so does a cell of more
//! than [`WIDEST`] characters: one long command would otherwise push a whole column off the screen.

use std::fmt;

/// What a column makes room for at most, in characters.
const WIDEST: usize = 72;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

/// Rows of text under a header. Build it column by column, then row by row; its `Display` ends with a newline.
///
/// ```
/// let mut table = kld_ui::Table::new().left("DATASET").right("USED");
/// table.row(["rpool/srv/webapp", "1.50G"]);
/// assert_eq!(table.to_string(), "DATASET            USED\nrpool/srv/webapp  1.50G\n");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without columns.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a column of text.
    #[must_use]
    pub fn left(mut self, header: &str) -> Self {
        self.columns.push((header.to_owned(), Align::Left));
        self
    }

    /// Adds a column of numbers or sizes.
    #[must_use]
    pub fn right(mut self, header: &str) -> Self {
        self.columns.push((header.to_owned(), Align::Right));
        self
    }

    /// Adds a row. Missing cells are empty; an empty cell is shown as `-`, as `zfs list` does; cells beyond the
    /// last column are dropped.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let mut cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        cells.resize(self.columns.len(), String::new());
        for cell in &mut cells {
            if cell.is_empty() {
                "-".clone_into(cell);
            }
        }
        self.rows.push(cells);
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header: Vec<String> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        let lines = || std::iter::once(&header).chain(&self.rows);
        let widths: Vec<usize> = (0..header.len())
            .map(|column| {
                let lengths = lines().map(|cells| cells[column].chars().count());
                lengths.filter(|&length| length <= WIDEST).max().unwrap_or(0)
            })
            .collect();
        for cells in lines() {
            let mut line = String::new();
            for ((cell, &width), (_, align)) in cells.iter().zip(&widths).zip(&self.columns) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                match align {
                    Align::Left => line.push_str(&format!("{cell:<width$}")),
                    Align::Right => line.push_str(&format!("{cell:>width$}")),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_very_long_cell_shifts_its_own_row_only() {
        let mut table = Table::new().left("DIRECTIVE").left("REASON");
        table.row(["x".repeat(WIDEST + 1), "long".to_owned()]);
        table.row(["Nice=10", "services come first"]);
        let text = table.to_string();
        assert!(text.contains("x  long\n") && text.contains("Nice=10    services come first\n"), "{text}");
    }

    #[test]
    fn aligns_without_borders_or_trailing_spaces() {
        let mut table = Table::new().left("DATASET").right("USED").left("MOUNTPOINT");
        table.row(["rpool", "1.50G", "none"]);
        table.row(["rpool/srv/gitea", "96K", "/srv/gitea"]);
        table.row(["rpool/swap", "2G"]);
        table.row(["rpool/srv/größe", "1K", "/x", "dropped"]);
        expect![[r#"
            DATASET           USED  MOUNTPOINT
            rpool            1.50G  none
            rpool/srv/gitea    96K  /srv/gitea
            rpool/swap          2G  -
            rpool/srv/größe     1K  /x
        "#]]
        .assert_eq(&table.to_string());
        assert!(table.to_string().lines().all(|line| line == line.trim_end()));
    }
}

//! How data is written: tables for people, JSON for programs.

use std::io::{self, BufWriter, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use super::args::Format;

/// Bytes of a document that are written at once.
const PIECE_BYTES: usize = 1 << 16;

/// Columns with a header; numbers stand to the right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(header: &[&str]) -> Self {
        Self { header: header.iter().map(|&h| h.to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<String> = cells.into_iter().collect();
        cells.resize(self.header.len(), String::new());
        self.rows.push(cells);
    }

    /// The table in Markdown; columns of numbers stand to the right.
    #[must_use]
    pub fn markdown(&self) -> String {
        let line = |cells: &mut dyn Iterator<Item = String>| {
            let cells: Vec<String> = cells.map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule = |column| if self.is_numeric(column) { "---:" } else { "---" };
        let mut text = line(&mut self.header.iter().cloned());
        text += &line(&mut (0..self.header.len()).map(|column| rule(column).to_owned()));
        self.rows.iter().for_each(|row| text += &line(&mut row.iter().cloned()));
        text
    }

    fn is_numeric(&self, column: usize) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| is_number(&row[column]))
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| &row[column]).chain([&self.header[column]]);
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let numeric: Vec<bool> = (0..self.header.len()).map(|column| self.is_numeric(column)).collect();
        let rule: Vec<String> = widths.iter().map(|&w| "-".repeat(w)).collect();
        for row in [&self.header, &rule].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[column] - cell.chars().count());
                let gap = if column == 0 { "" } else { "  " };
                let (left, right) = if numeric[column] { (pad.as_str(), "") } else { ("", pad.as_str()) };
                line.extend([gap, left, cell, right]);
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn is_number(cell: &str) -> bool {
    cell == "-"
        || cell.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '$'))
        || (cell.starts_with('-') && cell[1..].starts_with(|c: char| c.is_ascii_digit() || c == '$'))
}

/// Writes one document; a table is made only where it is asked for.
///
/// # Errors
/// When stdout cannot be written.
pub fn one(format: Format, data: &impl Serialize, table: impl FnOnce() -> String) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        // Who offers other forms writes them; the rest refuses them before.
        Format::Table | Format::Markdown | Format::Csv | Format::Parquet => out.write_all(table().as_bytes()),
        Format::Json => json(&mut out, data, PrettyFormatter::new()),
        Format::Ndjson => json(&mut out, data, CompactFormatter),
    }
}

/// Writes text as it is.
///
/// # Errors
/// When stdout cannot be written.
pub fn text(text: &str) -> io::Result<()> {
    io::stdout().lock().write_all(text.as_bytes())
}

/// Writes several documents: an array as JSON, a line each as NDJSON.
///
/// # Errors
/// When stdout cannot be written.
pub fn many<T: Serialize>(format: Format, data: &[T], table: impl FnOnce() -> String) -> io::Result<()> {
    if format != Format::Ndjson {
        return one(format, &data, table);
    }
    let mut out = io::stdout().lock();
    data.iter().try_for_each(|item| json(&mut out, item, CompactFormatter))
}

/// Written as it is made: the text of a large plan takes more memory than the plan.
fn json(out: &mut impl Write, data: &impl Serialize, format: impl Formatter) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(PIECE_BYTES, out);
    data.serialize(&mut Serializer::with_formatter(&mut out, format))?;
    out.write_all(b"\n")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_numbers_stand_to_the_right() {
        let mut table = Table::new(&["name", "time", "note"]);
        table.row(["a".into(), "12 ms".into(), "x".into()]);
        table.row(["long".into(), "-".into()]);
        let text = table.to_string();
        assert_eq!(text, "name   time  note\n----  -----  ----\na     12 ms  x\nlong      -\n");
    }

    #[test]
    fn markdown_has_the_same_cells() {
        let mut table = Table::new(&["name", "time"]);
        table.row(["a|b".into(), "12 ms".into()]);
        assert_eq!(table.markdown(), "| name | time |\n| --- | ---: |\n| a\\|b | 12 ms |\n");
    }

    #[test]
    fn a_document_is_written_in_pieces() {
        /// Counts what is written, and the most at once.
        struct Pieces(usize, usize);
        impl Write for Pieces {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                (self.0, self.1) = (self.0 + bytes.len(), self.1.max(bytes.len()));
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let data: Vec<u64> = (0..200_000).collect();
        let mut pieces = Pieces(0, 0);
        json(&mut pieces, &data, PrettyFormatter::new()).unwrap();
        assert_eq!(pieces.0, serde_json::to_vec_pretty(&data).unwrap().len() + 1);
        assert!(pieces.1 <= PIECE_BYTES, "{} bytes at once", pieces.1);
        let mut line = Vec::new();
        json(&mut line, &[1, 2], CompactFormatter).unwrap();
        assert_eq!(line, b"[1,2]\n");
    }

    #[test]
    fn width_is_counted_in_characters() {
        let mut table = Table::new(&["größe", "b"]);
        table.row(["ä".into(), "c".into()]);
        assert_eq!(table.to_string(), "größe  b\n-----  -\nä      c\n");
    }
}

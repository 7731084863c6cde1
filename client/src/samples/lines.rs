//! Reads text line by line, and CSV one row per line, in constant memory.
//!
//! Guarantees: a line costs at most [`LINE_BYTES_MAX`] bytes of memory however long it is; what is wrong with
//! one line never reaches the next; numbers of lines count from 1, as an editor counts them.

use std::io::{BufRead, Error, ErrorKind, Read};

use csv::StringRecord;

/// Longest line, in bytes.
pub(crate) const LINE_BYTES_MAX: u64 = 1 << 20;

/// What is read, and how far.
pub(crate) struct Lines<R: BufRead> {
    input: R,
    line: u64,
}

/// A line with its number, or why it is none.
pub(crate) struct Line<T> {
    /// Its number in the file, from 1.
    pub number: u64,
    /// The line as it stands there, without the blanks around it; what there is of one that is too long.
    pub raw: Vec<u8>,
    /// What it says, or why it says nothing.
    pub read: Result<T, String>,
}

impl<R: BufRead> Lines<R> {
    pub fn new(input: R) -> Self {
        Self { input, line: 0 }
    }

    /// The next line that is not blank; nothing at the end.
    pub fn next_text(&mut self) -> std::io::Result<Option<Line<String>>> {
        loop {
            let mut raw = Vec::new();
            if self.input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut raw)? == 0 {
                return Ok(None);
            }
            self.line += 1;
            if raw.len() as u64 == LINE_BYTES_MAX && raw.last() != Some(&b'\n') {
                self.input.skip_until(b'\n')?;
                let read = Err(format!("is longer than {LINE_BYTES_MAX} bytes"));
                return Ok(Some(Line { number: self.line, raw, read }));
            }
            let text = raw.trim_ascii();
            if !text.is_empty() {
                let read = str::from_utf8(text).map(str::to_owned).map_err(|e| format!("is not UTF-8: {e}"));
                return Ok(Some(Line { number: self.line, raw: text.to_owned(), read }));
            }
        }
    }
}

/// A CSV file with a header. Every row stands on one line: a quote that does not end there would otherwise
/// swallow all lines up to the next one.
pub(crate) struct CsvLines<R: BufRead> {
    lines: Lines<R>,
    header: StringRecord,
}

impl<R: BufRead> CsvLines<R> {
    /// Reads the header; nothing where the file is blank.
    pub fn open(input: R) -> std::io::Result<Option<Self>> {
        let mut lines = Lines::new(input);
        let Some(first) = lines.next_text()? else { return Ok(None) };
        let wrong = |reason| Error::new(ErrorKind::InvalidData, format!("line {} {reason}", first.number));
        let header = first.read.and_then(|text| cells(&text, None)).map_err(wrong)?;
        Ok(Some(Self { lines, header }))
    }

    pub fn header(&self) -> &StringRecord {
        &self.header
    }

    /// The next row that is not blank; its cells are as many as the header's, without the blanks around them.
    pub fn next_row(&mut self) -> std::io::Result<Option<Line<StringRecord>>> {
        let Some(Line { number, raw, read }) = self.lines.next_text()? else { return Ok(None) };
        let width = self.header.len();
        let read = read.and_then(|text| cells(&text, Some(&self.header))).and_then(|row| match row.len() {
            len if len == width => Ok(row),
            len => Err(format!("has {len} fields, the header has {width}")),
        });
        Ok(Some(Line { number, raw, read }))
    }
}

/// The cells of one line. The end of the line is inside a cell exactly where a quote is open.
fn cells(text: &str, header: Option<&StringRecord>) -> Result<StringRecord, String> {
    let mut rows = csv::ReaderBuilder::new();
    rows.has_headers(false).flexible(true).buffer_capacity(text.len() + 1);
    let mut row = StringRecord::new();
    let end: &[u8] = b"\n";
    let read = rows.from_reader(text.as_bytes().chain(end)).read_record(&mut row);
    read.map_err(|error| format!("is no row of CSV: {error}"))?;
    if let Some(at) = row.iter().position(|cell| cell.contains('\n')) {
        let column = header.and_then(|header| header.get(at)).map(|name| format!(" (column `{name}`)"));
        return Err(format!(
            "has a `\"` at field {}{} that does not end on this line; a cell has no end of line in it",
            at + 1,
            column.unwrap_or_default()
        ));
    }
    row.trim();
    Ok(row)
}

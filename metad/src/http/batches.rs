//! `POST /v1/workflows/{workflow}/batches`: parse, set bad records aside, hand over, answer.
//!
//! A JSON text is read as a whole first, plainly (`plain`) or by serde, because almost every batch is good.
//! When that fails, the records are taken one by one from their raw text, so that a bad one costs nobody but
//! itself. Columns are read in `columns`.

use axum::extract::State;
use axum::http::HeaderMap;
use foresail_schemas::metric::{Record, Rejected};
use foresail_schemas::{BatchId, ErrorCode, InstanceId, RunId, WorkflowName};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::columns::{self, COLUMNS};
use super::fields::Names;
use super::flat;
use super::plain;
use super::pool::by_size;
use super::reply::{Answer, Failure, JSON, NDJSON, json};
use super::take::{App, Content, PathOf, QueryOf, invalid_json, media_type};
use crate::write::{Command, Ingest};

/// Longest text of a bad record that is kept whole, in bytes.
const QUARANTINED_BYTES_MAX: usize = 16 << 10;

/// Longest time that is believed, in ms: 30 days. One value beyond it would spoil the model of a whole task.
const TIME_MS_MAX: f64 = 30.0 * 86_400e3;

/// What may stand in the address instead of the body.
#[derive(Debug, Default, Clone, Deserialize)]
pub struct Origin {
    /// The id of the batch.
    pub batch_id: Option<BatchId>,
    /// The run that was measured.
    pub run: Option<RunId>,
    /// The worker that measured.
    pub worker: Option<InstanceId>,
}

/// The body, with records as records or as their raw text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form<L> {
    batch_id: Option<BatchId>,
    run: Option<RunId>,
    worker: Option<InstanceId>,
    records: L,
}

impl<L> Form<L> {
    fn open(self) -> (L, Parsed) {
        let origin = Origin { batch_id: self.batch_id, run: self.run, worker: self.worker };
        (self.records, Parsed { origin, ..Parsed::default() })
    }
}

/// A batch as parsed.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Where it came from, as the body says.
    pub origin: Origin,
    /// The good records.
    pub records: Vec<Record>,
    /// The bad ones, as they came.
    pub rejected: Vec<(Rejected, serde_json::Value)>,
}

/// Stores a batch.
pub async fn post(
    State(app): State<App>,
    PathOf(workflow): PathOf<WorkflowName>,
    QueryOf(query): QueryOf<Origin>,
    headers: HeaderMap,
    content: Content,
) -> Answer {
    take(&app, workflow, query, &headers, content).await
}

/// Stores the batch that a body has; `query` is what the address says of its origin.
pub async fn take(
    app: &App,
    workflow: WorkflowName,
    query: Origin,
    headers: &HeaderMap,
    content: Content,
) -> Answer {
    let parse: fn(&[u8], u64) -> Result<Parsed, Failure> = match media_type(headers).as_deref() {
        None | Some(JSON) => parse_json,
        Some(NDJSON | "application/jsonl" | "application/ndjson") => parse_lines,
        Some(COLUMNS) => columns::parse,
        Some(other) => {
            let detail = format!("`{other}` is not taken here, {JSON}, {NDJSON} and {COLUMNS} are");
            return Err(Failure::new(ErrorCode::UnsupportedMediaType, detail));
        }
    };
    let limit = app.settings.batch_records_max;
    let bytes = content.bytes.clone();
    let parsed = by_size(app, bytes.len(), move || parse(&bytes, limit));
    let batch = ingest(workflow, parsed.await??, query, headers)?;
    let answer = match &app.batch_log {
        Some(log) => log.post(app, batch).await?,
        None => app.change(|reply| Command::Ingest(Box::new(batch), reply)).await?,
    };
    Ok(json(&answer))
}

fn ingest(
    workflow: WorkflowName,
    parsed: Parsed,
    query: Origin,
    headers: &HeaderMap,
) -> Result<Ingest, Failure> {
    let Parsed { origin, records, rejected } = parsed;
    let batch_id = one_id([idempotency_key(headers)?, origin.batch_id, query.batch_id])?;
    let (run, worker) = (origin.run.or(query.run), origin.worker.or(query.worker));
    Ok(Ingest { workflow, batch_id, run, worker, arrival: Timestamp::now(), records, rejected, place: None })
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<BatchId>, Failure> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    // The draft of the header writes a quoted string; many clients leave the quotes out.
    let text = value.to_str().unwrap_or_default().trim().trim_matches('"');
    let id = BatchId::new(text);
    id.map(Some).map_err(|e| Failure::new(ErrorCode::InvalidName, format!("header Idempotency-Key: {e}")))
}

fn one_id(places: [Option<BatchId>; 3]) -> Result<BatchId, Failure> {
    let mut given = places.into_iter().flatten();
    let Some(id) = given.next() else {
        let detail = "the batch has no id: neither `batch_id` in the body nor the header Idempotency-Key";
        return Err(Failure::new(ErrorCode::InvalidBody, detail));
    };
    match given.find(|other| *other != id) {
        None => Ok(id),
        Some(other) => {
            let detail = format!("the batch has two ids, `{id}` and `{other}`");
            Err(Failure::new(ErrorCode::InvalidBody, detail))
        }
    }
}

/// Refuses a batch with more records than the limit.
pub fn too_many(records: usize, limit: u64) -> Result<(), Failure> {
    if records as u64 <= limit {
        return Ok(());
    }
    let detail = format!("the batch has `{records}` records, at most {limit} are taken");
    Err(Failure::limit(ErrorCode::TooMany, detail, limit))
}

/// Checks what neither the types nor the decoders hold.
pub fn checked(record: &Record) -> Result<(), String> {
    record.check()?;
    let (name, ms) = match record {
        Record::Task(r) => ("exec_ms", r.exec_ms),
        Record::Transfer(r) => ("time_ms", r.time_ms),
        Record::Startup(r) => ("time_ms", r.time_ms),
        Record::Decision(_) => return Ok(()),
    };
    match ms <= TIME_MS_MAX {
        true => Ok(()),
        false => Err(format!("{name} `{ms}` must be at most {TIME_MS_MAX} (30 days)")),
    }
}

fn parse_json(bytes: &[u8], limit: u64) -> Result<Parsed, Failure> {
    if let Some(parsed) = plain::batch(bytes, limit)
        && parsed.records.iter().all(|record| checked(record).is_ok())
    {
        return Ok(parsed);
    }
    if let Ok(form) = serde_json::from_slice::<Form<flat::Records>>(bytes) {
        let (flat::Records(records), parsed) = form.open();
        too_many(records.len(), limit)?;
        if records.iter().all(|record| checked(record).is_ok()) {
            return Ok(Parsed { records, ..parsed });
        }
    }
    let form: Form<Vec<&RawValue>> = serde_json::from_slice(bytes).map_err(|e| invalid_json(&e))?;
    let (records, mut parsed) = form.open();
    too_many(records.len(), limit)?;
    let names = Names::default();
    for (raw, index) in records.into_iter().zip(0..) {
        parsed.take(index, raw.get(), &names);
    }
    Ok(parsed)
}

fn parse_lines(bytes: &[u8], limit: u64) -> Result<Parsed, Failure> {
    let (mut parsed, names) = (Parsed::default(), Names::default());
    let lines = bytes.split(|&b| b == b'\n').filter(|line| !line.trim_ascii().is_empty());
    for (line, index) in lines.zip(0u64..) {
        too_many(index as usize + 1, limit)?;
        parsed.take(index, &String::from_utf8_lossy(line), &names);
    }
    Ok(parsed)
}

impl Parsed {
    fn take(&mut self, index: u64, text: &str, names: &Names) {
        let record = match flat::record(text, names) {
            Some(record) => Ok(record),
            None => serde_json::from_str::<Record>(text).map_err(|said| match serde_json::from_str(text) {
                Ok(json) => Record::refusal(&json, &said),
                Err(_) => said.to_string(),
            }),
        };
        match record.and_then(|r| checked(&r).map(|()| r)) {
            Ok(record) => self.records.push(record),
            Err(detail) => self.reject(index, detail, as_it_came(text)),
        }
    }

    /// Sets a record aside.
    pub fn reject(&mut self, index: u64, detail: String, record: serde_json::Value) {
        self.rejected.push((Rejected { index, code: ErrorCode::InvalidRecord, detail }, record));
    }
}

/// The record as a value, or as text where it is none or is too long.
fn as_it_came(text: &str) -> serde_json::Value {
    if text.len() <= QUARANTINED_BYTES_MAX
        && let Ok(value) = serde_json::from_str(text)
    {
        return value;
    }
    cut(text, QUARANTINED_BYTES_MAX).into()
}

/// The front of a text: whole characters in at most `bytes_max` bytes.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"kind":"startup","state":"cold","time_ms":640.2,"memory_mb":1769}"#;

    fn indices(parsed: &Parsed) -> Vec<u64> {
        parsed.rejected.iter().map(|(r, _)| r.index).collect()
    }

    #[test]
    fn bad_records_are_set_aside_and_good_ones_are_kept() {
        for bad in [
            r#"{"kind":"startup","state":"tepid","time_ms":1,"memory_mb":1}"#,
            r#"{"kind":"startup","state":"cold","time_ms":-1,"memory_mb":1}"#,
            r#"{"kind":"startup","state":"cold","time_ms":1e999,"memory_mb":1}"#,
            r#"{"kind":"startup","state":"cold","time_ms":1,"memory_mb":0}"#,
            r#"{"kind":"startup","state":"cold","time_ms":2592000001,"memory_mb":1}"#,
            r#"{"kind":"transfer","direction":"upload","bytes":1,"time_ms":1e12,"memory_mb":1}"#,
            r#"{"kind":"task","task":"a","memory_mb":1,"exec_ms":2592000001}"#,
            r#"{"kind":"task","task":"a b","memory_mb":1,"exec_ms":1}"#,
            r#"{"kind":"task","task":"a","memory_mb":1,"exec_ms":1,"attempt":0}"#,
            r#"{"kind":"unheard"}"#,
            "17",
            "null",
        ] {
            let body = format!(r#"{{"batch_id":"b","records":[{GOOD},{bad},{GOOD}]}}"#);
            let parsed = parse_json(body.as_bytes(), 9).unwrap();
            assert_eq!((parsed.records.len(), indices(&parsed)), (2, vec![1]), "{bad}");
            let lines = format!("{GOOD}\n\n{bad}\r\n{GOOD}");
            let parsed = parse_lines(lines.as_bytes(), 9).unwrap();
            assert_eq!((parsed.records.len(), indices(&parsed)), (2, vec![1]), "{bad}");
        }
    }

    #[test]
    fn a_field_that_its_kind_does_not_have_is_named_and_the_record_is_kept_as_it_came() {
        let forecast = r#""forecast":{"median_ms":1,"p90_ms":1,"p95_ms":1,"p99_ms":1,"p50":1}"#;
        for (fields, named) in [
            (r#""input_byte":5"#, "`input_byte`"),
            (r#""state":"cold""#, "`state`"),
            (r#""bytes":null"#, "`bytes`"),
            (forecast, "`p50`"),
        ] {
            let bad = format!(r#"{{"kind":"task","task":"a","memory_mb":1,"exec_ms":1,{fields}}}"#);
            let body = format!(r#"{{"batch_id":"b","records":[{GOOD},{bad}]}}"#);
            let parsed =
                [parse_json(body.as_bytes(), 9), parse_lines(format!("{GOOD}\n{bad}").as_bytes(), 9)];
            for parsed in parsed.map(Result::unwrap) {
                let (rejected, kept) = &parsed.rejected[0];
                assert!(rejected.index == 1 && rejected.detail.contains(named), "{}", rejected.detail);
                assert_eq!(*kept, serde_json::from_str::<serde_json::Value>(&bad).unwrap());
            }
        }
        let refused = parse_json(br#"{"batch_id":"b","wroker":"w-1","records":[]}"#, 9).unwrap_err();
        assert!(refused.0.detail.contains("`wroker`"), "{}", refused.0.detail);
    }

    #[test]
    fn a_number_out_of_range_is_named_with_its_field() {
        for (line, expect) in [
            (
                r#"{"kind":"task","task":"a","memory_mb":1,"exec_ms":-5}"#,
                "exec_ms `-5` must be finite and at least 0",
            ),
            (
                r#"{"kind":"startup","state":"cold","time_ms":1,"memory_mb":1,"vcpu":0}"#,
                "vcpu `0` must be finite and greater than 0",
            ),
        ] {
            assert_eq!(parse_lines(line.as_bytes(), 9).unwrap().rejected[0].0.detail, expect);
            let body = format!(r#"{{"batch_id":"b","records":[{line}]}}"#);
            assert_eq!(parse_json(body.as_bytes(), 9).unwrap().rejected[0].0.detail, expect);
        }
    }

    #[test]
    fn a_time_past_the_limit_is_named_with_it() {
        let line = r#"{"kind":"task","task":"a","memory_mb":1,"exec_ms":2592000001}"#;
        let detail = &parse_lines(line.as_bytes(), 9).unwrap().rejected[0].0.detail;
        assert_eq!(detail, "exec_ms `2592000001` must be at most 2592000000 (30 days)");
        let longest = line.replace("2592000001", "2592000000");
        assert_eq!(parse_lines(longest.as_bytes(), 9).unwrap().records.len(), 1);
    }

    #[test]
    fn a_line_that_is_no_json_is_kept_as_text() {
        let parsed = parse_lines(b"{oops\n", 9).unwrap();
        assert_eq!(parsed.rejected[0].1, serde_json::json!("{oops"));
    }

    #[test]
    fn a_long_line_is_cut_to_whole_characters_within_the_limit() {
        let line = format!("x{}", "\u{e4}".repeat(QUARANTINED_BYTES_MAX));
        let kept = parse_lines(line.as_bytes(), 9).unwrap().rejected.remove(0).1;
        let kept = kept.as_str().unwrap();
        assert!(kept.len() == QUARANTINED_BYTES_MAX - 1 && line.starts_with(kept), "{}", kept.len());
    }

    #[test]
    fn more_records_than_the_limit_are_refused_with_it() {
        let body = format!(r#"{{"batch_id":"b","records":[{GOOD},{GOOD},{GOOD}]}}"#);
        let lines = format!("{GOOD}\n{GOOD}\n{GOOD}");
        for refused in [parse_json(body.as_bytes(), 2), parse_lines(lines.as_bytes(), 2)] {
            let problem = refused.unwrap_err().0;
            assert_eq!((problem.code, problem.limit), (ErrorCode::TooMany, Some(2)));
        }
    }

    #[test]
    fn the_id_comes_from_anywhere_but_only_once() {
        let id = |text: &str| Some(BatchId::new(text).unwrap());
        assert_eq!(one_id([None, id("a"), None]).unwrap().as_str(), "a");
        assert_eq!(one_id([id("a"), id("a"), None]).unwrap().as_str(), "a");
        assert!(one_id([id("a"), id("b"), None]).is_err());
        assert!(one_id([None, None, None]).is_err());
    }
}

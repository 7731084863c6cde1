//! Raw samples as a download: NDJSON or Parquet, sent as they are read.
//!
//! A chunk at a time, each from a state of the store of its own: a slow reader holds neither memory nor old
//! pages of the store.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use foresail_schemas::{ErrorCode, WorkflowName};
use futures_util::stream;
use serde::Deserialize;

use super::reply::{Answer, Failure, NDJSON, typed};
use super::take::{App, PathOf, QueryOf, blocking};
use super::workflows::{accepts, by_accept, find};
use crate::export::{self, parquet};
use crate::store::StoreReader;
use crate::store::batches::StoredBatch;

/// The parameter of the samples.
#[derive(Debug, Deserialize)]
pub struct SampleFormat {
    format: Option<String>,
}

/// Where a download stands.
struct Reading {
    store: StoreReader,
    workflow: u32,
    /// Sequence of the last batch sent.
    after: u64,
    records_max: u64,
}

/// The raw records that retention keeps; where no format is given, `Accept` decides.
pub async fn get(
    State(app): State<App>,
    PathOf(workflow): PathOf<WorkflowName>,
    QueryOf(SampleFormat { format }): QueryOf<SampleFormat>,
    headers: HeaderMap,
) -> Answer {
    let number = find(&app, &workflow)?.number;
    let records_max = app.settings.export_records_max;
    let reading = Reading { store: app.store.clone(), workflow: number, after: 0, records_max };
    let accepted = if accepts(&headers, parquet::MEDIA_TYPE) { "parquet" } else { "ndjson" };
    match format.as_deref().unwrap_or(accepted) {
        "ndjson" => Ok(by_accept(streamed(NDJSON, reading, lines))),
        "parquet" => {
            let rows_max = usize::try_from(records_max).unwrap_or(usize::MAX);
            let export = parquet::Export::new(workflow.as_str(), rows_max).map_err(internal)?;
            Ok(by_accept(streamed(parquet::MEDIA_TYPE, Some((reading, export)), rows)))
        }
        other => {
            let detail = format!("`format` is `{other}`, ndjson and parquet are offered");
            Err(Failure::new(ErrorCode::InvalidParameter, detail))
        }
    }
}

/// A piece of an answer and the state from which the next one follows; nothing at the end.
type Piece<S> = Result<Option<(Bytes, S)>, Failure>;

/// An answer whose pieces `next` makes on the blocking pool, each with the state from which the next follows.
fn streamed<S: Send + 'static>(
    media_type: &'static str,
    first: S,
    next: impl Fn(S) -> Piece<S> + Copy + Send + 'static,
) -> Response {
    let pieces = stream::try_unfold(first, move |state| async move {
        let piece = blocking(move || next(state)).await;
        piece.and_then(|piece| piece).map_err(|failure| failure.0)
    });
    typed(media_type, Body::from_stream(pieces))
}

/// The next lines.
fn lines(mut reading: Reading) -> Piece<Reading> {
    let batches = reading.batches()?;
    if batches.is_empty() {
        return Ok(None);
    }
    let mut lines = Vec::new();
    for batch in batches {
        export::lines(batch, &mut lines).map_err(internal)?;
    }
    Ok(Some((lines.into(), reading)))
}

/// The next piece of a Parquet file; its end comes with the last records, and nothing after it.
fn rows(state: Option<(Reading, parquet::Export)>) -> Piece<Option<(Reading, parquet::Export)>> {
    let Some((mut reading, mut export)) = state else { return Ok(None) };
    let batches = reading.batches()?;
    if batches.is_empty() {
        return Ok(Some((export.finish().map_err(internal)?, None)));
    }
    for batch in batches {
        export.add(batch).map_err(internal)?;
    }
    Ok(Some((export.take().map_err(internal)?, Some((reading, export)))))
}

impl Reading {
    /// The next batches; none at the end.
    fn batches(&mut self) -> Result<Vec<StoredBatch>, Failure> {
        let batches = self.store.view()?.samples_after(self.workflow, self.after, self.records_max)?;
        self.after = batches.last().map_or(self.after, |(sequence, _)| *sequence);
        Ok(batches.into_iter().map(|(_, batch)| batch).collect())
    }
}

fn internal(error: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::Internal, error.to_string())
}

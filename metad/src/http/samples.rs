//! Raw samples as a download: NDJSON or Parquet, sent as they are read.
//!
//! Each read is from a state of the store of its own, so a slow reader holds no old pages of it. What is sent
//! at once is at most [`PIECE_BYTES`], more is made only when it was taken, and a download has a place of its
//! own until it ends: memory is bounded by the number of places, each with about a group of rows (`export`)
//! and the largest batch.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use foresail_schemas::{ErrorCode, Problem, WorkflowName};
use futures_util::stream;
use serde::Deserialize;

use super::pool::blocking;
use super::reply::{Answer, Failure, NDJSON, typed};
use super::take::{App, PathOf, QueryOf, accepts};
use super::workflows::{by_accept, find};
use crate::export::{Remaining, parquet};
use crate::store::StoreReader;
use crate::store::batches::StoredBatch;

/// Bytes that are sent at once.
const PIECE_BYTES: usize = 256 << 10;
/// Records that lines are made of at a time, in whole batches: about a piece.
const LINE_RECORDS: u64 = 1000;

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
    let read = |records_max| Reading { store: app.store.clone(), workflow: number, after: 0, records_max };
    let accepted = if accepts(&headers, parquet::MEDIA_TYPE) { "parquet" } else { "ndjson" };
    match format.as_deref().unwrap_or(accepted) {
        "ndjson" => {
            let first = (read(records_max.min(LINE_RECORDS)), VecDeque::new());
            Ok(by_accept(streamed(&app, NDJSON, first, lines)?))
        }
        "parquet" => {
            let rows_max = usize::try_from(records_max).unwrap_or(usize::MAX);
            let export = parquet::Export::new(workflow.as_str(), rows_max).map_err(internal)?;
            let first = Some((read(records_max), export));
            Ok(by_accept(streamed(&app, parquet::MEDIA_TYPE, first, rows)?))
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
    app: &App,
    media_type: &'static str,
    first: S,
    next: impl Fn(S) -> Piece<S> + Copy + Send + 'static,
) -> Result<Response, Problem> {
    let held = (Arc::clone(app), app.export_place()?);
    let pieces = stream::try_unfold((Bytes::new(), first, held), move |(made, state, held)| async move {
        let (mut made, mut state) = (made, state);
        // A part of a file may be empty, an end is not.
        while made.is_empty() {
            let piece = blocking(&held.0, move || next(state)).await;
            match piece.and_then(|piece| piece).map_err(|failure| failure.0)? {
                Some(piece) => (made, state) = piece,
                None => return Ok::<_, Problem>(None),
            }
        }
        let piece = made.split_to(made.len().min(PIECE_BYTES));
        Ok(Some((piece, (made, state, held))))
    });
    Ok(typed(media_type, Body::from_stream(pieces)))
}

/// The next lines, and the batches that were read and are not written yet.
fn lines((mut reading, mut waiting): (Reading, Waiting)) -> Piece<(Reading, Waiting)> {
    let mut lines = Vec::with_capacity(PIECE_BYTES);
    while lines.len() < PIECE_BYTES {
        if waiting.is_empty() {
            waiting.extend(reading.batches()?.into_iter().map(Remaining::from));
        }
        let Some(batch) = waiting.front_mut() else { break };
        batch.write(&mut lines, PIECE_BYTES).map_err(internal)?;
        if batch.is_empty() {
            waiting.pop_front();
        }
    }
    Ok((!lines.is_empty()).then(|| (lines.into(), (reading, waiting))))
}

type Waiting = VecDeque<Remaining>;

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

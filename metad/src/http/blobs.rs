//! Blobs of runs: raw bytes under a key that may contain slashes.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use foresail_schemas::{ErrorCode, RunId};

use super::pool::blocking;
use super::reply::{Answer, Failure, typed};
use super::runs::find;
use super::take::{App, PathOf, content};
use crate::write::Command;

/// Longest key in bytes.
const KEY_LEN_MAX: usize = 4096;

fn check(key: &str) -> Result<(), Failure> {
    if key.len() > KEY_LEN_MAX {
        let detail = format!("the key has {} bytes, at most {KEY_LEN_MAX} are taken", key.len());
        return Err(Failure::limit(ErrorCode::InvalidParameter, detail, KEY_LEN_MAX as u64));
    }
    match key.chars().find(|c| c.is_control()) {
        None => Ok(()),
        Some(found) => {
            let detail = format!("the key `{}` has the control character {found:?}", key.escape_debug());
            Err(Failure::new(ErrorCode::InvalidParameter, detail))
        }
    }
}

/// Stores a blob.
pub async fn put(
    State(app): State<App>,
    PathOf((run, key)): PathOf<(RunId, String)>,
    request: Request,
) -> Answer {
    check(&key)?;
    find(&app, &run)?;
    let content = content(&app, request.into_body(), app.settings.blob_bytes_max).await?;
    let bytes = content.bytes.clone();
    app.change(|reply| Command::PutBlob(run, key, bytes, reply)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Reads a blob.
pub async fn get(State(app): State<App>, PathOf((run, key)): PathOf<(RunId, String)>) -> Answer {
    let board = find(&app, &run)?;
    let (store, wanted) = (app.store.clone(), key.clone());
    let blob = blocking(&app, move || store.view()?.blob(board.number, &wanted)).await??;
    match blob {
        Some(content) => Ok(typed("application/octet-stream", content)),
        None => Err(Failure::new(ErrorCode::BlobNotFound, format!("run `{run}` has no blob `{key}`"))),
    }
}

/// Removes a blob.
pub async fn delete(State(app): State<App>, PathOf((run, key)): PathOf<(RunId, String)>) -> Answer {
    find(&app, &run)?;
    app.change(|reply| Command::DropBlob(run, key, reply)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

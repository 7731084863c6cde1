//! Results by file: what lies in commit records is written into one file of the session, what lies in a
//! directory of this machine is named by its path, so that nothing large is copied or parsed.
//!
//! The hash of what is named by its path is not checked here: reading it is left to whoever needs it.

use std::collections::HashMap;
use std::path::PathBuf;

use foresail_schemas::id::RunId;
use foresail_schemas::run::{Commit, StoredObject};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::calls::Session;
use super::wire::Fault;
use crate::error::ClientError;

/// Asks for outputs of a run.
#[derive(Deserialize)]
pub struct Wanted {
    run: RunId,
    /// Tasks, each with the name of an output.
    outputs: Vec<(String, String)>,
}

/// Where an output is.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Place {
    /// In the file of the answer.
    Packed { at: u64, bytes: u64 },
    /// In a file of its own.
    File { path: PathBuf, bytes: u64 },
}

/// The places of outputs, in the order of the question; `null` for one that does not exist.
pub async fn write(session: &Session, wanted: Wanted) -> Result<Value, Fault> {
    let handle = session.run(&wanted.run).await?;
    let mut tasks = Vec::with_capacity(wanted.outputs.len());
    for (task, _) in &wanted.outputs {
        tasks.push(handle.task_index(task)?);
    }
    let mut asked = tasks.clone();
    asked.sort_unstable();
    asked.dedup();
    let found = handle.commits(&asked).await?;
    let commits: HashMap<u32, Commit> =
        asked.into_iter().zip(found).filter_map(|(task, commit)| Some((task, commit?))).collect();
    let (mut packed, mut places) = (Vec::new(), Vec::with_capacity(tasks.len()));
    for (at, (task, output)) in tasks.iter().zip(&wanted.outputs) {
        let names = handle.workflow().task(*at).output_names();
        let missing = || ClientError::NoSuchResult(format!("{task}/{output}"));
        let number = names.iter().position(|name| name.as_str() == output).ok_or_else(missing)?;
        let object: Option<&StoredObject> = commits.get(at).and_then(|commit| commit.outputs.get(number));
        let Some(object) = object else {
            places.push(None);
            continue;
        };
        places.push(Some(match handle.object_file(task, object)? {
            Some(path) => Place::File { path, bytes: object.bytes },
            None => {
                let content = handle.object(task, object).await?;
                let at = packed.len() as u64;
                packed.extend_from_slice(&content);
                // Readers map arrays in place.
                packed.resize(packed.len().next_multiple_of(ALIGNMENT), 0);
                Place::Packed { at, bytes: content.len() as u64 }
            }
        }));
    }
    let file = match packed.is_empty() {
        true => None,
        false => Some(session.write_file("result", &packed).await?),
    };
    Ok(json!({ "file": file, "places": places }))
}

/// Bytes that packed outputs begin at a multiple of.
const ALIGNMENT: usize = 64;

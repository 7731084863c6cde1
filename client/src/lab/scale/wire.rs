//! Sizes of what travels, in bytes: as the real programs write it, counted without keeping it.

use std::io::{self, Write};

use foresail_planner::Left;
use foresail_schemas::run::{
    Change, Commit, Location, Operation, OperationAnswer, OperationRequest, OperationResult, RunEvent,
};
use serde::Serialize;

pub use foresail_redis::fold::is_question;

/// What HTTP or the protocol of Redis adds to a question and its answer: heads with address, token, length
/// and type.
pub const HEAD_BYTES: f64 = 400.0;
/// A hash, which simulated objects do not have.
const HASH_BYTES: usize = 64;
/// Name of an object in the store: run, task, attempt, instance and output.
const KEY_BYTES: usize = 60;
/// Records of a worker beside those of its attempts and transfers: its start, and what the engine took.
const RECORDS_OF_A_WORKER: u64 = 3;

/// A writer that only counts.
struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes of a value as JSON.
pub fn json_bytes(value: &impl Serialize) -> usize {
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).expect("wire types always have a JSON form");
    count.0
}

/// Bytes of a request with these operations.
pub fn request_bytes(operations: &[Operation]) -> usize {
    let frame = json_bytes(&OperationRequest { operations: Vec::new() });
    let json: usize = operations.iter().map(|operation| json_bytes(operation) + 1).sum();
    frame + json + operations.iter().map(content_of_operation).sum::<usize>()
}

/// Bytes of its answer.
pub fn answer_bytes(answer: &OperationAnswer) -> usize {
    json_bytes(answer) + answer.results.iter().map(content_of_result).sum::<usize>()
}

/// Bytes of an event.
pub fn event_bytes(event: &RunEvent) -> usize {
    let content = match &event.change {
        Change::TaskCommitted { commit, .. } => content(commit),
        _ => 0,
    };
    json_bytes(event) + content + 1
}

fn content_of_operation(operation: &Operation) -> usize {
    match operation {
        Operation::Commit { commit, .. } => content(commit),
        _ => 0,
    }
}

fn content_of_result(result: &OperationResult) -> usize {
    match result {
        OperationResult::Granted { parents: commits, .. }
        | OperationResult::Duplicated { parents: commits, .. }
        | OperationResult::Commits { commits } => commits.iter().flatten().map(content).sum(),
        OperationResult::Committed { commit } => content(commit),
        _ => 0,
    }
}

/// What the objects of a simulated commit lack: their hashes, and where they are.
fn content(commit: &Commit) -> usize {
    let object = |location: &Location| match location {
        Location::Inline(_) => HASH_BYTES,
        Location::Stored(_) | Location::Unstored(_) => HASH_BYTES + KEY_BYTES,
    };
    commit.outputs.iter().map(|output| object(&output.location)).sum()
}

/// Measurements that a worker sends when it leaves.
pub fn records(left: &Left) -> u64 {
    RECORDS_OF_A_WORKER + left.attempts + left.usage.gets + left.usage.puts
}

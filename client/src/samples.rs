//! Measurements in files: import into metad, and export from it.
//!
//! A file is sent in chunks, and metad stores a batch id once, so that importing a file again, going on after
//! an import that broke off, and importing a file that grew store every line once:
//!
//! - The *beginning* of a chunk, all its records but the last, has an id made of its place among the records
//!   of its workflow and of its first line. A file that grew has the same first line there, and the answer
//!   says how many records the chunk had before. Behind these the next chunk begins.
//! - Before it a batch without records is stored, the *mark*, whose id is made of all lines. By it a chunk
//!   that broke off is told from one that only begins alike.
//! - After it the *end* is stored, the last record, its id made of all lines too. It has no record where the
//!   chunk was found to begin alike only, so that this is known for good.

mod lines;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{BufRead, Read};

use bytes::Bytes;
use foresail_schemas::metric::{Batch, BatchAnswer, Record};
use foresail_schemas::{BatchId, ErrorCode, WorkflowName};
use futures_util::stream::Stream;
use serde::Serialize;

pub use read::{LineOrder, NameRule, Notes, ReadSettings, Refusal, Sample, SampleFileError, SampleReader};

pub(crate) use lines::{CsvLines, Line};

use crate::client::Client;
use crate::error::ClientError;
use crate::http::Call;

/// Most records of one chunk.
pub const CHUNK_RECORDS: usize = 2_000;
/// Most records that wait for their chunk to be full, over all workflows of a file.
const WAITING_RECORDS_MAX: usize = 200_000;
/// Most refused lines that are kept with their reason; further ones are counted.
pub const REFUSALS_MAX: usize = 1_000;
/// Bytes that are looked at at once.
const LOOK_BYTES: usize = 64 << 10;

/// Ends of lines in a file, read to its end.
///
/// # Errors
/// When reading fails.
pub fn count_lines(mut input: impl Read) -> std::io::Result<u64> {
    let (mut lines, mut buffer) = (0, vec![0; LOOK_BYTES]);
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(lines),
            Ok(read) => lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count() as u64,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What an import has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// Lines read, without blank ones and the header.
    pub lines: u64,
    /// Records stored by this import.
    pub stored: u64,
    /// Records that an import of the same lines had stored before.
    pub stored_before: u64,
    /// Lines that were not taken.
    pub refused: u64,
    /// The first of them, with the reason.
    pub refusals: Vec<Refusal>,
    /// Records per workflow, now and before.
    pub workflows: BTreeMap<WorkflowName, u64>,
    /// What was noticed while reading.
    #[serde(flatten)]
    pub notes: Notes,
}

/// Why an import broke off. What was stored by then stays; the same import again goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file is none, or breaks off.
    #[error(transparent)]
    File(#[from] SampleFileError),
    /// metad does not answer or refuses.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Records of one workflow that wait for their chunk to be full.
#[derive(Debug, Default)]
struct Waiting {
    /// Records that came before them.
    place: u64,
    lines: Vec<u64>,
    hashes: Vec<blake3::Hash>,
    records: Vec<Record>,
    /// Whether a chunk that only begins like a stored one was met: what follows cannot be told from what is
    /// stored behind that one.
    differs: bool,
}

impl Waiting {
    fn push(&mut self, sample: Sample) {
        self.lines.push(sample.line);
        self.hashes.push(sample.hash);
        self.records.push(sample.record);
    }

    /// The id of a batch that begins here, made of the first `records` lines.
    fn batch_id(&self, kind: &str, records: usize) -> BatchId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.place.to_le_bytes());
        for hash in &self.hashes[..records] {
            hasher.update(hash.as_bytes());
        }
        BatchId::new(format!("import-{kind}-{}", &hasher.finalize().to_hex()[..32]))
            .expect("letters, hexadecimal digits and dashes are a legal id")
    }

    /// A part of a chunk that has `of` lines.
    fn part(&self, kind: &str, of: usize, records: &[Record]) -> Batch {
        Batch { batch_id: self.batch_id(kind, of), run: None, worker: None, records: records.to_vec() }
    }

    fn drop_first(&mut self, records: usize) {
        self.place += records as u64;
        self.lines.drain(..records);
        self.hashes.drain(..records);
        self.records.drain(..records);
    }
}

impl ImportReport {
    fn refuse(&mut self, refusal: Refusal) {
        self.refused += 1;
        if self.refusals.len() < REFUSALS_MAX {
            self.refusals.push(refusal);
        }
    }

    fn add(&mut self, workflow: &WorkflowName, lines: &[u64], answer: BatchAnswer) {
        let BatchAnswer { accepted, duplicate, rejected, .. } = answer;
        *(if duplicate { &mut self.stored_before } else { &mut self.stored }) += accepted;
        *self.workflows.entry(workflow.clone()).or_default() += accepted;
        for one in rejected {
            let line = usize::try_from(one.index).ok().and_then(|at| lines.get(at)).copied();
            self.refuse(Refusal { line: line.unwrap_or(0), reason: one.detail });
        }
    }

    /// Refuses all that waits, because it begins like a chunk that was stored and goes on otherwise.
    fn refuse_waiting(&mut self, workflow: &WorkflowName, waiting: &mut Waiting, known: usize) {
        let sent = waiting.records.len();
        if !waiting.differs {
            let reason = format!(
                "this line begins a chunk of `{workflow}` that was imported before with {known} records that \
                 are not those of this file; that chunk stays as it is, and no record of `{workflow}` from \
                 this line on is taken. Was the file changed, or is it read with other settings? Import new \
                 lines from a file of their own"
            );
            self.refuse(Refusal { line: waiting.lines[0], reason });
            self.refused -= 1;
        }
        self.refused += sent as u64;
        waiting.differs = true;
        waiting.drop_first(sent);
    }
}

/// Records of a batch when it was stored.
fn told(answer: &BatchAnswer) -> usize {
    usize::try_from(answer.accepted).unwrap_or(usize::MAX).saturating_add(answer.rejected.len())
}

impl Client {
    /// Stores what `reader` reads. `watch` sees the report after every chunk.
    ///
    /// # Errors
    /// [`ImportError`] when the file breaks off or metad does not answer; lines that cannot be taken are no
    /// error.
    pub async fn import<R: BufRead>(
        &self,
        reader: &mut SampleReader<R>,
        mut watch: impl FnMut(&ImportReport),
    ) -> Result<ImportReport, ImportError> {
        let mut report = ImportReport::default();
        let mut waiting: BTreeMap<WorkflowName, Waiting> = BTreeMap::new();
        let mut count = 0;
        while let Some(line) = reader.next_line()? {
            report.lines = reader.lines();
            let sample = match line {
                Ok(sample) => sample,
                Err(refusal) => {
                    report.refuse(refusal);
                    continue;
                }
            };
            let workflow = sample.workflow.clone();
            let chunk = waiting.entry(workflow.clone()).or_default();
            chunk.push(sample);
            count += 1;
            if chunk.records.len() == CHUNK_RECORDS {
                // A part may have been stored before: what is behind it waits for more lines.
                self.send(&workflow, chunk, &mut report).await?;
                count = count + chunk.records.len() - CHUNK_RECORDS;
                watch(&report);
            } else if count >= WAITING_RECORDS_MAX {
                // Depends on the content alone, so that the chunks of a second import are the same.
                self.send_all(&mut waiting, &mut report).await?;
                count = 0;
                watch(&report);
            }
        }
        self.send_all(&mut waiting, &mut report).await?;
        report.notes = reader.notes().clone();
        report.refusals.sort_by_key(|refusal| refusal.line);
        watch(&report);
        Ok(report)
    }

    async fn send_all(
        &self,
        waiting: &mut BTreeMap<WorkflowName, Waiting>,
        report: &mut ImportReport,
    ) -> Result<(), ClientError> {
        for (workflow, chunk) in waiting {
            while !chunk.records.is_empty() {
                self.send(workflow, chunk, report).await?;
            }
        }
        Ok(())
    }

    /// Stores the chunk that waits, or drops as many of its first records as a chunk that begins here had
    /// before.
    async fn send(
        &self,
        workflow: &WorkflowName,
        chunk: &mut Waiting,
        report: &mut ImportReport,
    ) -> Result<(), ClientError> {
        let sent = chunk.records.len();
        if chunk.differs {
            report.refuse_waiting(workflow, chunk, 0);
            return Ok(());
        }
        let mut mark = self.store(workflow, &chunk.part("mark", sent, &[])).await?;
        let begin = self.store(workflow, &chunk.part("begin", 1, &chunk.records[..sent - 1])).await?;
        let taken = told(&begin) + 1;
        if begin.duplicate && taken < sent {
            mark = self.store(workflow, &chunk.part("mark", taken, &[])).await?;
        }
        if taken > sent {
            report.refuse_waiting(workflow, chunk, taken);
            return Ok(());
        }
        let is_other = begin.duplicate && !mark.duplicate;
        let last = if is_other { &[] } else { &chunk.records[taken - 1..taken] };
        let end = self.store(workflow, &chunk.part("end", taken, last)).await?;
        if told(&end) == 0 {
            report.refuse_waiting(workflow, chunk, taken);
            return Ok(());
        }
        report.add(workflow, &chunk.lines, begin);
        report.add(workflow, &chunk.lines[taken - 1..], end);
        chunk.drop_first(taken);
        Ok(())
    }

    async fn store(&self, workflow: &WorkflowName, batch: &Batch) -> Result<BatchAnswer, ClientError> {
        self.services.metad.json(Call::post(&["v1", "workflows", workflow.as_str(), "batches"], batch)).await
    }

    /// The measurements of a workflow that metad keeps, piece by piece: `ndjson` or `parquet`. Nothing where
    /// the workflow is not known.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer or does not offer the format.
    pub async fn samples(
        &self,
        workflow: &WorkflowName,
        format: &str,
    ) -> Result<Option<impl Stream<Item = Result<Bytes, ClientError>> + Send + use<>>, ClientError> {
        let call = Call::get(&["v1", "workflows", workflow.as_str(), "samples"]).query("format", format);
        match self.services.metad.pieces(call).await {
            Ok(pieces) => Ok(Some(pieces)),
            Err(error) if error.code() == Some(ErrorCode::WorkflowNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

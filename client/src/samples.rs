//! Measurements in files: import into metad, and export from it.
//!
//! A file is sent in chunks. The id of each batch is made of the hash of the file's content and the number of
//! the chunk, so that importing a file again, or going on after an import that broke off, changes nothing
//! that is stored already. Chunks have a fixed size for the same reason.

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

use crate::client::Client;
use crate::error::ClientError;
use crate::http::Call;

/// Records of one chunk. Part of what makes an import repeatable: with another number the same lines would
/// come in other batches.
pub const CHUNK_RECORDS: usize = 2_000;
/// Most records that wait for their chunk to be full, over all workflows of a file.
const WAITING_RECORDS_MAX: usize = 200_000;
/// Most refused lines that are kept with their reason; further ones are counted.
pub const REFUSALS_MAX: usize = 1_000;
/// Bytes that are hashed at once.
const HASH_BYTES: usize = 64 << 10;

/// What identifies the content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Hash of the content, as hexadecimal digits.
    pub hash: String,
    /// Ends of lines in it.
    pub lines: u64,
}

impl Fingerprint {
    /// Reads to the end.
    ///
    /// # Errors
    /// When reading fails.
    pub fn of(mut input: impl Read) -> std::io::Result<Self> {
        let (mut hasher, mut lines) = (blake3::Hasher::new(), 0);
        let mut buffer = vec![0; HASH_BYTES];
        loop {
            let read = match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => &buffer[..read],
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(read);
            lines += read.iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        Ok(Self { hash: hasher.finalize().to_hex().to_string(), lines })
    }

    /// The id of chunk number `at` of a workflow.
    fn batch_id(&self, at: u64) -> BatchId {
        BatchId::new(format!("import-{}-{at}", &self.hash[..32]))
            .expect("letters, hexadecimal digits and dashes are a legal id")
    }
}

/// What an import has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// Lines read, without blank ones and the header.
    pub lines: u64,
    /// Records stored by this import.
    pub stored: u64,
    /// Records that an import of the same file had stored before.
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
    chunks_sent: u64,
    lines: Vec<u64>,
    records: Vec<Record>,
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
        let told = rejected.len() as u64;
        for one in rejected {
            let line = usize::try_from(one.index).ok().and_then(|at| lines.get(at)).copied();
            self.refuse(Refusal { line: line.unwrap_or(0), reason: one.detail });
        }
        // The same file was imported before with other settings, under which other lines were good.
        let sent = lines.len() as u64;
        let known = accepted + told;
        if known < sent {
            self.refused += sent - known - 1;
            let reason = format!(
                "the {sent} records from this line on are a chunk of `{workflow}` that was imported before \
                 with {known} records; it stays as it is"
            );
            self.refuse(Refusal { line: lines[0], reason });
        }
    }
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
        file: &Fingerprint,
        mut watch: impl FnMut(&ImportReport),
    ) -> Result<ImportReport, ImportError> {
        let mut report = ImportReport::default();
        let mut waiting: BTreeMap<WorkflowName, Waiting> = BTreeMap::new();
        let mut count = 0;
        while let Some(line) = reader.next_line()? {
            report.lines = reader.lines();
            let Sample { line, workflow, record } = match line {
                Ok(sample) => sample,
                Err(refusal) => {
                    report.refuse(refusal);
                    continue;
                }
            };
            let chunk = waiting.entry(workflow.clone()).or_default();
            chunk.lines.push(line);
            chunk.records.push(record);
            count += 1;
            if chunk.records.len() == CHUNK_RECORDS {
                count -= CHUNK_RECORDS;
                self.send(&workflow, chunk, file, &mut report).await?;
                watch(&report);
            } else if count == WAITING_RECORDS_MAX {
                // Depends on the content alone, so that the chunks of a second import are the same.
                self.send_all(&mut waiting, file, &mut report).await?;
                count = 0;
                watch(&report);
            }
        }
        self.send_all(&mut waiting, file, &mut report).await?;
        report.notes = reader.notes().clone();
        report.refusals.sort_by_key(|refusal| refusal.line);
        watch(&report);
        Ok(report)
    }

    async fn send_all(
        &self,
        waiting: &mut BTreeMap<WorkflowName, Waiting>,
        file: &Fingerprint,
        report: &mut ImportReport,
    ) -> Result<(), ClientError> {
        for (workflow, chunk) in waiting {
            if !chunk.records.is_empty() {
                self.send(workflow, chunk, file, report).await?;
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        workflow: &WorkflowName,
        chunk: &mut Waiting,
        file: &Fingerprint,
        report: &mut ImportReport,
    ) -> Result<(), ClientError> {
        let records = std::mem::take(&mut chunk.records);
        let batch = Batch { batch_id: file.batch_id(chunk.chunks_sent), run: None, worker: None, records };
        let call = Call::post(&["v1", "workflows", workflow.as_str(), "batches"], &batch);
        let answer = self.services.metad.json(call).await?;
        report.add(workflow, &std::mem::take(&mut chunk.lines), answer);
        chunk.chunks_sent += 1;
        Ok(())
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

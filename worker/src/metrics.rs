//! Measurements of an invocation, on disk before they are sent, so that nothing is lost when metad or worker
//! is.
//!
//! A spool file holds one batch: a header line and one line per record, appended as they are measured. The
//! worker sends it when its invocation ends, or from time to time where the run may be re-planned, and
//! deletes it when metad has acknowledged it. While a worker writes a file it holds its lock; the host sends
//! again whatever lies there unlocked. A batch keeps its id, so a double delivery changes nothing.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use foresail_schemas::id::{BatchId, InstanceId, NAME_LEN_MAX, RunId, WorkflowName};
use foresail_schemas::metric::{Batch, Record};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::metad::Metad;

/// Most records in one batch of a worker.
const RECORDS_PER_FILE_MAX: usize = 10_000;
/// Most files that a spool keeps; past it the oldest are dropped.
pub const SPOOL_FILES_MAX: usize = 10_000;
/// Most files of refused measurements that a spool keeps; past it the oldest are dropped.
pub const REFUSED_FILES_MAX: usize = 100;
/// Tries of a worker to send a batch before it leaves that to its host.
const SEND_TRIES_MAX: u32 = 4;
/// How long a worker tries to send before it leaves the rest to its host: meanwhile it takes a place.
const SEND_LIMIT: Duration = Duration::from_secs(5);
/// Pause after the first failed try; it doubles with each.
const SEND_PAUSE_FIRST: Duration = Duration::from_millis(50);
/// Least time between two batches that are sent before the invocation ends.
const EARLY_PAUSE: Duration = Duration::from_millis(100);
/// Ending of a file that waits to be sent.
const WAITING: &str = "spool";
/// Ending of a file that metad refused for good; kept for the user to look at, up to [`REFUSED_FILES_MAX`].
const REFUSED: &str = "refused";

/// First line of a spool file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Header {
    workflow: WorkflowName,
    batch_id: BatchId,
    run: RunId,
    instance: InstanceId,
}

/// Collects the measurements of one invocation.
#[derive(Debug)]
pub struct Recorder {
    dir: PathBuf,
    workflow: WorkflowName,
    run: RunId,
    instance: InstanceId,
    files: Vec<SpoolFile>,
    /// Files opened so far.
    opened: usize,
    early: Option<Early>,
}

/// Sending before the invocation ends, a batch at a time.
#[derive(Debug)]
struct Early {
    metad: Metad,
    sent: Instant,
    /// Tells which files of the last batch metad did not take.
    under_way: Option<oneshot::Receiver<Vec<SpoolFile>>>,
}

#[derive(Debug)]
struct SpoolFile {
    path: PathBuf,
    /// Holds the lock as long as it is open; nothing where the spool cannot be written.
    file: Option<File>,
    batch: Batch,
}

impl Recorder {
    /// A recorder for `instance` that spools into `dir`.
    #[must_use]
    pub fn new(dir: &Path, workflow: WorkflowName, run: RunId, instance: InstanceId) -> Self {
        let (files, opened, early) = (Vec::new(), 0, None);
        Self { dir: dir.to_owned(), workflow, run, instance, files, opened, early }
    }

    /// The recorder, which from now on sends before the invocation ends too, when it is told to.
    #[must_use]
    pub fn sending_early(self, metad: Metad) -> Self {
        let early = Early { metad, sent: Instant::now(), under_way: None };
        Self { early: Some(early), ..self }
    }

    /// Keeps a measurement, on disk where possible.
    pub fn record(&mut self, record: Record) {
        if self.files.last().is_none_or(|f| f.batch.records.len() >= RECORDS_PER_FILE_MAX) {
            let next = self.open();
            self.files.push(next);
        }
        let Some(spool) = self.files.last_mut() else { return };
        if let Some(file) = &mut spool.file
            && let Err(error) = write_line(file, &record)
        {
            tracing::warn!(%error, path = %spool.path.display(), "a measurement is kept in memory only");
        }
        spool.batch.records.push(record);
    }

    /// Sends everything; what metad does not take now stays in the spool for the host.
    pub async fn send(self, metad: &Metad) {
        if tokio::time::timeout(SEND_LIMIT, self.send_all(metad)).await.is_err() {
            tracing::info!("metad is slow: measurements stay in the spool for the host");
        }
    }

    /// Sends what there is, where that is wanted, the last batch is through and it is not too long ago.
    /// Where metad does not take a batch, all is sent at the end.
    pub fn send_early(&mut self) {
        let Some(early) = &mut self.early else { return };
        if self.files.is_empty() || early.sent.elapsed() < EARLY_PAUSE {
            return;
        }
        match early.under_way.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Err(TryRecvError::Empty)) => {}
            Some(Err(TryRecvError::Closed)) => self.early = None,
            Some(Ok(left)) if !left.is_empty() => {
                self.files.splice(0..0, left);
                self.early = None;
            }
            Some(Ok(_)) | None => {
                let (metad, workflow) = (early.metad.clone(), self.workflow.clone());
                let files = std::mem::take(&mut self.files);
                let (tell, told) = oneshot::channel();
                early.under_way = Some(told);
                early.sent = Instant::now();
                tokio::spawn(async move {
                    let mut left = Vec::new();
                    for file in files {
                        if let Sent::Later = send(&metad, &workflow, &file.batch, &file.path).await {
                            left.push(file);
                        }
                    }
                    // Nobody may be left to be told; the host finds the files then.
                    let _ = tell.send(left);
                });
            }
        }
    }

    async fn send_all(mut self, metad: &Metad) {
        if let Some(told) = self.early.and_then(|early| early.under_way) {
            self.files.splice(0..0, told.await.unwrap_or_default());
        }
        for spool in self.files {
            let mut tries = 1;
            while let Sent::Later = send(metad, &self.workflow, &spool.batch, &spool.path).await {
                if tries >= SEND_TRIES_MAX {
                    tracing::info!(path = %spool.path.display(), "measurements are left to the host");
                    break;
                }
                tokio::time::sleep(SEND_PAUSE_FIRST * (1 << (tries - 1))).await;
                tries += 1;
            }
        }
    }

    fn open(&mut self) -> SpoolFile {
        self.opened += 1;
        let number = self.opened;
        let batch_id = batch_id(&self.run, &self.instance, number);
        let path = self.dir.join(format!("{}.{number}.{WAITING}", self.instance));
        let header = Header {
            workflow: self.workflow.clone(),
            batch_id: batch_id.clone(),
            run: self.run.clone(),
            instance: self.instance.clone(),
        };
        let file = create_locked(&path, &header)
            .inspect_err(
                |error| tracing::warn!(%error, path = %path.display(), "the spool cannot be written"),
            )
            .ok();
        let (run, worker) = (Some(self.run.clone()), Some(self.instance.clone()));
        SpoolFile { path, file, batch: Batch { batch_id, run, worker, records: Vec::new() } }
    }
}

/// `{run}.{instance}.{number}`, shortened where the names are long.
fn batch_id(run: &RunId, instance: &InstanceId, number: usize) -> BatchId {
    let full = format!("{run}.{instance}.{number}");
    if full.len() <= NAME_LEN_MAX {
        return BatchId::new(full).expect("parts of legal names joined by dots are a legal name");
    }
    let hash = blake3::hash(full.as_bytes()).to_hex();
    BatchId::new(hash.as_str()).expect("hexadecimal digits are a legal name")
}

fn write_line(file: &mut File, value: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    file.write_all(&line)
}

/// Creates the file under another name first: nobody must see it without its lock.
fn create_locked(path: &Path, header: &Header) -> std::io::Result<File> {
    let hidden = path.with_extension("new");
    let mut file = File::create(&hidden)?;
    file.lock()?;
    write_line(&mut file, header)?;
    fs::rename(&hidden, path)?;
    Ok(file)
}

enum Sent {
    Done,
    Later,
}

/// Sends one batch and clears its file away: deleted when acknowledged, set aside when refused for good.
async fn send(metad: &Metad, workflow: &WorkflowName, batch: &Batch, path: &Path) -> Sent {
    match metad.send_batch(workflow, batch).await {
        Ok(answer) => {
            if !answer.rejected.is_empty() {
                let rejected = &answer.rejected;
                tracing::warn!(batch = %batch.batch_id, ?rejected, "metad set measurements aside");
            }
            let _ = fs::remove_file(path);
            Sent::Done
        }
        // A wrong token is a mistake of the settings; the measurements are good and wait for a right one.
        Err(error) if error.is_retryable() || error.is_unauthorized() => {
            tracing::debug!(%error, batch = %batch.batch_id, "measurements were not taken yet");
            Sent::Later
        }
        Err(error) => {
            tracing::error!(%error, batch = %batch.batch_id, "measurements were refused and are set aside");
            let _ = fs::rename(path, path.with_extension(REFUSED));
            Sent::Done
        }
    }
}

/// What one pass over a spool did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolPass {
    /// Files cleared away.
    pub cleared: u64,
    /// Files that wait for metad.
    pub waiting: u64,
    /// Files that a living worker writes.
    pub in_use: u64,
    /// Files dropped because the spool was full.
    pub dropped: u64,
}

/// Sends what workers left in the spool `dir`; stops at the first file that metad does not take now.
pub async fn send_left_over(dir: &Path, metad: &Metad) -> SpoolPass {
    let mut pass = SpoolPass::default();
    pass.dropped += off_thread(dir.to_owned(), |dir| drop_old_refusals(&dir)).await.unwrap_or(0);
    let mut files = off_thread(dir.to_owned(), |dir| files(&dir, WAITING)).await.unwrap_or_default();
    let surplus = files.len().saturating_sub(SPOOL_FILES_MAX);
    for path in files.drain(..surplus) {
        tracing::error!(path = %path.display(), "the spool is full: the oldest measurements are dropped");
        let _ = fs::remove_file(path);
        pass.dropped += 1;
    }
    for path in files {
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock().is_err() {
            pass.in_use += 1;
            continue;
        }
        let read = off_thread(path.clone(), |path| read(&path)).await.flatten();
        let Some((workflow, batch)) = read else {
            // Its worker died before the first complete line: there is nothing to send.
            let _ = fs::remove_file(&path);
            pass.cleared += 1;
            continue;
        };
        match send(metad, &workflow, &batch, &path).await {
            Sent::Done => pass.cleared += 1,
            Sent::Later => {
                pass.waiting += 1;
                break;
            }
        }
    }
    pass
}

/// Reads files where that blocks nobody.
async fn off_thread<T: Send + 'static>(path: PathBuf, read: fn(PathBuf) -> T) -> Option<T> {
    tokio::task::spawn_blocking(move || read(path)).await.ok()
}

/// Drops the oldest of too many refused files; gives how many.
fn drop_old_refusals(dir: &Path) -> u64 {
    let mut refused = files(dir, REFUSED);
    let surplus = refused.len().saturating_sub(REFUSED_FILES_MAX);
    for path in refused.drain(..surplus) {
        tracing::warn!(path = %path.display(), "too many refused measurements: the oldest are dropped");
        let _ = fs::remove_file(path);
    }
    surplus as u64
}

/// The files with this ending, oldest first.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter(|entry| entry.path().extension().is_some_and(|e| e == ending))
        .map(|entry| (entry.metadata().and_then(|m| m.modified()).ok(), entry.path()))
        .collect();
    files.sort();
    files.into_iter().map(|(_, path)| path).collect()
}

/// The batch of a file; its last line may be torn and is left out then.
fn read(path: &Path) -> Option<(WorkflowName, Batch)> {
    let text = fs::read_to_string(path).ok()?;
    let mut lines = text.lines();
    let header: Header = serde_json::from_str(lines.next()?).ok()?;
    let records: Vec<Record> = lines.map_while(|line| serde_json::from_str(line).ok()).collect();
    let (run, worker) = (Some(header.run), Some(header.instance));
    let batch = Batch { batch_id: header.batch_id, run, worker, records };
    (!batch.records.is_empty()).then_some((header.workflow, batch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use foresail_schemas::metric::{StartState, StartupRecord};

    fn recorder(dir: &Path) -> Recorder {
        let (run, instance) = (RunId::new("r-1").unwrap(), InstanceId::new("f-x-1").unwrap());
        Recorder::new(dir, WorkflowName::new("w").unwrap(), run, instance)
    }

    fn startup(time_ms: f64) -> Record {
        let (memory_mb, vcpu, at) = (512, None, None);
        Record::Startup(StartupRecord { state: StartState::Warm, time_ms, memory_mb, vcpu, at })
    }

    #[test]
    fn a_spool_file_gives_back_its_batch() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = recorder(dir.path());
        recorder.record(startup(1.0));
        recorder.record(startup(2.5));
        let found = files(dir.path(), WAITING);
        assert_eq!(found.len(), 1);
        let (workflow, batch) = read(&found[0]).unwrap();
        assert_eq!(workflow.as_str(), "w");
        assert_eq!(batch, recorder.files[0].batch);
        assert_eq!(batch.batch_id.as_str(), "r-1.f-x-1.1");
    }

    #[test]
    fn a_torn_last_line_costs_that_record_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = recorder(dir.path());
        recorder.record(startup(1.0));
        recorder.files[0].file.as_mut().unwrap().write_all(b"{\"kind\":\"star").unwrap();
        assert_eq!(read(&files(dir.path(), WAITING)[0]).unwrap().1.records, [startup(1.0)]);
    }

    #[test]
    fn a_full_file_is_followed_by_another_with_its_own_id() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = recorder(dir.path());
        (0..=RECORDS_PER_FILE_MAX).for_each(|_| recorder.record(startup(1.0)));
        let ids: Vec<_> = recorder.files.iter().map(|f| f.batch.batch_id.to_string()).collect();
        assert_eq!(ids, ["r-1.f-x-1.1", "r-1.f-x-1.2"]);
    }

    #[tokio::test]
    async fn of_refused_files_the_newest_stay() {
        let dir = tempfile::tempdir().unwrap();
        let file = |at: usize| dir.path().join(format!("f-{at:04}.{REFUSED}"));
        let began = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for at in 0..REFUSED_FILES_MAX + 7 {
            let made = File::create(file(at)).unwrap();
            made.set_modified(began + Duration::from_secs(at as u64)).unwrap();
        }
        let nobody = Metad::new("http://127.0.0.1:9", None).unwrap();
        assert_eq!(send_left_over(dir.path(), &nobody).await.dropped, 7);
        assert_eq!(files(dir.path(), REFUSED).len(), REFUSED_FILES_MAX);
        assert!(!file(6).exists() && file(7).exists());
        assert_eq!(send_left_over(dir.path(), &nobody).await, SpoolPass::default());
    }

    #[tokio::test]
    async fn what_is_sent_early_and_not_taken_is_there_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let nobody = Metad::new("http://127.0.0.1:9", None).unwrap();
        let mut recorder = recorder(dir.path()).sending_early(nobody.clone());
        recorder.record(startup(1.0));
        recorder.send_early();
        assert_eq!(recorder.files.len(), 1, "it is too early");
        tokio::time::sleep(EARLY_PAUSE).await;
        recorder.send_early();
        assert!(recorder.files.is_empty(), "a batch is under way");
        recorder.record(startup(2.0));
        while recorder.early.is_some() {
            tokio::time::sleep(EARLY_PAUSE).await;
            recorder.send_early();
        }
        let ids: Vec<_> = recorder.files.iter().map(|f| f.batch.batch_id.to_string()).collect();
        assert_eq!(ids, ["r-1.f-x-1.1", "r-1.f-x-1.2"]);
        assert_eq!(files(dir.path(), WAITING).len(), 2);
    }

    #[test]
    fn long_names_still_give_a_legal_batch_id() {
        let long = "x".repeat(NAME_LEN_MAX);
        let (run, instance) = (RunId::new(&long).unwrap(), InstanceId::new(&long).unwrap());
        assert_ne!(batch_id(&run, &instance, 1), batch_id(&run, &instance, 2));
    }

    #[tokio::test]
    async fn without_metad_the_file_stays_and_a_file_in_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let nobody = Metad::new("http://127.0.0.1:9", None).unwrap();
        let mut recorder = recorder(dir.path());
        recorder.record(startup(1.0));
        assert_eq!(
            send_left_over(dir.path(), &nobody).await,
            SpoolPass { in_use: 1, ..SpoolPass::default() }
        );
        recorder.send(&nobody).await;
        assert_eq!(
            send_left_over(dir.path(), &nobody).await,
            SpoolPass { waiting: 1, ..SpoolPass::default() }
        );
        assert_eq!(files(dir.path(), WAITING).len(), 1);
    }
}

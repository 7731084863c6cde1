//! Deletes objects of runs that have ended, so that a stack that stays up does not fill its disk.
//!
//! The host does it, not who submitted: the objects lie with the host, and a client may be gone. Where
//! workers ask the platform itself for others, as on AWS Lambda, the host learns of runs from metad. Of a
//! completed run the results stay, and everything when the run wants its intermediate objects kept; of one
//! that failed or was cancelled stays what was committed, which is what a repetition would not have to make
//! again. What no commit names (half-written files of killed workers, objects of attempts that lost) goes in
//! either case. Of runs that have ended the newest stay, up to a number; older ones go with their results. A
//! run that lasts is never touched, and nothing is deleted while metad does not answer.

mod runs;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use foresail_schemas::Workflow;
use foresail_schemas::id::RunId;
use foresail_schemas::run::{Commit, Location, Operation, OperationRequest, OperationResult, RunStatus};
use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::local::ObjectPlace;
use crate::api::ApiError;
use crate::data::s3;
use crate::data::shared::SharedMemory;
use crate::data::store::{ObjectStore, StoreError, run_of_part, safe_part};
use crate::metad::Metad;
use runs::Runs;
pub(crate) use runs::{Learning, RunsSeen};

/// Tasks whose commits are asked for at a time: an answer may carry a small object of each.
const COMMITS_AT_ONCE: usize = 500;
/// Looks at a run that has ended after which it is left alone when there is nothing to delete: a worker that
/// loses a race may write once more after the end.
const LOOKS_MIN: u32 = 2;
/// How long the pass at the end of a host may take.
const LAST_PASS_LIMIT: Duration = Duration::from_secs(2);
/// Name of the empty file that says that nothing is left to delete in the directory of a run.
const SETTLED: &str = ".settled";

/// What is swept, and how often.
#[derive(Debug, Clone)]
pub(crate) struct Sweeping {
    /// Where objects lie.
    pub place: ObjectPlace,
    /// The directory of [`ObjectPlace::Files`].
    pub objects: PathBuf,
    /// What the workers of a machine share, where the host has any.
    pub shared: Option<SharedMemory>,
    /// Runs that have ended whose objects are kept.
    pub runs_kept_max: usize,
    /// Time between two looks in ms.
    pub sweep_ms: f64,
    /// How the host learns of runs.
    pub learning: Learning,
}

/// Keeps the objects of a host in bounds.
pub(crate) struct Sweeper {
    settings: Sweeping,
    metad: Metad,
    seen: RunsSeen,
    /// Looks so far at runs that have ended and are not settled.
    looks: HashMap<RunId, u32>,
    /// Runs that may have blobs, or objects in a bucket.
    runs: Runs,
    /// The bucket, once it was needed.
    bucket: Option<Arc<dyn ObjectStore>>,
    /// Whether it was told that the store does not do what is asked.
    is_told: bool,
}

/// Why a pass came to no end.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Metad(#[from] ApiError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is to be done about the objects of a run.
enum Standing {
    /// It lasts.
    Running,
    /// metad does not know it.
    Unknown,
    /// It has ended, was created then, and these keys stay.
    Over { since: Timestamp, kept: HashSet<String>, dropped: Vec<String> },
}

impl Sweeper {
    pub(crate) fn new(settings: Sweeping, metad: Metad, seen: RunsSeen) -> Self {
        let runs = Runs::new(settings.learning);
        Self { settings, metad, seen, looks: HashMap::new(), runs, bucket: None, is_told: false }
    }

    /// Looks at every run once.
    pub(crate) async fn pass(&mut self) {
        let seen = self.seen.take();
        let done = match &self.settings.place {
            ObjectPlace::Files => self.sweep_files(&seen).await.map_err(SweepError::from),
            ObjectPlace::Metad => self.sweep_blobs(seen).await.map_err(SweepError::from),
            ObjectPlace::S3(_) => self.sweep_bucket(seen).await,
        };
        match done {
            Ok(()) => self.is_told = false,
            Err(SweepError::Store(error)) if !self.is_told => {
                self.is_told = true;
                tracing::warn!(%error, "objects that nobody needs stay; they are looked at again");
            }
            Err(error) => tracing::debug!(%error, "objects are looked at later"),
        }
    }

    async fn sweep_files(&mut self, seen: &BTreeSet<RunId>) -> Result<(), ApiError> {
        // A run that was taken up again has something to delete again.
        let taken_up: Vec<PathBuf> = seen.iter().map(|run| self.dir(run).join(SETTLED)).collect();
        let objects = self.settings.objects.clone();
        let look = move || {
            taken_up.iter().for_each(|mark| drop(fs::remove_file(mark)));
            run_dirs(&objects)
        };
        let (mut over, mut looks) = (Vec::new(), HashMap::new());
        for dir in off_thread(look).await {
            if let Some(run) = run_of_part(&dir.part).filter(|_| !dir.is_settled) {
                match self.standing(&run).await? {
                    Standing::Running => continue,
                    Standing::Unknown => {}
                    Standing::Over { kept, .. } => {
                        let looks_before = self.looks.get(&run).copied().unwrap_or(0);
                        looks.insert(run, self.sweep_run(&dir.part, kept, looks_before).await);
                    }
                }
            }
            over.push((dir.since, dir.part));
        }
        self.looks = looks;
        over.sort();
        let surplus = over.len().saturating_sub(self.settings.runs_kept_max);
        for (_, part) in over.drain(..surplus) {
            let dir = self.settings.objects.join(part);
            // What cannot be deleted stays until the next pass.
            let _ = off_thread(move || fs::remove_dir_all(dir).is_ok()).await;
        }
        Ok(())
    }

    fn dir(&self, run: &RunId) -> PathBuf {
        self.settings.objects.join(safe_part(run.as_str()))
    }

    /// Deletes what is not kept; gives the number of looks at the run, this one included.
    async fn sweep_run(&self, part: &str, mut kept: HashSet<String>, looks_before: u32) -> u32 {
        let (dir, key, looks) = (self.settings.objects.join(part), part.to_owned(), looks_before + 1);
        kept.insert(format!("{key}/{SETTLED}"));
        let work = move || {
            let deleted = sweep(&dir, &key, &kept);
            if deleted == 0 && looks >= LOOKS_MIN {
                // Where it cannot be written, or nothing is left of the run, it is looked at once more.
                let _ = fs::File::create(dir.join(SETTLED));
            }
            deleted
        };
        let deleted = off_thread(work).await;
        if deleted > 0 {
            tracing::debug!(run = part, deleted, "objects that nobody needs any more are deleted");
        }
        looks
    }

    /// Blobs lie in metad, which forgets them with their run; here the intermediate ones go before.
    async fn sweep_blobs(&mut self, seen: BTreeSet<RunId>) -> Result<(), ApiError> {
        self.runs.told(seen);
        self.runs.learn(&self.metad).await?;
        for run in self.runs.open.clone() {
            let since = match self.standing(&run).await? {
                Standing::Running => continue,
                Standing::Unknown => Timestamp::now(),
                Standing::Over { since, dropped, .. } => {
                    for key in dropped {
                        match self.metad.delete_blob(&run, &key).await {
                            Err(error) if !error.is_missing() => return Err(error),
                            _ => {}
                        }
                    }
                    since
                }
            };
            self.forget_shared(&run).await;
            self.runs.end(&run, since);
            self.runs.forget(&run);
        }
        Ok(())
    }

    async fn forget_shared(&self, run: &RunId) {
        if let Some(shared) = self.settings.shared.clone() {
            let part = safe_part(run.as_str());
            off_thread(move || shared.forget(&part)).await;
        }
    }

    /// Only runs that this host was invoked for, or that its metad lists, are looked at: others in the bucket
    /// may be anybody's.
    async fn sweep_bucket(&mut self, seen: BTreeSet<RunId>) -> Result<(), SweepError> {
        self.runs.told(seen);
        self.runs.learn(&self.metad).await?;
        for run in self.runs.open.clone() {
            let (since, kept) = match self.standing(&run).await? {
                Standing::Running => continue,
                Standing::Unknown => (Timestamp::now(), None),
                Standing::Over { since, kept, .. } => (since, Some(kept)),
            };
            let looks = self.looks.get(&run).copied().unwrap_or(0) + 1;
            // What metad does not know may be of a run that another metad does.
            let deleted = match kept {
                Some(kept) => self.sweep_in_bucket(&run, kept).await?,
                None => 0,
            };
            if deleted > 0 || looks < LOOKS_MIN {
                self.looks.insert(run, looks);
                continue;
            }
            self.looks.remove(&run);
            self.forget_shared(&run).await;
            self.runs.end(&run, since);
        }
        while let Some(run) = self.runs.surplus(self.settings.runs_kept_max) {
            self.sweep_in_bucket(&run, HashSet::new()).await?;
            self.runs.forget(&run);
        }
        Ok(())
    }

    async fn sweep_in_bucket(&mut self, run: &RunId, kept: HashSet<String>) -> Result<u64, StoreError> {
        let (bucket, place, run) = (self.bucket.clone(), self.settings.place.clone(), run.clone());
        let work = move || -> Result<_, StoreError> {
            let bucket = match (bucket, place) {
                (None, ObjectPlace::S3(settings)) => Some(s3::open(&settings)?),
                (bucket, _) => bucket,
            };
            let deleted = bucket.as_ref().map_or(Ok(0), |bucket| bucket.sweep(&run, &kept))?;
            Ok((bucket, deleted))
        };
        let (bucket, deleted) = off_thread(move || Some(work())).await.unwrap_or(Ok((None, 0)))?;
        self.bucket = bucket;
        Ok(deleted)
    }

    async fn standing(&self, run: &RunId) -> Result<Standing, ApiError> {
        let (status, since) = match self.metad.summary(run).await {
            Ok(summary) => (summary.status, summary.created_at),
            Err(error) if error.is_missing() => return Ok(Standing::Unknown),
            Err(error) => return Err(error),
        };
        if status == RunStatus::Running {
            return Ok(Standing::Running);
        }
        let workflow = self.metad.workflow(run).await?;
        let keep_intermediate = self.metad.plan(run).await?.options.keep_intermediate;
        let sinks: HashSet<u32> = workflow.graph().sinks().collect();
        let (mut kept, mut dropped) = (HashSet::new(), Vec::new());
        for (task, commit) in self.commits(run, &workflow).await? {
            let stays = status != RunStatus::Completed || keep_intermediate || sinks.contains(&task);
            let keys = commit.outputs.into_iter().filter_map(|object| match object.location {
                Location::Stored(key) => Some(key),
                Location::Inline(_) | Location::Unstored(_) => None,
            });
            match stays {
                true => kept.extend(keys),
                false => dropped.extend(keys),
            }
        }
        Ok(Standing::Over { since, kept, dropped })
    }

    async fn commits(&self, run: &RunId, workflow: &Workflow) -> Result<Vec<(u32, Commit)>, ApiError> {
        let tasks: Vec<u32> = (0..workflow.tasks().len() as u32).collect();
        let mut found = Vec::new();
        for tasks in tasks.chunks(COMMITS_AT_ONCE) {
            let request = OperationRequest { operations: vec![Operation::Commits { tasks: tasks.to_vec() }] };
            let answer = self.metad.operate(run, &request).await?;
            for result in answer.results {
                if let OperationResult::Commits { commits } = result {
                    let named = tasks.iter().copied().zip(commits);
                    found.extend(named.filter_map(|(task, commit)| Some((task, commit?))));
                }
            }
        }
        Ok(found)
    }
}

/// Sweeps again and again.
pub(crate) async fn tend(sweeper: Arc<Mutex<Sweeper>>) {
    loop {
        let pause = {
            let mut sweeper = sweeper.lock().await;
            sweeper.pass().await;
            Duration::try_from_secs_f64(sweeper.settings.sweep_ms / 1000.0).unwrap_or(Duration::MAX)
        };
        tokio::time::sleep(pause).await;
    }
}

/// What the last runs left goes when their host ends: the next one may be far.
pub(crate) async fn sweep_last(sweeper: Arc<Mutex<Sweeper>>) {
    let _ = timeout(LAST_PASS_LIMIT, async { sweeper.lock().await.pass().await }).await;
}

/// Work on files where it blocks nobody; a panic there counts as nothing done.
async fn off_thread<T: Default + Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}

/// The directory of a run.
struct RunDir {
    /// When it was changed last.
    since: SystemTime,
    part: String,
    is_settled: bool,
}

fn run_dirs(objects: &Path) -> Vec<RunDir> {
    let entries = fs::read_dir(objects).into_iter().flatten().flatten();
    let dir = |entry: fs::DirEntry| {
        let about = entry.metadata().ok().filter(fs::Metadata::is_dir)?;
        let is_settled = entry.path().join(SETTLED).exists();
        Some(RunDir {
            since: about.modified().ok()?,
            part: entry.file_name().into_string().ok()?,
            is_settled,
        })
    };
    entries.filter_map(dir).collect()
}

/// Deletes the files below `dir` whose key is not kept, and directories that are empty then; gives how many
/// files went. `key` is that of `dir`.
fn sweep(dir: &Path, key: &str, kept: &HashSet<String>) -> u64 {
    let mut deleted = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let key = format!("{key}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            deleted += sweep(&entry.path(), &key, kept);
        } else if !kept.contains(&key) && fs::remove_file(entry.path()).is_ok() {
            deleted += 1;
        }
    }
    // Fails where something is left, as it shall.
    let _ = fs::remove_dir(dir);
    deleted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_goes_with_its_empty_directories() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("r");
        for key in ["a/1-w/out", "a/1-w/.new-x", "b/1-w/out", "b/2-w/out"] {
            fs::create_dir_all(run.join(key).parent().unwrap()).unwrap();
            fs::write(run.join(key), "x").unwrap();
        }
        let kept = HashSet::from(["r/b/2-w/out".to_owned()]);
        assert_eq!(sweep(&run, "r", &kept), 3);
        assert!(run.join("b/2-w/out").exists());
        assert!(!run.join("a").exists() && !run.join("b/1-w").exists());
        assert_eq!(sweep(&run, "r", &HashSet::new()), 1);
        assert!(!run.exists());
    }

    #[test]
    fn the_directory_of_a_run_names_it() {
        for name in ["r-1", "r:1", "a.b", &"x".repeat(100)] {
            let run = RunId::new(name).unwrap();
            assert_eq!(run_of_part(&safe_part(name)), Some(run));
        }
        for part in [safe_part(&":".repeat(200)).as_str(), "=zz", "a b", "", "=2"] {
            assert_eq!(run_of_part(part), None, "{part}");
        }
    }
}

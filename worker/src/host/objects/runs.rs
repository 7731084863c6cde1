//! Which runs a sweeper looks at: those that its host was invoked for and, where workers ask the platform
//! itself, those that metad lists.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use foresail_schemas::id::RunId;
use jiff::Timestamp;

use crate::api::ApiError;
use crate::metad::Metad;

/// Runs that the host was invoked for and the sweeper has not looked at yet.
const RUNS_SEEN_MAX: usize = 10_000;
/// Runs that are listed at a time, the youngest.
const RUNS_LISTED: u64 = 100;
/// The same, where none of those was known before, or so many are remembered.
const RUNS_LISTED_MAX: u64 = 10_000;

/// Runs that the host was invoked for since the sweeper looked last.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunsSeen(Arc<Mutex<BTreeSet<RunId>>>);

impl RunsSeen {
    /// Notes a run; past the limit it is left to the retention.
    pub(crate) fn note(&self, run: &RunId) {
        // A panic elsewhere leaves a set of names, valid at every moment.
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < RUNS_SEEN_MAX && !seen.contains(run) {
            seen.insert(run.clone());
        }
    }

    pub(super) fn take(&self) -> BTreeSet<RunId> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How a host learns of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learning {
    /// All invocations go through it.
    Told,
    /// Workers invoke each other without it, and a run may be older than the host: it asks metad.
    Listed,
}

/// Runs that may have something to delete, and those that have ended and were looked at.
#[derive(Debug)]
pub(super) struct Runs {
    learning: Learning,
    pub open: BTreeSet<RunId>,
    /// By time of creation, the oldest first.
    ended: BTreeSet<(Timestamp, RunId)>,
    /// Those of `ended`, and those whose results went too, as long as metad lists them: they are not looked
    /// at again.
    over: HashMap<RunId, Timestamp>,
}

impl Runs {
    pub fn new(learning: Learning) -> Self {
        Self { learning, open: BTreeSet::new(), ended: BTreeSet::new(), over: HashMap::new() }
    }

    /// Takes in runs that somebody was invoked for: one that has ended and is taken up again has something to
    /// delete again.
    pub fn told(&mut self, seen: BTreeSet<RunId>) {
        for run in &seen {
            if let Some(since) = self.over.remove(run) {
                self.ended.remove(&(since, run.clone()));
            }
        }
        self.open.extend(seen);
    }

    /// Asks metad for runs that are not known yet.
    pub async fn learn(&mut self, metad: &Metad) -> Result<(), ApiError> {
        if self.learning == Learning::Told {
            return Ok(());
        }
        let mut listed = metad.runs(RUNS_LISTED).await?;
        let is_known = |run: &RunId| self.open.contains(run) || self.over.contains_key(run);
        let are_new = listed.len() as u64 >= RUNS_LISTED && !listed.iter().any(|run| is_known(&run.run));
        if are_new || self.over.len() as u64 > RUNS_LISTED_MAX {
            listed = metad.runs(RUNS_LISTED_MAX).await?;
            let ids: HashSet<&RunId> = listed.iter().map(|run| &run.run).collect();
            let ended = &self.ended;
            self.over.retain(|run, since| ids.contains(run) || ended.contains(&(*since, run.clone())));
        }
        let news = listed.into_iter().map(|run| run.run);
        let news: Vec<RunId> =
            news.filter(|run| !self.open.contains(run) && !self.over.contains_key(run)).collect();
        self.open.extend(news);
        Ok(())
    }

    /// A run of which nothing is left to delete but, one day, its results.
    pub fn end(&mut self, run: &RunId, since: Timestamp) {
        self.open.remove(run);
        self.over.insert(run.clone(), since);
        self.ended.insert((since, run.clone()));
    }

    /// The oldest run beyond so many that have ended.
    pub fn surplus(&self, kept_max: usize) -> Option<RunId> {
        let (_, run) = self.ended.first().filter(|_| self.ended.len() > kept_max)?;
        Some(run.clone())
    }

    /// Nothing is left of the run.
    pub fn forget(&mut self, run: &RunId) {
        let since = match self.learning {
            // Whoever is told of a run is not told of it twice.
            Learning::Told => self.over.remove(run),
            Learning::Listed => self.over.get(run).copied(),
        };
        self.ended.remove(&(since.unwrap_or(Timestamp::MIN), run.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str) -> RunId {
        RunId::new(name).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_oldest_run_goes_first_whatever_its_name() {
        let mut runs = Runs::new(Learning::Listed);
        runs.told(BTreeSet::from([run("a"), run("b"), run("c")]));
        for (name, second) in [("a", 3), ("b", 1), ("c", 2)] {
            runs.end(&run(name), at(second));
        }
        assert!(runs.open.is_empty() && runs.surplus(3).is_none());
        let mut gone = Vec::new();
        while let Some(run) = runs.surplus(0) {
            runs.forget(&run);
            gone.push(run.to_string());
        }
        assert_eq!(gone, ["b", "c", "a"]);
    }

    #[test]
    fn a_run_that_is_taken_up_again_is_looked_at_again() {
        let mut runs = Runs::new(Learning::Told);
        runs.told(BTreeSet::from([run("a")]));
        runs.end(&run("a"), at(1));
        runs.told(BTreeSet::from([run("a")]));
        assert!(runs.open.contains(&run("a")) && runs.surplus(0).is_none());
    }

    #[test]
    fn what_is_told_of_is_remembered_no_longer_than_it_is_kept() {
        let mut runs = Runs::new(Learning::Told);
        for name in ["a", "b"] {
            runs.end(&run(name), at(1));
            runs.forget(&run(name));
        }
        assert!(runs.over.is_empty() && runs.ended.is_empty());
    }
}

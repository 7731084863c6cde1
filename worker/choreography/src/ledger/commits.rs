//! Results and what follows from them: marked in-edges, skipped tasks, the end of the run.
//!
//! A decision is carried out in the operation that takes the result which decides: nobody ever finds the one
//! without the other.

use foresail_schemas::run::{Assumption, Change, Commit, OperationResult, RunStatus};

use super::{Decision, Ledger, read, refused};
use crate::skips::{followers, skipped_by};

/// What a result leads to.
struct Consequences {
    /// All tasks that what it decided skips; some of them may have been skipped before.
    skipped: Vec<u32>,
    /// Those of them that were not.
    newly_skipped: Vec<u32>,
    /// The tasks whose last in-edge is marked with it.
    filled: Vec<u32>,
}

impl Ledger {
    /// The first commit of a task stands. Its out-edges are marked with it, so that nobody ever finds a
    /// result whose consequences are missing. Of a run that has failed only the result itself is kept.
    pub(super) fn commit_task(
        &mut self,
        task: u32,
        commit: &Commit,
        assuming: &[Assumption],
        now_ms: f64,
    ) -> Decision {
        let state = self.state.task(task);
        if let Some(first) = &state.commit {
            let same = first.attempt == commit.attempt && first.instance == commit.instance;
            return read(if same {
                self.won_before(task, first, now_ms)
            } else {
                OperationResult::Committed { commit: first.clone() }
            });
        }
        let has_failed = self.state.status == RunStatus::Failed;
        if self.is_over() && !has_failed {
            return read(OperationResult::RunOver);
        }
        if state.skipped {
            return read(OperationResult::Skipped);
        }
        if let Some(refusal) = self.refusal(task, commit, assuming) {
            return refused(refusal);
        }
        if has_failed {
            // It is paid for, and a run that resumes this one need not make it again. Nothing follows here.
            let won = OperationResult::Won { ready: Vec::new(), skipped: Vec::new() };
            return (won, vec![Change::TaskCommitted { task, commit: commit.clone() }]);
        }
        let Consequences { skipped, newly_skipped, filled } = self.consequences(task, commit);
        let settled = self.state.committed + 1 + self.state.skipped + newly_skipped.len() as u64;
        let is_free = |task: &u32| self.state.task(*task).live_lease(now_ms).is_none();
        let ready = filled.iter().copied().filter(is_free).collect();
        let mut changes = vec![Change::TaskCommitted { task, commit: commit.clone() }];
        if !newly_skipped.is_empty() {
            changes.push(Change::TasksSkipped { by: task, tasks: newly_skipped });
        }
        changes.extend(filled.into_iter().map(|task| Change::TaskReady { task }));
        if settled == self.graph.len() as u64 {
            changes.push(Change::RunFinished { status: RunStatus::Completed, failure: None });
        }
        (OperationResult::Won { ready, skipped }, changes)
    }

    /// Why a commit is none of this run.
    fn refusal(&self, task: u32, commit: &Commit, assuming: &[Assumption]) -> Option<String> {
        if commit.attempt > self.state.task(task).attempts {
            return Some(format!("attempt {} of task {task} was never granted", commit.attempt));
        }
        if !self.state.instances.contains_key(&commit.instance) {
            return Some(format!("instance `{}` never joined", commit.instance));
        }
        if let Some(refusal) = self.unfounded(task, commit, assuming) {
            return Some(refusal);
        }
        let outputs = self.graph.writes(task).len();
        if commit.outputs.len() != outputs {
            let given = commit.outputs.len();
            return Some(format!("task {task} has {outputs} outputs, the commit has {given}"));
        }
        match (self.graph.decides(task), commit.decision.is_some()) {
            (true, false) => Some(format!("task {task} decides what follows, the commit has no `decision`")),
            (false, true) => Some(format!("task {task} decides nothing, the commit has a `decision`")),
            _ => None,
        }
    }

    /// What the commit of a task that has none would lead to.
    fn consequences(&self, task: u32, commit: &Commit) -> Consequences {
        let skipped = self.skipped_by(task, commit);
        let is_new = |task: &u32| !self.state.task(*task).skipped;
        let newly_skipped: Vec<u32> = skipped.iter().copied().filter(is_new).collect();
        // A run that took over results of another may have one already.
        let fills = |&(child, edges): &(u32, u32)| {
            let state = self.state.task(child);
            let parents = self.graph.parents(child).len() as u32;
            state.commit.is_none() && !state.skipped && parents == state.marked + edges
        };
        let followers = followers(&self.graph, task, &newly_skipped, &skipped);
        let filled = followers.iter().filter(|follower| fills(follower)).map(|(child, _)| *child).collect();
        Consequences { skipped, newly_skipped, filled }
    }

    /// All tasks that the result of a task skips.
    fn skipped_by(&self, task: u32, commit: &Commit) -> Vec<u32> {
        let decision = commit.decision.as_ref();
        decision.map(|decision| skipped_by(&self.graph, task, decision)).unwrap_or_default()
    }

    /// The answer to a commit that stands already: as the first time, but for what somebody has by now.
    fn won_before(&self, task: u32, commit: &Commit, now_ms: f64) -> OperationResult {
        let skipped = self.skipped_by(task, commit);
        let is_free = |&child: &u32| self.state.task(child).is_free_for_its_worker(now_ms);
        let followers = followers(&self.graph, task, &skipped, &skipped);
        let ready = followers.into_iter().map(|(child, _)| child).filter(is_free).collect();
        OperationResult::Won { ready, skipped }
    }
}

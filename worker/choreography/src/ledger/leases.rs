//! Who may run a task: leases, leases that assume outputs which the asker holds, copies beside a lease.

use foresail_schemas::id::InstanceId;
use foresail_schemas::run::{Assumption, Change, Commit, Failure, FailureKind, OperationResult, RunStatus};

use super::{Decision, Ledger, read, refused};

impl Ledger {
    pub(super) fn lease(
        &mut self,
        task: u32,
        instance: &InstanceId,
        epoch: u64,
        assuming: &[u32],
        now_ms: f64,
    ) -> Decision {
        if self.is_over() {
            return read(OperationResult::RunOver);
        }
        let state = self.state.task(task);
        if let Some(commit) = &state.commit {
            return read(OperationResult::Committed { commit: commit.clone() });
        }
        if state.skipped {
            return read(OperationResult::Skipped);
        }
        if self.state.instances.get(instance).is_none_or(|i| i.left) {
            return refused(format!("instance `{instance}` does not take part in the run"));
        }
        if state.idle_since_ms.is_none() && !self.is_assumed_ready(task, instance, assuming, now_ms) {
            return read(OperationResult::NotReady);
        }
        if let Some(lease) = state.live_lease(now_ms) {
            if lease.instance == *instance {
                let attempt = lease.attempt;
                return read(OperationResult::Granted { attempt, parents: self.parent_commits(task) });
            }
            return read(OperationResult::Held { expires_in_ms: lease.expires_ms - now_ms });
        }
        if let Some(config) = self.too_small(task, instance) {
            return read(OperationResult::NeedsLarger { config });
        }
        if let Some(again_ms) = state.idle_since_ms.filter(|again_ms| *again_ms > now_ms) {
            return read(OperationResult::Held { expires_in_ms: again_ms - now_ms });
        }
        if epoch != self.state.plan_epoch {
            return read(OperationResult::StaleEpoch);
        }
        if state.attempts - state.raises >= self.attempts_max(task) {
            return (OperationResult::RunOver, vec![self.lost_too_often(task)]);
        }
        let attempt = state.attempts + 1;
        let leased = Change::TaskLeased {
            task,
            attempt,
            instance: instance.clone(),
            epoch,
            expires_ms: now_ms + self.options.lease_ms,
            assuming: assuming.to_vec(),
        };
        (OperationResult::Granted { attempt, parents: self.parent_commits(task) }, vec![leased])
    }

    /// Takes no lease: the holder goes on, and whoever commits first wins.
    pub(super) fn duplicate(&self, tasks: &[u32], instance: &InstanceId) -> Decision {
        if self.is_over() {
            return read(OperationResult::RunOver);
        }
        if self.state.instances.get(instance).is_none_or(|i| i.left) {
            return refused(format!("instance `{instance}` does not take part in the run"));
        }
        let may_run = |&&t: &&u32| {
            let state = self.state.task(t);
            let is_open = state.commit.is_none() && !state.skipped;
            is_open && state.idle_since_ms.is_some() && state.larger.is_none()
        };
        let Some(&task) = tasks.iter().find(may_run) else { return read(OperationResult::NotReady) };
        let granted = OperationResult::Duplicated { task, parents: self.parent_commits(task) };
        let is_known = self.state.task(task).copiers.contains(instance);
        let change = Change::TaskDuplicated { task, instance: instance.clone() };
        (granted, if is_known { Vec::new() } else { vec![change] })
    }

    pub(super) fn attempts_max(&self, task: u32) -> u32 {
        self.ids[task as usize].1.unwrap_or(self.options.attempts_max)
    }

    /// A ready task has the commits of all its parents but the skipped ones: an edge is marked only when its
    /// parent has a commit or is skipped.
    fn parent_commits(&self, task: u32) -> Vec<Option<Commit>> {
        self.graph.parents(task).iter().map(|&p| self.state.task(p).commit.clone()).collect()
    }

    fn lost_too_often(&self, task: u32) -> Change {
        let attempts = self.state.task(task).attempts;
        let failure = Failure {
            task: Some(self.ids[task as usize].0.clone()),
            attempt: attempts,
            kind: FailureKind::WorkerLost,
            message: format!(
                "the worker disappeared in each of {attempts} attempts; the task may crash or exhaust it"
            ),
            exception: None,
            lost: Vec::new(),
        };
        Change::RunFinished { status: RunStatus::Failed, failure: Some(failure) }
    }

    /// Whether every in-edge is marked or comes from a parent that `instance` runs, and holds the outputs of.
    /// What a task decides is known with its result and not before.
    fn is_assumed_ready(&self, task: u32, instance: &InstanceId, assuming: &[u32], now_ms: f64) -> bool {
        let state = self.state.task(task);
        let is_held = |parent: u32| {
            let lease = self.state.task(parent).live_lease(now_ms);
            assuming.contains(&parent)
                && !self.graph.decides(parent)
                && lease.is_some_and(|lease| lease.instance == *instance)
        };
        let has_edge = |parent: u32| {
            self.graph.edge_bit(parent, task).is_some_and(|bit| state.is_marked(bit)) || is_held(parent)
        };
        !assuming.is_empty() && self.graph.parents(task).iter().all(|&parent| has_edge(parent))
    }

    /// Why a commit rests on nothing: its task waits for a parent, or what its attempt took for the output of
    /// a parent did not become that.
    pub(super) fn unfounded(&self, task: u32, commit: &Commit, assuming: &[Assumption]) -> Option<String> {
        let state = self.state.task(task);
        if state.lost.contains(&(commit.instance.clone(), commit.attempt)) {
            return Some(format!("the result of attempt {} of task {task} is lost", commit.attempt));
        }
        if (state.marked as usize) < self.graph.parents(task).len() {
            return Some(format!("task {task} waits for {} results", self.graph.parents(task).len()));
        }
        let assumed = state.assumed.iter().filter(|assumed| assumed.attempt == commit.attempt);
        let assumed = assumed.map(|assumed| (assumed.parent, assumed.parent_attempt));
        let ahead = assuming.iter().map(|assumption| (assumption.task, assumption.attempt));
        let is_other = |&(parent, attempt): &(u32, u32)| {
            let stands = self.state.task(parent).commit.as_ref();
            stands.is_none_or(|stands| stands.instance != commit.instance || stands.attempt != attempt)
        };
        let (other, _) = assumed.chain(ahead).find(is_other)?;
        Some(format!(
            "attempt {} of task {task} read an output of task {other} that does not stand",
            commit.attempt
        ))
    }
}

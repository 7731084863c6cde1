//! What the store says: leases, children that became ready, who is alive.

use std::collections::BTreeMap;

use foresail_schemas::id::WorkerId;
use foresail_schemas::run::{LargerTask, Location, Operation, OperationAnswer, OperationResult, RunStatus};

use super::{Phase, Worker};
use crate::protocol::Action;

impl Worker {
    pub(super) fn answered(
        &mut self,
        operations: &[Operation],
        answer: OperationAnswer,
        now_ms: f64,
        out: &mut Vec<Action>,
    ) {
        let OperationAnswer { status, plan_epoch, results } = answer;
        let mut arrived = Vec::new();
        let mut owners = Vec::new();
        let mut commits = None;
        // Results that were never stored; parents stand before their children in a request.
        let mut unstored = BTreeMap::new();
        for (operation, result) in operations.iter().zip(results) {
            match operation {
                Operation::Join { .. } => self.joined(&result, out),
                Operation::Lease { task, assuming, .. } => {
                    self.leased(*task, assuming, result, now_ms, out);
                }
                Operation::Duplicate { tasks, .. } => self.copy_answered(tasks, result, out),
                Operation::Commit { task, commit, .. } => {
                    self.settled(*task, commit.attempt, &result, out);
                    let is_held = commit.outputs.iter().any(|o| matches!(o.location, Location::Unstored(_)));
                    let is_lost = matches!(
                        result,
                        OperationResult::Committed { .. }
                            | OperationResult::RunOver
                            | OperationResult::Skipped
                    );
                    if is_held || is_lost {
                        out.push(Action::Discard { task: *task, attempt: commit.attempt });
                    }
                    match &result {
                        OperationResult::Won { .. } if is_held => drop(unstored.insert(*task, commit)),
                        OperationResult::Refused { .. } => self.refused(*task, commit, &unstored),
                        _ => {}
                    }
                    if let OperationResult::Won { ready, skipped } = result {
                        arrived.extend(ready.into_iter().map(|child| (child, *task)));
                        self.skipped(skipped);
                    }
                }
                Operation::Fail { task, .. } => self.failure_noted(*task, &result, now_ms, out),
                Operation::Missing { tasks, parent } => {
                    self.missing_known(*parent, tasks, result, now_ms, out);
                }
                Operation::WhoIs { worker } => owners.push((worker, result)),
                Operation::Open { .. } => self.open_known(result),
                Operation::Commits { tasks } => commits = Some((tasks, result)),
                Operation::Frontier { .. } => self.frontier(result, out),
                Operation::Leave { .. } => self.left(result, out),
                _ => {}
            }
        }
        self.forget_sent();
        // What runs now fetches its inputs before anything is fetched for later.
        if let Some((tasks, OperationResult::Commits { commits })) = commits {
            self.commits_known(tasks, commits, out);
        }
        // Children after leases: whether this worker has a lane left for one is known only then.
        for (task, parent) in arrived {
            self.arrived(task, parent, out);
        }
        for (worker, result) in owners {
            self.owner_known(worker, &result, out);
        }
        let unknown: Vec<WorkerId> = self.asked.keys().cloned().collect();
        unknown.into_iter().for_each(|worker| self.outbox.push(Operation::WhoIs { worker }));
        if status != RunStatus::Running {
            self.end(status, out);
        } else if plan_epoch > self.plan.epoch() {
            self.read_plan(out);
        }
    }

    fn joined(&mut self, result: &OperationResult, out: &mut Vec<Action>) {
        match result {
            OperationResult::Joined { before } => {
                self.phase = Phase::Working;
                if self.settings.options.run_ahead {
                    self.ahead.joined(*before);
                }
            }
            _ => self.finish(out),
        }
    }

    fn leased(
        &mut self,
        task: u32,
        assumed: &[u32],
        result: OperationResult,
        now_ms: f64,
        out: &mut Vec<Action>,
    ) {
        if !self.leasing.remove(&task) {
            return self.claimed(task, result, out);
        }
        let is_told = self.told.remove(&task);
        match result {
            // A lease granted at the very end of the run is given back by leaving.
            OperationResult::Granted { attempt, parents } if self.status == RunStatus::Running => {
                let Some(parents) = self.with_held(task, parents, assumed) else {
                    return self.give_back(task, attempt);
                };
                let hold_bytes_min = self.hold_bytes_min(task);
                self.begins(task);
                self.running.insert(task, attempt);
                out.push(Action::Execute { task, attempt, parents, hold_bytes_min });
                if attempt == 1 {
                    self.prewarms.begin(self.plan.prewarms(Some(task)), now_ms);
                }
            }
            // Somebody ran it. What is held for it waits for nobody any more: as the child has a result, the
            // parent has one too, made elsewhere after a lease of this worker had run out.
            OperationResult::Committed { .. } => {
                self.mine.remove(&task);
                self.give_up_parents(task);
            }
            OperationResult::Skipped => {
                self.skipped([task]);
                self.give_up_parents(task);
            }
            OperationResult::StaleEpoch => {
                self.enqueue(task);
                self.read_plan(out);
            }
            OperationResult::NeedsLarger { config } => self.run_on_larger(task, config, out),
            _ => {
                self.give_up_parents(task);
                if is_told {
                    self.hint(task);
                }
            }
        }
    }

    /// A child of a task that ran here is ready.
    fn arrived(&mut self, task: u32, parent: u32, out: &mut Vec<Action>) {
        let clusters = self.clusters_children(parent) && self.phase == Phase::Working;
        if clusters && self.runs_here(task) {
            return self.enqueue(task);
        }
        self.dispatch(task, out);
    }

    /// A child is ready and nobody has it. Who is leaving takes nothing more, not even its own.
    pub(super) fn dispatch(&mut self, task: u32, out: &mut Vec<Action>) {
        if self.has_begun(task) {
            return;
        }
        let stays = self.phase == Phase::Working;
        let has_lane = stays && self.free_lanes() > self.queue.len();
        match self.plan.worker(task).cloned() {
            // What ran ahead has its commit on the way.
            Some(_) if stays && self.is_mine(task) => {
                if self.mine.contains(&task) {
                    self.enqueue(task);
                }
            }
            Some(worker) => {
                self.asked.entry(worker).or_default().insert(task);
            }
            None if has_lane && self.same_config(task) => self.enqueue(task),
            None => out.extend(self.plan.invoke(None, vec![task]).map(Action::Invoke)),
        }
    }

    /// A living owner hears of its task by itself; a missing one is started.
    fn owner_known(&mut self, worker: &WorkerId, result: &OperationResult, out: &mut Vec<Action>) {
        let tasks = self.asked.remove(worker).unwrap_or_default();
        if *result == (OperationResult::Instance { instance: None }) {
            let invoke = self.plan.invoke(Some(worker.clone()), tasks.into_iter().collect());
            out.extend(invoke.map(Action::Invoke));
        }
    }

    /// What of its own is left, at the start of a planned worker: others of its id may have lived before.
    fn open_known(&mut self, result: OperationResult) {
        if let OperationResult::Open { tasks, ready } = result {
            self.mine = tasks.into_iter().filter(|&task| self.is_mine(task)).collect();
            self.mine.retain(|&task| !self.skips.has(task));
            ready.into_iter().for_each(|task| self.hint(task));
        }
    }

    fn frontier(&mut self, result: OperationResult, out: &mut Vec<Action>) {
        let OperationResult::Frontier { mut ready, larger, untried } = result else { return };
        for LargerTask { task, config } in larger {
            ready.retain(|&other| other != task);
            self.run_on_larger(task, config, out);
        }
        // The look at the end: what is stuck elsewhere. Its own ready tasks make the store refuse its leave.
        // What nobody has had may wait for the very place that this worker gives back. Whoever watches the
        // run, or works on and leaves later, starts it again where it was forgotten.
        let others = ready.into_iter().filter(|task| !self.is_mine(*task) && !untried.contains(task));
        let others: Vec<u32> = others.collect();
        others.into_iter().for_each(|task| self.dispatch(task, out));
    }
}

//! Tasks of an invocation: which is taken next, and what its end leads to.

use foresail_schemas::decision::Decision;
use foresail_schemas::run::{Commit, Failure, Measured, Operation};

use super::hold::Ended;
use super::{Phase, Worker};
use crate::protocol::{Action, Executed};

/// Time kept free at the end of a worker's life, beside twice the predicted time of the next task.
const LIFE_MARGIN_MS: f64 = 2_000.0;
/// Most tasks that wait for a lane, however brief they are.
const BACKLOG_MAX: usize = 64;
/// A planned worker has the next task of its own at hand, where tasks take at most this many times the work
/// that may wait: asking for its lease takes a part of such a task that counts. What is more urgent waits for
/// one task, and a new plan cannot move it any more; longer ones are therefore asked for when a lane is free.
const NEXT_AT_HAND: f64 = 50.0;
/// The rank of what goes before everything by the rank of the plan.
const FIRST: u32 = 0;

impl Worker {
    pub(super) fn enqueue(&mut self, task: u32) {
        let goes_first = self.queue.contains(&(FIRST, task));
        if !self.has_begun(task) && !self.skips.has(task) && !goes_first {
            self.queue.insert((self.plan.rank(task), task));
        }
    }

    /// Takes the task out of what is ready.
    pub(super) fn dequeue(&mut self, task: u32) {
        self.queue.remove(&(FIRST, task));
        self.queue.remove(&(self.plan.rank(task), task));
    }

    /// The task reads what is kept for it: where it is brief it goes before what the plan has before it, as
    /// long as the next of that serves this worker alone, so that nobody elsewhere waits for it. A result
    /// that is not read soon would be stored, in the time of the tasks that run meanwhile.
    pub(super) fn go_first(&mut self, task: u32) {
        let next = self.queue.first().map(|&(_, next)| next);
        let serves_here = |next: u32| self.graph.children(next).iter().all(|&child| self.is_mine(child));
        let is_queued = self.queue.contains(&(self.plan.rank(task), task));
        if is_queued && self.backlog(task) > 0 && next.is_some_and(serves_here) {
            self.dequeue(task);
            self.queue.insert((FIRST, task));
        }
    }

    /// A task that stores leaves its lane free. As many as there are lanes may store at a time; the lanes of
    /// the others stay taken, so that outputs do not pile up in memory before a slow up-link.
    pub(super) fn free_lanes(&self) -> usize {
        self.room_in(self.settings.lanes as usize)
    }

    /// Whether the task may be begun or asked for: there are free lanes, or it is brief and few wait.
    fn has_room_for(&self, task: u32) -> bool {
        self.room_in(self.settings.lanes as usize + self.backlog(task)) > 0
    }

    fn room_in(&self, places: usize) -> usize {
        let kept = self.storing.len().saturating_sub(self.settings.lanes as usize);
        places.saturating_sub(self.running.len() + self.leasing.len() + kept)
    }

    /// Most tasks that wait for a lane where this one is the next: as many of what it takes as may wait. What
    /// the last ones took says nothing of a task that is known to take longer.
    fn backlog(&self, task: u32) -> usize {
        let (Some(each_ms), most_ms) = (self.each_ms, self.settings.backlog_ms) else { return 0 };
        let each_ms = self.plan.known_ms(task).map_or(each_ms, |known_ms| each_ms.max(known_ms));
        let has_next = most_ms > 0.0 && self.index.is_some() && each_ms <= NEXT_AT_HAND * most_ms;
        let tasks = most_ms / each_ms.max(most_ms / BACKLOG_MAX as f64);
        if tasks < 1.0 { self.settings.lanes as usize * usize::from(has_next) } else { tasks as usize }
    }

    /// Keeps what a task took, a mean in which the last eight count most.
    pub(super) fn took(&mut self, measured: &Measured) {
        let took_ms = measured.download_ms + measured.exec_ms + measured.upload_ms;
        self.each_ms = Some(self.each_ms.map_or(took_ms, |each_ms| each_ms + (took_ms - each_ms) / 8.0));
    }

    /// Begins tasks, or asks for their leases, as long as there is room; what does not fit into the rest of
    /// life goes to a successor.
    pub(super) fn take_tasks(&mut self, now_ms: f64, out: &mut Vec<Action>) {
        if self.reading_plan {
            return;
        }
        while let Some(&(_, task)) = self.queue.first()
            && self.has_room_for(task)
        {
            self.queue.pop_first();
            let fresh = self.running.is_empty() && self.phase == Phase::Joining;
            if !fresh && !self.fits_into_life(task, now_ms) {
                if !self.give_up_parents(task) {
                    self.handed_over.push(task);
                }
                continue;
            }
            match self.parents_ahead(task) {
                Some(parents) => self.begin_ahead(task, parents, now_ms, out),
                None => self.lease(task),
            }
        }
    }

    pub(super) fn fits_into_life(&self, task: u32, now_ms: f64) -> bool {
        now_ms + 2.0 * self.plan.exec_ms(task) + LIFE_MARGIN_MS <= self.settings.life_ends_ms
    }

    fn lease(&mut self, task: u32) {
        let (instance, epoch) = (self.settings.instance.clone(), self.plan.epoch());
        self.leasing.insert(task);
        let assuming = self.assumed(task);
        self.outbox.push(Operation::Lease { task, instance, epoch, assuming });
    }

    /// The code of an attempt has ended: its lane is free for the next while its outputs are stored.
    pub(super) fn computed(&mut self, task: u32, attempt: u32) {
        if self.settings.options.overlap_uploads && self.running.get(&task) == Some(&attempt) {
            self.running.remove(&task);
            self.storing.insert(task, attempt);
        }
    }

    pub(super) fn executed(
        &mut self,
        task: u32,
        attempt: u32,
        outcome: Result<Executed, Failure>,
        now_ms: f64,
        out: &mut Vec<Action>,
    ) {
        let begun = self.running.get(&task).or_else(|| self.storing.get(&task));
        if begun != Some(&attempt) {
            return;
        }
        self.running.remove(&task);
        self.storing.remove(&task);
        let is_ahead = self.ahead.has(task);
        let decision = outcome.as_ref().ok().and_then(|executed| executed.decision.clone());
        let was_kept = self.kept_is_stored(task, outcome.as_ref().ok().map(|made| made.outputs.as_slice()));
        match outcome {
            Ok(executed) if was_kept.is_some() => {
                self.commit(task, attempt, executed);
                if let Some((reader, failure)) = was_kept.flatten() {
                    self.failed(reader, 0, failure);
                }
            }
            Ok(executed) => {
                self.took(&executed.measured);
                self.note_stored(task, &executed);
                self.release(task, Ended::Well, out);
                self.commit_kept_for(task);
                self.made(task, attempt, &executed);
                if !self.waits_for_parent(task, attempt, &executed) {
                    self.commit(task, attempt, executed);
                    self.settle();
                }
            }
            Err(failure) if was_kept.is_some() => {
                self.unmade(task, out);
                return self.kept_is_lost(task, attempt, failure, was_kept.flatten());
            }
            Err(failure) if is_ahead => return self.executed_badly_ahead(task, failure),
            // Whoever holds the lease of a copied task goes on, so its failure is nobody's.
            Err(_) if attempt == 0 => return,
            Err(failure) => {
                self.release(task, Ended::Badly, out);
                return self.failed(task, attempt, failure);
            }
        }
        self.take_tasks(now_ms, out);
        self.lease_a_child(task, decision.as_ref(), now_ms);
    }

    /// Gives the lease back; the store says what follows.
    pub(super) fn failed(&mut self, task: u32, attempt: u32, failure: Failure) {
        self.ahead.tried(task);
        let instance = self.settings.instance.clone();
        self.outbox.push(Operation::Fail { task, attempt, instance, failure });
    }

    pub(super) fn commit(&mut self, task: u32, attempt: u32, executed: Executed) {
        let commit = self.commit_of(attempt, executed);
        self.note_sent(task, &commit);
        let (assuming, decision) = (self.assumptions(task), commit.decision.clone());
        self.outbox.push(Operation::Commit { task, commit, assuming });
        self.mine.remove(&task);
        self.ask_owners(task, decision.as_ref());
    }

    /// An attempt of this worker as a result.
    pub(super) fn commit_of(&self, attempt: u32, executed: Executed) -> Commit {
        let Executed { outputs, measured, decision, printed } = executed;
        Commit { attempt, instance: self.settings.instance.clone(), outputs, measured, decision, printed }
    }

    /// Asks who lives among the owners of the children of a task.
    fn ask_owners(&mut self, parent: u32, decision: Option<&Decision>) {
        let children = self.graph.children(parent).iter().copied();
        let children = children.filter(|&child| self.may_follow(child, parent, decision));
        let mut others: Vec<u32> = children
            .filter_map(|task| self.plan.worker_index(task))
            .filter(|&owner| self.index != Some(owner))
            .collect();
        others.sort_unstable();
        others.dedup();
        for worker in others {
            self.outbox.who_is(self.plan.worker_named(worker));
        }
    }

    /// In the same request as the commit: the lease of the child that this worker would run if it is ready.
    fn lease_a_child(&mut self, parent: u32, decision: Option<&Decision>, now_ms: f64) {
        if self.reading_plan {
            return;
        }
        let children = self.graph.children(parent).iter().copied();
        let mut children = children.filter(|&child| self.may_follow(child, parent, decision));
        let mine = children.clone().filter(|&c| self.is_mine(c));
        let planned = mine.min_by_key(|&c| self.plan.rank(c));
        if let Some(child) = planned.or_else(|| children.find(|&c| self.runs_here(c)))
            && !self.has_begun(child)
            && self.has_room_for(child)
            && self.fits_into_life(child, now_ms)
        {
            self.lease(child);
        }
    }

    pub(super) fn same_config(&self, task: u32) -> bool {
        self.plan.config(task).key() == self.settings.config.key()
    }
}

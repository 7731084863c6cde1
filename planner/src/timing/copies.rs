//! Task-dup in the timing pass: a planned worker that waits runs a task of another as well, and the first
//! result stands.
//!
//! As the worker's state machine does it, under the same names. The columns stay empty where no task of a
//! plan may run twice.

use crate::dense::{Dense, NONE};
use crate::extras::{TASK_DUP, may_be_copied};
use crate::timing::agenda::Kind;
use crate::timing::lists::List;
use crate::timing::{Hand, Phase, TaskState, Timing};

/// Most candidates in one request; as in the worker.
const CANDIDATES_MAX: usize = 64;

/// Who may run what a second time.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// Worker, rank, task of another worker that it waits for; sorted.
    candidates: Vec<(u32, u32, u32)>,
    /// The same by task: task, worker; sorted.
    audience: Vec<(u32, u32)>,
    /// By invocation.
    copiers: Vec<Copier>,
}

/// What an invocation knows of tasks that it may run a second time.
#[derive(Debug, Default)]
struct Copier {
    /// Asked for and not ready, until they are heard of again.
    waiting: Vec<u32>,
    /// Became ready since the last request.
    heard: Vec<u32>,
    /// In the request that is on its way.
    asked: Vec<u32>,
    /// What that gave, or [`NONE`].
    granted: u32,
    /// Begun here, with start and end.
    runs: Vec<(u32, f64, f64)>,
    /// Known to have a result.
    known: Vec<u32>,
    /// Of its own, found to be run by somebody else by the request that is on its way.
    lost: Vec<u32>,
}

impl Copies {
    pub fn reset(&mut self, dense: &Dense, tasks: &[TaskState], planned_on: &[u32]) {
        self.candidates.clear();
        self.audience.clear();
        self.copiers.clear();
        let place = |t: u32| (planned_on[t as usize], tasks[t as usize].size());
        let may_run_twice = |p: u32| may_be_copied(dense, p, place);
        let flagged = (0..).zip(tasks).filter(|(_, t)| t.flags & TASK_DUP != 0);
        for (p, task) in flagged.filter(|&(p, _)| may_run_twice(p)) {
            for &child in dense.graph.children(p) {
                let worker = planned_on[child as usize];
                if worker != NONE && worker != planned_on[p as usize] {
                    self.candidates.push((worker, task.rank, p));
                    self.audience.push((p, worker));
                }
            }
        }
        self.audience.sort_unstable();
        self.audience.dedup();
        self.candidates.sort_unstable();
        self.candidates.dedup();
    }

    /// Whether any task may run twice.
    pub fn has_any(&self) -> bool {
        !self.candidates.is_empty()
    }

    /// Another invocation.
    pub fn begin(&mut self) {
        if self.has_any() {
            self.copiers.push(Copier { granted: NONE, ..Copier::default() });
        }
    }

    /// When an invocation began a copy of a task, and when that ended, as soon as it has.
    pub fn times_ms(&mut self, id: u32, task: u32) -> Option<(&mut f64, &mut f64)> {
        let runs = &mut self.copiers.get_mut(id as usize)?.runs;
        runs.iter_mut().find(|(t, ..)| *t == task).map(|(_, start_ms, end_ms)| (start_ms, end_ms))
    }

    /// An invocation knows that a task has a result.
    pub fn note_commit(&mut self, id: u32, task: u32) {
        if let Some(copier) = self.copiers.get_mut(id as usize) {
            copier.known.push(task);
        }
    }

    /// An invocation asked for a task of its own that somebody else ran.
    pub fn note_lost(&mut self, id: u32, task: u32) {
        if let Some(copier) = self.copiers.get_mut(id as usize) {
            copier.lost.push(task);
        }
    }
}

impl Timing<'_> {
    /// Workers that may run a task as well hear that it is ready.
    pub(super) fn tell_copiers(&mut self, task: u32, now_ms: f64) {
        let from = self.copies.audience.partition_point(|&(t, _)| t < task);
        for &(_, worker) in self.copies.audience[from..].iter().take_while(|&&(t, _)| t == task) {
            let alive = self.workers[worker as usize].alive;
            if alive != NONE {
                self.agenda.after_dispatch(now_ms, Kind::CopyHint(alive, task));
            }
        }
    }

    /// A task that was asked for in vain may be asked for again.
    pub(super) fn hear_of_copy(&mut self, id: u32, task: u32, now_ms: f64) {
        if self.live[id as usize].phase != Phase::Gone {
            let copier = &mut self.copies.copiers[id as usize];
            copier.waiting.retain(|&t| t != task);
            copier.heard.push(task);
            self.pump(id, now_ms);
        }
    }

    /// Asks for a task of another worker when there is nothing to do but wait.
    pub(super) fn copy_if_idle(&mut self, id: u32, now_ms: f64) {
        let live = &self.live[id as usize];
        let waits = live.worker != NONE && live.mine > 0 && live.handed_over.is_empty();
        if !waits || self.has_work(id) || live.is_waiting || self.has_news(id) {
            return;
        }
        let worker = live.worker;
        let from = self.copies.candidates.partition_point(|&(w, ..)| w < worker);
        let copier = &self.copies.copiers[id as usize];
        let own = self.copies.candidates[from..].iter().take_while(|&&(w, ..)| w == worker);
        let may_run = |&&(_, _, task): &&(u32, u32, u32)| {
            let is_open = |&c: &u32| {
                self.planned_on[c as usize] != worker || self.tasks[c as usize].committed_nth == NONE
            };
            let is_known = copier.known.contains(&task) || copier.runs.iter().any(|(t, ..)| *t == task);
            !is_known && self.dense.graph.children(task).iter().all(is_open)
        };
        let fits = |&task: &u32| self.fits_in_life(id, task, self.tasks[task as usize].size(), now_ms);
        let tasks: Vec<u32> =
            own.filter(may_run).map(|&(_, _, task)| task).filter(fits).take(CANDIDATES_MAX).collect();
        if tasks.iter().any(|task| !copier.waiting.contains(task)) {
            let copier = &mut self.copies.copiers[id as usize];
            copier.heard.clear();
            copier.asked = tasks;
        }
    }

    /// Whether a copy is to be asked for with the next request.
    pub(super) fn asks_for_copy(&self, id: u32) -> bool {
        self.copies.copiers.get(id as usize).is_some_and(|copier| !copier.asked.is_empty())
    }

    /// The run's state grants the first that is ready and has no result.
    pub(super) fn grant_copy(&mut self, id: u32) {
        let Some(copier) = self.copies.copiers.get_mut(id as usize) else { return };
        let is_ready = |&&t: &&u32| {
            let task = &self.tasks[t as usize];
            task.ready_ms.is_finite() && task.committed_nth == NONE
        };
        copier.granted = copier.asked.iter().find(is_ready).copied().unwrap_or(NONE);
    }

    /// The answer: a copy begins unless a task of its own took the last lane meanwhile.
    pub(super) fn copy_answered(&mut self, id: u32, now_ms: f64) {
        let Some(copier) = self.copies.copiers.get_mut(id as usize) else { return };
        let (asked, granted) =
            (std::mem::take(&mut copier.asked), std::mem::replace(&mut copier.granted, NONE));
        if granted == NONE {
            let silent = asked.into_iter().filter(|task| !copier.heard.contains(task));
            copier.waiting.extend(silent);
            return;
        }
        let goes_on = self.live[id as usize].phase == Phase::Working && !self.live[id as usize].saw_end;
        if goes_on && self.free_lanes(id) > 0 {
            self.copies.copiers[id as usize].runs.push((granted, now_ms, now_ms));
            self.gather(id, granted, now_ms);
        }
    }

    /// A copy that has ended: whoever commits first wins.
    pub(super) fn copy_done(&mut self, id: u32, task: u32, now_ms: f64) {
        self.give_back(id, task, now_ms);
        self.lists.push(&mut self.live[id as usize].commits, task);
        self.take_tasks(id, now_ms);
        let own = self.first_child_on(self.live[id as usize].worker, task);
        self.lease_a_child(id, task, own, now_ms);
        self.pump(id, now_ms);
    }

    /// Whether a task has no result yet, so that this one stands; then its times are those of this attempt.
    pub(super) fn wins(&mut self, id: u32, task: u32) -> bool {
        let times = &self.tasks[task as usize];
        if times.committed_nth != NONE {
            return false;
        }
        let ran = &mut self.ran[task as usize];
        if let Some((start_ms, end_ms)) = self.copies.times_ms(id, task) {
            // Its owner ended it before and has not told: what goes on there already rests on that attempt.
            if ran.ran_on != NONE && ran.end_ms >= ran.start_ms && ran.end_ms <= *end_ms {
                return true;
            }
            (ran.start_ms, ran.end_ms, ran.cause) = (*start_ms, *end_ms, times.filled_by);
        }
        true
    }

    /// Tasks of its own that somebody else ran: they are done.
    pub(super) fn forget_lost(&mut self, id: u32) {
        let Some(copier) = self.copies.copiers.get_mut(id as usize) else { return };
        let live = &mut self.live[id as usize];
        for task in copier.lost.drain(..) {
            let times = &self.tasks[task as usize];
            // What had a result before it joined was never counted.
            let is_counted =
                self.planned_on[task as usize] == live.worker && times.committed_nth >= live.joined_nth;
            live.mine = live.mine.saturating_sub(u32::from(is_counted));
        }
    }

    /// It hears that the run is over: whatever runs is stopped.
    pub(super) fn stop(&mut self, id: u32) {
        let live = &mut self.live[id as usize];
        live.is_stopped = true;
        (live.running, live.storing, live.blocked, live.mine) = (0, 0, 0, 0);
        live.commits = List::EMPTY;
        live.hands[Hand::Leasing as usize] = 0;
        live.computes = NONE;
        live.next = NONE;
        self.queues.release(&mut live.queue);
    }
}

//! What is done beside running tasks in the timing pass: pre-load and pre-warm.
//!
//! All of it is kept apart from the protocol, in columns that stay empty where a plan has none of it.

use crate::assignment::Assignment;
use crate::dense::{Dense, NONE};
use crate::extras::{PRE_LOAD, Warming};
use crate::standing::Standing;
use crate::timing::agenda::Kind;
use crate::timing::lists::List;
use crate::timing::{Invoke, Phase, TaskState, Timing};

/// What a plan does beside running its tasks.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// Tasks whose inputs are fetched ahead: worker and rank in one number, task; sorted.
    pre_loads: Vec<(u64, u32)>,
    /// Sorted by the task that they begin after.
    pub warmings: Vec<Warming>,
    /// Where the next task of each worker goes, for a moment.
    next: Vec<u32>,
    /// Tasks of one worker that read an object, for a moment.
    readers: Vec<(u32, u32)>,
}

impl Beside {
    pub fn reset(&mut self, dense: &Dense, plan: &Assignment, tasks: &[TaskState], begun: Option<&Standing>) {
        let worker = |t: u32| plan.worker[t as usize];
        let all = (0..).zip(tasks).filter(|(t, state)| state.flags & PRE_LOAD != 0 && worker(*t) != NONE);
        let all = all.filter(|(t, _)| !dense.stored_reads(*t).is_empty());
        // What has begun has its inputs.
        let all = all.filter(|(t, _)| begun.is_none_or(|standing| !standing.has_begun(*t)));
        self.list_pre_loads(all.map(|(t, state)| (worker(t), state.rank, t)), plan.workers as usize);
        self.warmings.clear();
        self.warmings.extend(&plan.extras.warmings);
        // Stable: what begins after the same task stays in the order of the plan.
        self.warmings.sort_by_key(|w| w.after);
    }

    /// By worker, which takes no comparing, and then those of each by rank.
    fn list_pre_loads(&mut self, all: impl Iterator<Item = (u32, u32, u32)> + Clone, workers: usize) {
        self.pre_loads.clear();
        self.next.clear();
        self.next.resize(workers + 1, 0);
        all.clone().for_each(|(worker, ..)| self.next[worker as usize + 1] += 1);
        let mut count = 0;
        for next in &mut self.next {
            count += *next;
            *next = count;
        }
        self.pre_loads.resize(count as usize, (0, NONE));
        for (worker, rank, task) in all {
            let next = &mut self.next[worker as usize];
            self.pre_loads[*next as usize] = (first_of(worker) + u64::from(rank), task);
            *next += 1;
        }
        let is_same = |a: &(u64, u32), b: &(u64, u32)| a.0 >> 32 == b.0 >> 32;
        self.pre_loads.chunk_by_mut(is_same).for_each(<[(u64, u32)]>::sort_unstable);
    }

    pub fn has_pre_loads(&self) -> bool {
        !self.pre_loads.is_empty()
    }

    pub fn has_warmings(&self) -> bool {
        !self.warmings.is_empty()
    }
}

/// Where the tasks of a worker begin among those that fetch ahead.
fn first_of(worker: u32) -> u64 {
    u64::from(worker) << 32
}

impl Timing<'_> {
    /// It has joined, and what it was granted begins: after that everything is fetched of which it learnt
    /// with the answer, in order of the ranks of the tasks that it is for.
    pub(super) fn fetch_known(&mut self, id: u32, now_ms: f64) {
        let live = &mut self.live[id as usize];
        let (worker, place, until) = (live.worker, (live.size, live.container), live.joined_nth);
        let is_known = |p: u32| self.tasks[p as usize].committed_nth < until;
        if worker == NONE {
            return;
        }
        let rows = &self.beside.pre_loads;
        let state = &mut self.workers[worker as usize];
        if state.fetching_from == NONE {
            state.fetching_from = rows.partition_point(|&(at, _)| at < first_of(worker)) as u32;
        }
        let until_at = first_of(worker) + state.fetching_to;
        let mut is_taken_so_far = !self.copies.has_any();
        for &(_, task) in rows[state.fetching_from as usize..].iter().take_while(|&&(at, _)| at < until_at) {
            if is_taken_so_far {
                is_taken_so_far = self.tasks[task as usize].is_taken;
                // Nobody who comes later has anything to fetch for it either.
                state.fetching_from += u32::from(is_taken_so_far);
            }
            if self.copies.has_any() {
                let makers = self.dense.graph.parents(task).iter().filter(|&&p| is_known(p));
                makers.for_each(|&p| self.copies.note_commit(id, p));
            }
            let missing = self.missing[task as usize] as usize;
            let is_nothing_made = missing == self.dense.graph.parents(task).len();
            if is_nothing_made && !self.dense.reads_from_outside(task) {
                continue;
            }
            let times = &self.tasks[task as usize];
            if !times.is_taken && times.committed_nth >= until {
                self.moved.preload(self.dense, &mut live.links, place, task, is_known, now_ms);
            }
        }
    }

    /// Something is made that a task reads: from now on its worker looks at it when it joins.
    pub(super) fn may_fetch_for(&mut self, task: u32) {
        let (worker, times) = (self.planned_on[task as usize], &self.tasks[task as usize]);
        if worker != NONE && times.flags & PRE_LOAD != 0 {
            self.workers[worker as usize].may_fetch(times.rank);
        }
    }

    /// The living owners of children that fetch ahead hear of a commit one round trip later.
    pub(super) fn tell_of_commit(&mut self, id: u32, task: u32, now_ms: f64) {
        let mut told = NONE;
        for &child in self.dense.graph.children(task) {
            let worker = self.planned_on[child as usize];
            if worker == NONE {
                continue;
            }
            let owner = self.workers[worker as usize].alive;
            let may_be_told = owner != NONE && owner != id && owner != told;
            if may_be_told && self.tasks[child as usize].flags & PRE_LOAD != 0 {
                told = owner;
                self.agenda.after_dispatch(now_ms, Kind::Committed(owner, task));
            }
        }
    }

    /// What its own tasks read of a parent that ran elsewhere is fetched, in order of their ranks.
    pub(super) fn hear_of_commit(&mut self, id: u32, parent: u32, now_ms: f64) {
        let live = &mut self.live[id as usize];
        if matches!(live.phase, Phase::Leaving | Phase::Gone) {
            return;
        }
        let place = (live.size, live.container);
        self.copies.note_commit(id, parent);
        if let Some(object) = self.dense.read_by_all_children(parent) {
            // Whoever is told has a task that reads it, and nobody fetches it twice.
            return self.moved.fetch_ahead(self.dense, &mut live.links, place, object, now_ms);
        }
        let is_parent = |p: u32| p == parent;
        let mut readers = std::mem::take(&mut self.beside.readers);
        readers.clear();
        for &child in self.dense.graph.children(parent) {
            let times = &self.tasks[child as usize];
            if self.planned_on[child as usize] == live.worker && times.flags & PRE_LOAD != 0 {
                readers.push((times.rank, child));
            }
        }
        if readers.len() > 1 {
            readers.sort_unstable();
        }
        for &(_, task) in &readers {
            self.moved.preload(self.dense, &mut live.links, place, task, is_parent, now_ms);
        }
        self.beside.readers = readers;
    }

    /// The clocks of what is started beforehand after a task, or after the run began, begin.
    pub(super) fn warm_after(&mut self, task: u32, id: u32, now_ms: f64) {
        let from = self.beside.warmings.partition_point(|w| w.after < task);
        let due = self.beside.warmings[from..].iter().take_while(|w| w.after == task);
        for (at, warming) in (from as u32..).zip(due) {
            self.agenda.at(now_ms + warming.delay_ms, Kind::PreWarm(id, at));
        }
    }

    /// A worker is started beforehand, unless the one that would start it has left.
    pub(super) fn pre_warm(&mut self, id: u32, warming: u32, now_ms: f64) {
        let left = |id: u32| matches!(self.live[id as usize].phase, Phase::Leaving | Phase::Gone);
        if self.committed == self.dense.len() || id != NONE && left(id) {
            return;
        }
        let size = self.beside.warmings[warming as usize].size;
        self.invoke(Invoke { worker: NONE, size, tasks: List::EMPTY }, now_ms);
    }
}

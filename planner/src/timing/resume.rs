//! The timing pass of a run that is under way: what has begun stays as it is, the rest is carried out from
//! now on.
//!
//! Whoever holds a new plan learns of it by one round trip: workers that live are told of tasks that wait
//! for them, those that do not are started now. A flexible worker that the plan in force has started for a
//! task is on its way, as long as the new plan has it take the task on that size.

use std::collections::HashSet;

use crate::dense::NONE;
use crate::link::Links;
use crate::standing::{Living, Stage, Standing};
use crate::timing::agenda::Kind;
use crate::timing::rows::named;
use crate::timing::{Invoke, Life, Live, Phase, Timing};

impl Timing<'_> {
    /// Brings everything to where the run stands.
    pub(super) fn resume(&mut self, standing: &Standing) {
        let now_ms = standing.now_ms;
        self.summary = standing.spent;
        self.names = standing.workers;
        (0..).zip(&mut self.workers[..standing.workers as usize]).for_each(|(name, w)| w.named = name);
        standing.done.iter().for_each(|&task| self.recall(task, standing));
        standing.living.iter().for_each(|living| self.revive(living, now_ms));
        let mut is_single = true;
        for (task, stage) in (0..).zip(&standing.tasks) {
            if let Stage::Running { living, start_ms, .. } = *stage {
                let (times, ran) = (&mut self.tasks[task as usize], &mut self.ran[task as usize]);
                times.is_taken = true;
                (ran.start_ms, ran.cause, ran.ran_on) = (start_ms, times.filled_by, living);
                if !self.stores(task, standing) {
                    self.live[living as usize].running += 1;
                    is_single &= self.live[living as usize].running == 1;
                }
            }
        }
        self.settles_late &= is_single;
        for (task, stage) in (0..).zip(&standing.tasks) {
            if let Stage::Running { living, computed_ms, .. } = *stage {
                match self.stores(task, standing) {
                    true => self.store_on(living, task, (computed_ms, now_ms)),
                    false => self.compute(living, task, computed_ms.max(now_ms)),
                }
            }
        }
        self.send_ready(standing);
        self.send_warmings(standing);
        for id in (0..standing.living.len() as u32).filter(|&id| standing.living[id as usize].is_up) {
            if self.beside.has_pre_loads() && self.live[id as usize].worker != NONE {
                self.fetch_known(id, now_ms);
            }
            self.pump(id, now_ms);
        }
        if self.committed == self.dense.len() {
            let last_ms = self.ran.iter().map(|ran| ran.end_ms).fold(0.0, f64::max);
            self.summary.makespan_ms = last_ms + self.dense.dispatch_ms / 2.0;
        }
    }

    /// Whether the code of a task that runs has ended, and its outputs are being stored.
    fn stores(&self, task: u32, standing: &Standing) -> bool {
        let Stage::Running { living, computed_ms, .. } = standing.tasks[task as usize] else { return false };
        let upload_ms = self.dense.upload_ms(self.live[living as usize].size, task);
        computed_ms < standing.now_ms && upload_ms > 0.0
    }

    fn store_on(&mut self, id: u32, task: u32, (computed_ms, now_ms): (f64, f64)) {
        let live = &mut self.live[id as usize];
        live.storing += 1;
        let done_ms = self.moved.upload(self.dense, &mut live.links, live.size, task, computed_ms);
        self.agenda.at(done_ms.max(now_ms), Kind::Done(id, task));
    }

    /// A task that has a result; those before it were recalled before.
    fn recall(&mut self, task: u32, standing: &Standing) {
        let Stage::Done { start_ms, end_ms } = standing.tasks[task as usize] else { return };
        let (times, ran) = (&mut self.tasks[task as usize], &mut self.ran[task as usize]);
        (ran.start_ms, ran.end_ms, ran.cause) = (start_ms, end_ms, times.filled_by);
        (times.is_taken, times.committed_nth) = (true, self.committed);
        self.committed += 1;
        let worker = self.planned_on[task as usize];
        if worker != NONE {
            self.workers[worker as usize].left -= 1;
        }
        for &child in self.dense.graph.children(task) {
            self.missing[child as usize] -= 1;
            self.tasks[child as usize].filled_by = task;
            if self.beside.has_pre_loads() {
                self.may_fetch_for(child);
            }
        }
    }

    /// An invocation that lives or is on its way.
    fn revive(&mut self, living: &Living, now_ms: f64) {
        let Living { worker, size, start_ms, is_up, .. } = *living;
        let id = self.live.len() as u32;
        let container = self.host.occupy(size);
        self.summary.invocations += 1;
        let (end_ms, is_cold, first) = (start_ms, false, NONE);
        self.lives.push(Life { worker, size, first, is_cold, container, start_ms, end_ms, cost_usd: 0.0 });
        let phase = if is_up { Phase::Working } else { Phase::Joining };
        let mut live = Live::new(worker, size, container, start_ms, Links::default(), phase);
        live.joined_nth = self.committed;
        if worker != NONE {
            let state = &mut self.workers[worker as usize];
            live.mine = state.left;
            if is_up {
                state.alive = id;
            }
        }
        self.push_live(live);
        for &object in &living.objects {
            let readers = self.dense.objects[object as usize].readers;
            self.moved.keep_copy(container, object, readers, now_ms);
        }
        if !is_up {
            let up_ms = start_ms + self.dense.startup_ms(size, true);
            self.agenda.at(up_ms.max(now_ms), Kind::Up(id));
        }
    }

    /// Whoever has a task that waits for nothing is told of it, or started, if that has not been done.
    fn send_ready(&mut self, standing: &Standing) {
        let now_ms = standing.now_ms;
        let is_ready = |t: &u32| {
            let task = &self.tasks[*t as usize];
            self.missing[*t as usize] == 0 && !task.is_taken
        };
        let mut ready: Vec<u32> = (0..self.dense.len()).filter(is_ready).collect();
        ready.sort_unstable_by_key(|&t| (self.tasks[t as usize].rank, t));
        let starting = self.live.iter().filter(|l| l.phase == Phase::Joining).map(|l| l.worker);
        let starting: HashSet<u32> = starting.collect();
        for task in ready {
            let times = &mut self.tasks[task as usize];
            times.ready_ms = now_ms;
            let (worker, size) = (self.planned_on[task as usize], times.size());
            if worker == NONE {
                let invoke = Invoke { worker, size, tasks: self.lists.of(task) };
                match standing.invoked_ms(task, size).filter(|_| self.host.has_place(size)) {
                    Some(since_ms) => self.start(invoke, NONE, since_ms),
                    None => self.invoke(invoke, now_ms),
                }
                continue;
            }
            let state = &mut self.workers[worker as usize];
            self.lists.push(&mut state.open, task);
            state.open_count += 1;
            if state.alive != NONE {
                self.agenda.after_dispatch(now_ms, Kind::Hint(state.alive, task));
            } else if !starting.contains(&worker) {
                if state.named == NONE {
                    state.named = self.names;
                    self.names += 1;
                }
                self.absent.push((named(state.named, worker), task));
            }
        }
        if !self.absent.is_empty() {
            self.invoke_absent(now_ms);
        }
    }

    /// Workers that are started beforehand and were not yet.
    fn send_warmings(&mut self, standing: &Standing) {
        for (at, warming) in (0..).zip(&self.beside.warmings) {
            let from_ms = match warming.after {
                NONE => Some(0.0),
                after => standing.tasks[after as usize].start_ms(),
            };
            let due_ms = from_ms.map(|ms| ms + warming.delay_ms);
            if let Some(due_ms) = due_ms.filter(|&ms| ms >= standing.now_ms) {
                self.agenda.at(due_ms, Kind::PreWarm(NONE, at));
            }
        }
    }
}

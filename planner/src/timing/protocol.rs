//! The protocol between workers and the run's state in the timing pass: leases, commits, hints, leaves.
//!
//! Each function has its counterpart in the worker's state machine, under the same name where there is one,
//! and does what that does when nothing fails.

use std::cmp::Reverse;

use crate::dense::NONE;
use crate::timing::edges::Fate;
use crate::timing::{Invoke, Kind, Pass, Phase};

/// Time kept free at the end of a worker's life, beside twice the predicted time of the next task; as in
/// the worker.
const LIFE_MARGIN_MS: f64 = 2_000.0;

impl Pass<'_> {
    /// Joins, looks what is ready and asks for the first tasks in one request.
    pub(super) fn up(&mut self, id: u32, now_ms: f64) {
        let worker = self.live[id as usize].worker;
        self.take_tasks(id, now_ms);
        let is_over = self.committed == self.dense.len();
        let is_double = worker != NONE && self.alive[worker as usize] != NONE;
        let live = &mut self.live[id as usize];
        live.saw_end = is_over || is_double;
        live.is_waiting = true;
        if is_over || is_double {
            live.phase = Phase::Leaving;
            self.at(now_ms + self.dense.dispatch_ms, Kind::Answer(id));
            return;
        }
        if worker != NONE {
            self.alive[worker as usize] = id;
            for at in 0..self.open[worker as usize].len() {
                let task = self.open[worker as usize][at];
                if !self.taken[task as usize] && !self.live[id as usize].asks_for(task) {
                    self.enqueue(id, task);
                }
            }
        }
        self.decide(id, now_ms);
    }

    pub(super) fn enqueue(&mut self, id: u32, task: u32) {
        let rank = self.plan.rank[task as usize];
        self.live[id as usize].queue.push(Reverse((rank, task)));
    }

    fn free_lanes(&self, id: u32) -> u32 {
        let live = &self.live[id as usize];
        self.dense.lanes.saturating_sub(live.running + (live.leasing.len() + live.asked.len()) as u32)
    }

    fn fits_in_life(&self, id: u32, task: u32, now_ms: f64) -> bool {
        let live = &self.live[id as usize];
        let is_fresh = live.phase == Phase::Joining && live.running == 0;
        let needed_ms = 2.0 * self.dense.exec_ms(live.size, task) + LIFE_MARGIN_MS;
        is_fresh || now_ms + needed_ms <= live.start_ms + self.dense.life_ms_max
    }

    fn take_tasks(&mut self, id: u32, now_ms: f64) {
        while self.free_lanes(id) > 0 {
            let Some(Reverse((_, task))) = self.live[id as usize].queue.pop() else { return };
            if self.taken[task as usize] || self.live[id as usize].asks_for(task) {
                // An earlier invocation of this worker ran it, and this one learns so when it asks.
                continue;
            }
            if self.fits_in_life(id, task, now_ms) {
                self.live[id as usize].leasing.push(task);
            } else {
                self.live[id as usize].handed_over.push(task);
            }
        }
    }

    pub(super) fn done(&mut self, id: u32, task: u32, now_ms: f64) {
        let live = &mut self.live[id as usize];
        live.running -= 1;
        live.mine = live.mine.saturating_sub(1);
        live.commits.push(task);
        live.last_task = task;
        self.timed.end_ms[task as usize] = now_ms;
        let owner = self.plan.worker[task as usize];
        if owner != NONE {
            self.open_of[owner as usize] -= 1;
        }
        self.take_tasks(id, now_ms);
        self.lease_a_child(id, task, now_ms);
        self.pump(id, now_ms);
    }

    /// In the request of the commit: the lease of the child that this worker would run if it is ready.
    fn lease_a_child(&mut self, id: u32, parent: u32, now_ms: f64) {
        if self.free_lanes(id) == 0 {
            return;
        }
        let (worker, size) = (self.live[id as usize].worker, self.live[id as usize].size);
        let plan = self.plan;
        let children = self.dense.graph.children(parent);
        let mine = |&&c: &&u32| worker != NONE && plan.worker[c as usize] == worker;
        let become_it = |&&c: &&u32| plan.worker[c as usize] == NONE && plan.size[c as usize] == size;
        let planned = children.iter().filter(mine).min_by_key(|&&c| plan.rank[c as usize]);
        if let Some(&child) = planned.or_else(|| children.iter().find(become_it))
            && !self.live[id as usize].asks_for(child)
            && self.fits_in_life(id, child, now_ms)
        {
            self.live[id as usize].leasing.push(child);
        }
    }

    /// Does what is due: takes tasks, leaves when idle, sends what has come up.
    pub(super) fn pump(&mut self, id: u32, now_ms: f64) {
        if self.live[id as usize].phase == Phase::Working {
            self.take_tasks(id, now_ms);
            self.leave_if_idle(id, now_ms);
        }
        let live = &self.live[id as usize];
        let has_news = !live.commits.is_empty() || !live.leasing.is_empty() || live.phase == Phase::Leaving;
        if !live.is_waiting && has_news && live.phase != Phase::Gone {
            self.decide(id, now_ms);
        }
    }

    fn leave_if_idle(&mut self, id: u32, now_ms: f64) {
        let linger_ms = self.linger_ms;
        let live = &mut self.live[id as usize];
        if live.running > 0 || !live.leasing.is_empty() || !live.asked.is_empty() || !live.queue.is_empty() {
            live.idle_since_ms = None;
            return;
        }
        let is_new = live.idle_since_ms.is_none();
        live.pauses += u32::from(is_new);
        let since_ms = *live.idle_since_ms.get_or_insert(now_ms);
        let may_linger = live.mine > 0 && live.handed_over.is_empty();
        let pause = live.pauses;
        if live.commits.is_empty() && !live.is_waiting && (!may_linger || now_ms >= since_ms + linger_ms) {
            live.phase = Phase::Leaving;
            live.idle_since_ms = None;
        } else if is_new && may_linger {
            self.at(since_ms + linger_ms, Kind::Linger(id, pause));
        }
    }

    /// Sends a request; the run's state decides it at once and the answer comes a round trip later.
    fn decide(&mut self, id: u32, now_ms: f64) {
        self.live[id as usize].is_waiting = true;
        let commits = std::mem::take(&mut self.live[id as usize].commits);
        for task in commits {
            self.commit(id, task, now_ms);
        }
        let is_over = self.committed == self.dense.len();
        let (worker, is_leaving) =
            (self.live[id as usize].worker, self.live[id as usize].phase == Phase::Leaving);
        let asked = std::mem::take(&mut self.live[id as usize].leasing);
        for &task in &asked {
            if self.edges.is_ready(task) && !self.taken[task as usize] {
                self.taken[task as usize] = true;
                self.live[id as usize].granted.push(task);
            }
        }
        self.live[id as usize].asked = asked;
        if is_leaving && worker != NONE {
            let hands_over = !self.live[id as usize].handed_over.is_empty();
            let taken = &self.taken;
            self.open[worker as usize].retain(|&t| !taken[t as usize]);
            if is_over || hands_over || self.open[worker as usize].is_empty() {
                self.alive[worker as usize] = NONE;
            } else {
                self.live[id as usize].stays = true;
            }
        }
        self.live[id as usize].saw_end = is_over;
        self.at(now_ms + self.dense.dispatch_ms, Kind::Answer(id));
    }

    /// A commit as the run's state sees it: edges are marked, owners of ready children hear of them.
    fn commit(&mut self, id: u32, task: u32, now_ms: f64) {
        let heard_ms = now_ms + self.dense.dispatch_ms;
        self.committed += 1;
        for &child in self.dense.graph.children(task) {
            if !self.edges.arrive(child, task, now_ms) {
                continue;
            }
            let worker = self.plan.worker[child as usize];
            let fate = match worker {
                NONE => Fate::Flexible,
                _ if worker == self.live[id as usize].worker => Fate::Mine,
                _ if self.alive[worker as usize] == NONE => Fate::Absent,
                _ => Fate::Hinted,
            };
            if worker != NONE {
                self.open[worker as usize].push(child);
            }
            if fate == Fate::Hinted {
                self.at(heard_ms, Kind::Hint(self.alive[worker as usize], child));
            }
            self.live[id as usize].fates.push((child, fate));
        }
        if self.committed == self.dense.len() {
            self.timed.summary.makespan_ms = now_ms + self.dense.dispatch_ms / 2.0;
            let alive: Vec<u32> = self.alive.iter().copied().filter(|&i| i != NONE && i != id).collect();
            alive.into_iter().for_each(|other| self.at(heard_ms, Kind::RunEnded(other)));
        }
    }

    pub(super) fn answered(&mut self, id: u32, now_ms: f64) {
        let live = &mut self.live[id as usize];
        live.is_waiting = false;
        live.asked.clear();
        match live.phase {
            Phase::Leaving if live.stays => {
                live.stays = false;
                live.phase = Phase::Working;
                let worker = live.worker as usize;
                for at in 0..self.open[worker].len() {
                    self.enqueue(id, self.open[worker][at]);
                }
            }
            Phase::Leaving => return self.gone(id, now_ms),
            _ => live.phase = Phase::Working,
        }
        if self.live[id as usize].saw_end {
            self.live[id as usize].mine = 0;
        }
        let granted = std::mem::take(&mut self.live[id as usize].granted);
        for task in granted {
            self.run(id, task, now_ms);
        }
        let fates = std::mem::take(&mut self.live[id as usize].fates);
        self.dispatch(id, fates, now_ms);
        self.pump(id, now_ms);
    }

    /// Children are ready: run them here, start workers for them, or leave them to their owners.
    fn dispatch(&mut self, id: u32, fates: Vec<(u32, Fate)>, now_ms: f64) {
        // By name, as the worker does it; those without a name yet are named in the order in which they
        // start here.
        let mut absent: std::collections::BTreeMap<(u32, u32), Vec<u32>> = std::collections::BTreeMap::new();
        for (child, fate) in fates {
            if self.taken[child as usize] {
                continue;
            }
            let (worker, size) = (self.plan.worker[child as usize], self.plan.size[child as usize]);
            match fate {
                Fate::Hinted => {}
                Fate::Mine => self.enqueue(id, child),
                Fate::Absent => {
                    let name = self.named[worker as usize];
                    absent.entry((name, worker)).or_default().push(child);
                }
                Fate::Flexible => {
                    let has_lane = self.free_lanes(id) as usize > self.live[id as usize].queue.len();
                    if has_lane && size == self.live[id as usize].size {
                        self.enqueue(id, child);
                    } else {
                        self.invoke(Invoke { worker: NONE, size, tasks: vec![child] }, now_ms);
                    }
                }
            }
        }
        for ((_, worker), tasks) in absent {
            let size = self.plan.size[tasks[0] as usize];
            self.invoke(Invoke { worker, size, tasks }, now_ms);
        }
    }
}

//! The protocol between workers and the run's state in the timing pass: leases, commits, hints, leaves.
//!
//! Each function has its counterpart in the worker's state machine, under the same name where there is one,
//! and does what that does when nothing fails.

use crate::dense::NONE;
use crate::timing::agenda::Kind;
use crate::timing::lists::List;
use crate::timing::rows::named;
use crate::timing::{HANDS, Hand, Invoke, Phase, Timing};

/// Time kept free at the end of a worker's life, beside twice the predicted time of the next task; as in
/// the worker.
const LIFE_MARGIN_MS: f64 = 2_000.0;

impl Timing<'_> {
    /// Joins, looks what is ready and asks for the first tasks in one request.
    pub(super) fn up(&mut self, id: u32, now_ms: f64) {
        let live = &mut self.live[id as usize];
        let worker = live.worker;
        if worker == NONE && live.first.is_empty() {
            // Started beforehand: it leaves a warm container behind.
            return self.gone(id, now_ms);
        }
        let mut first = std::mem::replace(&mut live.first, List::EMPTY);
        let is_over = self.committed == self.dense.len();
        let is_double = worker != NONE && self.workers[worker as usize].alive != NONE;
        live.saw_end = is_over || is_double;
        live.is_waiting = true;
        if is_over || is_double {
            live.phase = Phase::Leaving;
            self.agenda.after_dispatch(now_ms, Kind::Answer(id));
            return;
        }
        while let Some(task) = self.lists.pop(&mut first) {
            self.enqueue(id, task);
        }
        self.take_tasks(id, now_ms);
        if worker != NONE {
            let state = &mut self.workers[worker as usize];
            state.alive = id;
            let live = &mut self.live[id as usize];
            (live.mine, live.joined_nth) = (state.left, self.committed);
            self.enqueue_open(id, worker);
        }
        self.decide(id, now_ms);
    }

    /// Queues every ready task of the worker that nobody has.
    fn enqueue_open(&mut self, id: u32, worker: u32) {
        let mut open = self.workers[worker as usize].open;
        while let Some(task) = self.lists.pop(&mut open) {
            if self.is_free(task) && !self.asks_for(id, task) {
                self.enqueue(id, task);
            }
        }
    }

    /// Whether nobody runs it and nobody has.
    fn is_free(&self, task: u32) -> bool {
        let task = &self.tasks[task as usize];
        !task.is_taken && task.committed_nth == NONE
    }

    fn hand(&self, id: u32, hand: Hand) -> &[u32] {
        let at = (id as usize * HANDS + hand as usize) * self.hand_len();
        &self.held[at..at + usize::from(self.live[id as usize].hands[hand as usize])]
    }

    pub(super) fn put_in(&mut self, id: u32, hand: Hand, task: u32) {
        let row = (id as usize * HANDS + hand as usize) * self.hand_len();
        let count = &mut self.live[id as usize].hands[hand as usize];
        let at = row + usize::from(*count);
        *count += 1;
        self.held[at] = task;
    }

    fn asks_for(&self, id: u32, task: u32) -> bool {
        let hands = &self.live[id as usize].hands;
        if hands[Hand::Leasing as usize] + hands[Hand::Asked as usize] == 0 {
            return false;
        }
        self.hand(id, Hand::Leasing).contains(&task) || self.hand(id, Hand::Asked).contains(&task)
    }

    pub(super) fn enqueue(&mut self, id: u32, task: u32) {
        let rank = |t: u32| self.tasks[t as usize].rank;
        let live = &mut self.live[id as usize];
        if live.next == NONE {
            live.next = task;
            return self.wake_for_next(id);
        }
        let (first, later) = if rank(task) < rank(live.next) { (task, live.next) } else { (live.next, task) };
        live.next = first;
        self.queues.push(&mut live.queue, rank(later), later);
    }

    fn dequeue(&mut self, id: u32) -> Option<u32> {
        let live = &mut self.live[id as usize];
        if live.next == NONE {
            return None;
        }
        let next = self.queues.pop(live.queue).unwrap_or(NONE);
        Some(std::mem::replace(&mut live.next, next))
    }

    fn queue_len(&self, id: u32) -> usize {
        let live = &self.live[id as usize];
        usize::from(live.next != NONE) + self.queues.len(live.queue)
    }

    pub(super) fn free_lanes(&self, id: u32) -> u32 {
        self.live[id as usize].free_lanes(self.dense.lanes)
    }

    /// By the time that the plan says for the task, on the size that it is planned on.
    #[inline(always)]
    pub(super) fn fits_in_life(&self, id: u32, task: u32, size: u32, now_ms: f64) -> bool {
        let live = &self.live[id as usize];
        let is_fresh = live.phase == Phase::Joining && live.running == 0;
        let needed_ms = 2.0 * self.dense.exec_ms(size, task) + LIFE_MARGIN_MS;
        is_fresh || now_ms + needed_ms <= live.start_ms + self.dense.life_ms(live.size)
    }

    #[inline]
    pub(super) fn take_tasks(&mut self, id: u32, now_ms: f64) {
        let live = &self.live[id as usize];
        if live.next != NONE && live.free_lanes(self.dense.lanes) > 0 {
            self.take_queued(id, now_ms);
        }
    }

    #[inline(never)]
    fn take_queued(&mut self, id: u32, now_ms: f64) {
        while self.free_lanes(id) > 0 {
            let Some(task) = self.dequeue(id) else { return };
            if self.tasks[task as usize].is_taken || self.asks_for(id, task) {
                // An earlier invocation of this worker ran it, and this one learns so when it asks.
                continue;
            }
            if !self.fits_in_life(id, task, self.live[id as usize].size, now_ms) {
                self.lists.push(&mut self.live[id as usize].handed_over, task);
            } else if self.may_run_ahead(id, task) {
                self.take(task);
                self.run(id, task, now_ms);
            } else {
                self.put_in(id, Hand::Leasing, task);
            }
        }
    }

    /// Somebody has the task from now on.
    fn take(&mut self, task: u32) {
        let times = &mut self.tasks[task as usize];
        times.is_taken = true;
        let worker = self.planned_on[task as usize];
        if worker != NONE && times.ready_ms.is_finite() {
            let count = &mut self.workers[worker as usize].open_count;
            *count = count.saturating_sub(1);
        }
    }

    pub(super) fn done(&mut self, id: u32, task: u32, now_ms: f64) {
        if self.live[id as usize].is_stopped {
            return;
        }
        self.settle(id, now_ms);
        if let Some((_, end_ms)) = self.copies.times_ms(id, task) {
            *end_ms = now_ms;
            return self.copy_done(id, task, now_ms);
        }
        self.give_back(id, task, now_ms);
        let live = &mut self.live[id as usize];
        if self.tasks[task as usize].committed_nth == NONE {
            self.ran[task as usize].end_ms = now_ms;
        }
        if self.planned_on[task as usize] == live.worker {
            live.mine = live.mine.saturating_sub(1);
        }
        let own = self.made(id, task, now_ms);
        self.lists.push(&mut self.live[id as usize].commits, task);
        self.take_tasks(id, now_ms);
        self.lease_a_child(id, task, own, now_ms);
        self.pump(id, now_ms);
    }

    /// In the request of the commit: the lease of the child that this worker would run if it is ready, the
    /// first of its `own` or one that any worker may run.
    pub(super) fn lease_a_child(&mut self, id: u32, parent: u32, own: u32, now_ms: f64) {
        if self.free_lanes(id) == 0 {
            return;
        }
        let size = self.live[id as usize].size;
        let mut child = own;
        if own == NONE && self.has_flexible {
            let become_it = |c: u32| {
                let task = &self.tasks[c as usize];
                self.planned_on[c as usize] == NONE && task.size() == size && !task.is_absent()
            };
            let mut children = self.dense.graph.children(parent).iter().copied();
            child = children.find(|&c| become_it(c)).unwrap_or(NONE);
        }
        if child != NONE
            && !self.tasks[child as usize].is_taken
            && !self.asks_for(id, child)
            && self.fits_in_life(id, child, size, now_ms)
        {
            self.put_in(id, Hand::Leasing, child);
        }
    }

    /// Does what is due: takes tasks, leaves when idle, sends what has come up.
    pub(super) fn pump(&mut self, id: u32, now_ms: f64) {
        self.settle(id, now_ms);
        if self.live[id as usize].phase == Phase::Working {
            self.take_tasks(id, now_ms);
            if self.copies.has_any() {
                self.copy_if_idle(id, now_ms);
            }
            self.leave_if_idle(id, now_ms);
        }
        let live = &self.live[id as usize];
        if live.is_waiting || live.phase == Phase::Gone {
            return;
        }
        if live.phase == Phase::Leaving || self.has_news(id) {
            self.decide(id, now_ms);
        }
    }

    /// Whether there is anything to do but to wait.
    pub(super) fn has_work(&self, id: u32) -> bool {
        self.live[id as usize].has_work()
    }

    /// Whether there is anything for the next request, beside the leave.
    pub(super) fn has_news(&self, id: u32) -> bool {
        let live = &self.live[id as usize];
        live.hands[Hand::Leasing as usize] > 0
            || !live.commits.is_empty()
            || (self.copies.has_any() && self.asks_for_copy(id))
    }

    fn leave_if_idle(&mut self, id: u32, now_ms: f64) {
        let live = &mut self.live[id as usize];
        if live.has_work() {
            live.idle_since_ms = None;
            return;
        }
        let (linger_ms, has_news) = (self.linger_ms, self.has_news(id));
        let live = &mut self.live[id as usize];
        let is_new = live.idle_since_ms.is_none();
        live.pauses += u32::from(is_new);
        let since_ms = *live.idle_since_ms.get_or_insert(now_ms);
        let may_linger = live.mine > 0 && live.handed_over.is_empty();
        let pause = live.pauses;
        let has_told_all = !has_news && !live.is_waiting;
        if has_told_all && (!may_linger || now_ms >= since_ms + linger_ms) {
            live.phase = Phase::Leaving;
            live.idle_since_ms = None;
        } else if is_new && may_linger {
            self.agenda.after_linger(now_ms, Kind::Linger(id, pause));
        }
    }

    /// Sends a request; the run's state decides it at once and the answer comes a round trip later.
    fn decide(&mut self, id: u32, now_ms: f64) {
        let live = &mut self.live[id as usize];
        live.is_waiting = true;
        let mut commits = std::mem::replace(&mut live.commits, List::EMPTY);
        while let Some(task) = self.lists.take(&mut commits) {
            self.commit(id, task, now_ms);
        }
        if self.copies.has_any() {
            self.grant_copy(id);
        }
        let is_over = self.committed == self.dense.len();
        let live = &mut self.live[id as usize];
        live.saw_end = is_over;
        let leasing = usize::from(std::mem::take(&mut live.hands[Hand::Leasing as usize]));
        for at in 0..leasing {
            let place = (id as usize * HANDS + Hand::Leasing as usize) * self.hand_len() + at;
            let task = self.held[place];
            self.put_in(id, Hand::Asked, task);
            let times = &self.tasks[task as usize];
            if times.committed_nth != NONE {
                self.copies.note_lost(id, task);
            } else if times.ready_ms.is_finite() && !times.is_taken {
                self.take(task);
                self.put_in(id, Hand::Granted, task);
            }
        }
        let live = &self.live[id as usize];
        if live.phase == Phase::Leaving && live.worker != NONE {
            self.ask_to_leave(id, is_over);
        }
        self.agenda.after_dispatch(now_ms, Kind::Answer(id));
    }

    /// A planned worker may go when nothing of its own is ready, or when it has a successor.
    fn ask_to_leave(&mut self, id: u32, is_over: bool) {
        let live = &mut self.live[id as usize];
        let state = &mut self.workers[live.worker as usize];
        let mut all = std::mem::replace(&mut state.open, List::EMPTY);
        if state.open_count > 0 || self.copies.has_any() {
            while let Some(task) = self.lists.pop(&mut all) {
                let times = &self.tasks[task as usize];
                if !times.is_taken && times.committed_nth == NONE {
                    self.lists.push(&mut state.open, task);
                }
            }
        }
        if is_over || !live.handed_over.is_empty() || state.open.is_empty() {
            state.alive = NONE;
        } else {
            live.stays = true;
        }
    }

    /// A commit as the run's state sees it: edges are marked, owners of ready children hear of them.
    fn commit(&mut self, id: u32, task: u32, now_ms: f64) {
        if self.copies.has_any() && !self.wins(id, task) {
            return;
        }
        let times = &mut self.tasks[task as usize];
        times.committed_nth = self.committed;
        self.committed += 1;
        self.look_ahead();
        let worker = self.planned_on[task as usize];
        if worker != NONE {
            self.workers[worker as usize].left -= 1;
        }
        if self.dense.uploads[task as usize].objects > 0 {
            self.moved.made(self.dense, self.live[id as usize].container, task, now_ms);
        }
        if self.beside.has_pre_loads() {
            self.tell_of_commit(id, task, now_ms);
        }
        for &child in self.dense.graph.children(task) {
            match self.has_absent && self.tasks[child as usize].is_absent() {
                false => self.fill(id, (task, child), now_ms),
                true => self.decided_against(child, task),
            }
        }
        self.skip_on(id, now_ms);
        if self.committed == self.dense.len() {
            self.summary.makespan_ms = now_ms + self.dense.dispatch_ms / 2.0;
            for other in self.workers.iter().map(|w| w.alive).filter(|&i| i != NONE && i != id) {
                self.agenda.after_dispatch(now_ms, Kind::RunEnded(other));
            }
        }
    }

    /// A child does not wait for this parent any more.
    #[inline(always)]
    pub(super) fn fill(&mut self, id: u32, (task, child): (u32, u32), now_ms: f64) {
        if self.beside.has_pre_loads() {
            self.may_fetch_for(child);
        }
        let missing = &mut self.missing[child as usize];
        *missing -= 1;
        if *missing == 0 {
            self.open(id, (task, child), now_ms);
        }
    }

    /// A child waits for nothing any more.
    fn open(&mut self, id: u32, (task, child): (u32, u32), now_ms: f64) {
        let times = &mut self.tasks[child as usize];
        times.ready_ms = now_ms;
        let (worker, is_taken) = (self.planned_on[child as usize], times.is_taken);
        if !is_taken {
            times.filled_by = task;
        }
        if self.copies.has_any() {
            self.tell_copiers(child, now_ms);
        }
        if is_taken {
            return;
        }
        let is_queued = self.has_arrived(id, child);
        let live = &mut self.live[id as usize];
        if worker == NONE {
            return self.lists.push(&mut live.fates, child);
        }
        let state = &mut self.workers[worker as usize];
        self.lists.push(&mut state.open, child);
        state.open_count += 1;
        if worker == live.worker {
            if !is_queued {
                self.lists.push(&mut live.own, child);
            }
        } else if state.alive == NONE {
            self.lists.push(&mut live.fates, child);
        } else {
            self.agenda.after_dispatch(now_ms, Kind::Hint(state.alive, child));
        }
    }

    pub(super) fn answered(&mut self, id: u32, now_ms: f64) {
        self.settle(id, now_ms);
        if !self.live[id as usize].own.is_empty() {
            self.hear_of_own(id, now_ms);
        }
        let live = &mut self.live[id as usize];
        live.is_waiting = false;
        live.hands[Hand::Asked as usize] = 0;
        match live.phase {
            Phase::Leaving if live.stays => {
                live.stays = false;
                live.phase = Phase::Working;
                let worker = live.worker;
                self.enqueue_open(id, worker);
            }
            Phase::Leaving => return self.gone(id, now_ms),
            _ => {}
        }
        let live = &mut self.live[id as usize];
        let joins = std::mem::replace(&mut live.phase, Phase::Working) == Phase::Joining;
        let saw_end = live.saw_end;
        if self.copies.has_any() {
            self.forget_lost(id);
            self.copy_answered(id, now_ms);
        }
        if saw_end {
            self.stop(id);
        }
        let live = &mut self.live[id as usize];
        let granted = usize::from(std::mem::take(&mut live.hands[Hand::Granted as usize]));
        for at in 0..granted {
            let place = (id as usize * HANDS + Hand::Granted as usize) * self.hand_len() + at;
            self.run(id, self.held[place], now_ms);
        }
        if joins && self.beside.has_pre_loads() {
            self.fetch_known(id, now_ms);
        }
        if !self.live[id as usize].fates.is_empty() {
            self.dispatch(id, now_ms);
        }
        self.pump(id, now_ms);
    }

    /// Of its own children a planned worker hears by hints, which come just before the answer.
    fn hear_of_own(&mut self, id: u32, now_ms: f64) {
        let mut own = std::mem::replace(&mut self.live[id as usize].own, List::EMPTY);
        while let Some(child) = self.lists.take(&mut own) {
            if self.tasks[child as usize].is_taken {
                continue;
            }
            self.enqueue(id, child);
            if self.live[id as usize].phase == Phase::Working {
                self.take_tasks(id, now_ms);
            }
        }
    }

    /// Children that no living worker owns are ready: run them here or start workers for them.
    fn dispatch(&mut self, id: u32, now_ms: f64) {
        let mut fates = std::mem::replace(&mut self.live[id as usize].fates, List::EMPTY);
        while let Some(child) = self.lists.take(&mut fates) {
            let times = self.tasks[child as usize];
            if times.is_taken || times.committed_nth != NONE {
                continue;
            }
            let worker = self.planned_on[child as usize];
            if worker != NONE {
                let name = self.workers[worker as usize].named;
                self.absent.push((named(name, worker), child));
                continue;
            }
            let has_lane = self.free_lanes(id) as usize > self.queue_len(id);
            if has_lane && times.size() == self.live[id as usize].size {
                self.enqueue(id, child);
            } else {
                let tasks = self.lists.of(child);
                self.invoke(Invoke { worker: NONE, size: times.size(), tasks }, now_ms);
            }
        }
        if !self.absent.is_empty() {
            self.invoke_absent(now_ms);
        }
    }

    /// By name, as the worker does it; those without a name yet are named in the order in which they start
    /// here.
    pub(super) fn invoke_absent(&mut self, now_ms: f64) {
        let mut absent = std::mem::take(&mut self.absent);
        // Stable: the tasks of one worker stay in the order in which they became ready.
        absent.sort_by_key(|&(named, _)| named);
        for row in absent.chunk_by(|a, b| a.0 == b.0) {
            let (named, first) = row[0];
            let (worker, mut tasks) = (named as u32, List::EMPTY);
            row.iter().for_each(|&(_, child)| self.lists.push(&mut tasks, child));
            self.invoke(Invoke { worker, size: self.tasks[first as usize].size(), tasks }, now_ms);
        }
        absent.clear();
        self.absent = absent;
    }
}

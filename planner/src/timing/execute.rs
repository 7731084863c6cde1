//! The life of one task in the timing pass: downloads, the user's code, uploads.
//!
//! The lane is free for the next task once the code has ended, while the outputs are stored. Where a worker
//! has one lane and nothing is stopped half-way, that end matters only if a task waits for the lane: then it
//! is put on the agenda, otherwise what it changes is settled when the worker is next looked at.

use crate::dense::NONE;
use crate::extras::TASK_DUP;
use crate::timing::Timing;
use crate::timing::agenda::Kind;

impl Timing<'_> {
    /// A granted task begins: downloads, then the user's code, then uploads.
    pub(super) fn run(&mut self, id: u32, task: u32, now_ms: f64) {
        let live = &self.live[id as usize];
        // A task that may run twice has the times of the attempt that counts, which may have been elsewhere.
        let is_once = |t: u32| t != NONE && self.tasks[t as usize].flags & TASK_DUP == 0;
        let waited_for_lane = is_once(live.last_task);
        let waited_for_place = is_once(live.place_cause);
        let is_ahead = !self.tasks[task as usize].ready_ms.is_finite();
        let filled_by = self.tasks[task as usize].filled_by;
        let ready_ms = match is_ahead {
            true if filled_by != NONE => self.ran[filled_by as usize].end_ms,
            _ => self.tasks[task as usize].ready_ms,
        };
        // One that has a result by now, from a copy, runs all the same; the times are those that count.
        if self.tasks[task as usize].committed_nth == NONE {
            let ran = &mut self.ran[task as usize];
            (ran.start_ms, ran.ran_on) = (now_ms, id);
            ran.cause = if waited_for_lane && live.free_ms > ready_ms {
                live.last_task
            } else if waited_for_place && live.start_ms > ready_ms {
                live.place_cause
            } else {
                filled_by
            };
        }
        self.gather(id, task, now_ms);
        if self.beside.has_warmings() {
            self.warm_after(task, id, now_ms);
        }
    }

    /// Downloads, then the user's code; what comes after waits for its time.
    #[inline(always)]
    pub(super) fn gather(&mut self, id: u32, task: u32, now_ms: f64) {
        let live = &mut self.live[id as usize];
        live.running += 1;
        live.idle_since_ms = None;
        let (size, container) = (live.size, live.container);
        let inputs_ms = self.moved.download(self.dense, &mut live.links, size, container, task, now_ms);
        let factor = self.draw.as_ref().map_or(1.0, |draw| draw.exec[task as usize]);
        self.compute(id, task, inputs_ms + factor * self.dense.exec_ms(size, task));
    }

    /// What comes after the user's code, which ends at `computed_ms`.
    #[inline(always)]
    pub(super) fn compute(&mut self, id: u32, task: u32, computed_ms: f64) {
        let live = &mut self.live[id as usize];
        let size = live.size;
        if self.dense.uploads[task as usize].objects == 0 {
            self.agenda.at(computed_ms, Kind::Done(id, task));
        } else if self.settles_late {
            let done_ms = self.moved.upload(self.dense, &mut live.links, size, task, computed_ms);
            (live.computes, live.computed_ms, live.wakes) = (task, computed_ms, false);
            self.agenda.at(done_ms, Kind::Done(id, task));
            self.wake_for_next(id);
        } else {
            self.agenda.at(computed_ms, Kind::Computed(id, task));
        }
    }

    /// Puts the end of the code that runs on the agenda if a task waits for its lane.
    pub(super) fn wake_for_next(&mut self, id: u32) {
        let live = &mut self.live[id as usize];
        if live.computes != NONE && live.next != NONE && !live.wakes {
            live.wakes = true;
            self.agenda.at(live.computed_ms, Kind::Computed(id, live.computes));
        }
    }

    /// What the end of the code has changed, if that was not looked at yet.
    pub(super) fn settle(&mut self, id: u32, now_ms: f64) {
        let live = &mut self.live[id as usize];
        if live.computes != NONE && live.computed_ms <= now_ms {
            let task = std::mem::replace(&mut live.computes, NONE);
            self.store(id, task, self.live[id as usize].computed_ms);
        }
    }

    /// The user's code has ended.
    pub(super) fn computed(&mut self, id: u32, task: u32, now_ms: f64) {
        let live = &mut self.live[id as usize];
        if live.is_stopped {
            return;
        }
        if !self.settles_late {
            let done_ms = self.moved.upload(self.dense, &mut live.links, live.size, task, now_ms);
            self.agenda.at(done_ms, Kind::Done(id, task));
            self.store(id, task, now_ms);
        }
        self.pump(id, now_ms);
    }

    /// Outputs are stored while the lane goes on, as long as no more tasks store than there are lanes.
    fn store(&mut self, id: u32, task: u32, computed_ms: f64) {
        if !self.overlaps(self.live[id as usize].size, task) {
            return;
        }
        let live = &mut self.live[id as usize];
        if live.storing == self.dense.lanes {
            live.blocked += 1;
        } else {
            live.storing += 1;
            self.free_lane(id, task, computed_ms);
        }
    }

    /// Whether the lane of a task is free while its outputs are stored.
    fn overlaps(&self, size: u32, task: u32) -> bool {
        self.dense.upload_ms(size, task) > 0.0
    }

    fn free_lane(&mut self, id: u32, task: u32, now_ms: f64) {
        let live = &mut self.live[id as usize];
        live.running -= 1;
        (live.free_ms, live.last_task) = (now_ms, task);
    }

    /// The lane of a task without uploads, or the place of one that was stored, which goes to one that holds
    /// a lane although its code has ended.
    pub(super) fn give_back(&mut self, id: u32, task: u32, now_ms: f64) {
        if !self.overlaps(self.live[id as usize].size, task) {
            return self.free_lane(id, task, now_ms);
        }
        let live = &mut self.live[id as usize];
        // The up-link stores in order, so whoever is stored first was not kept waiting for a place.
        if live.blocked > 0 {
            live.blocked -= 1;
            self.free_lane(id, task, now_ms);
        } else {
            live.storing -= 1;
        }
    }
}

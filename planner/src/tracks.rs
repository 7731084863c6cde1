//! List scheduling on elastic workers: each task on the cheapest candidate that ends in time.
//!
//! Tasks are taken in the order in which they become ready, the longest way to the end first among equals.
//! A candidate is the worker that holds an input, that ran the parent which came last, that went idle last
//! or becomes free next, or a new worker of each size. The cheapest whose end is within the latest finish
//! time `deadline - tail` is taken; where none is, the one that ends first. The times are those of the
//! timing pass in short: nothing where all parents ran in the same worker, a round trip where the last one
//! did, two between workers, a start beside them for a new one, downloads of what is not in memory, and a
//! linger that is billed. Lanes beyond the first are left to the runtime.
//!
//! A *track* is a container with a row of workers on it: after a pause that is longer than a worker lingers
//! the next task starts a new worker, which finds the container warm.
//!
//! Source: list scheduling with latest finish times as in IC-PCP (Abrishami, Naghibzadeh, Epema, FGCS 2013),
//! here with marginal billing on workers that come and go.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::assignment::Assignment;
use crate::dense::NONE;
use crate::standing::Standing;

mod plane;
mod resume;
mod rows;

pub(crate) use plane::Plane;
use rows::{Copies, NOT_PLACED, Placed};

/// Most holders of inputs that are looked at per task.
const HOLDERS_MAX: usize = 6;

/// In which order tasks are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// As they become ready; the longest way to the end first among equals. For workers without number.
    Ready,
    /// The longest way to the end first. For few workers, where what is urgent must not queue.
    Urgency,
}

/// What a schedule is made towards.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aim {
    pub deadline_ms: f64,
    pub order: Order,
    /// The only size, except for tasks that it does not allow.
    pub size: Option<u32>,
    /// Most containers.
    pub tracks_max: u32,
}

impl Aim {
    /// Towards a deadline, on whatever there is.
    pub fn by(deadline_ms: f64) -> Self {
        Self { deadline_ms, order: Order::Ready, size: None, tracks_max: u32::MAX }
    }
}

/// One container and the worker on it.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Track {
    size: u32,
    /// The planned worker that has it.
    worker: u32,
    worker_from_ms: f64,
    /// End of its last task.
    free_ms: f64,
    last_task: u32,
    /// How often it was used; older entries of the queues are stale.
    uses: u32,
    is_idle: bool,
    /// Inputs of the task at hand that it holds, and in which round that was noted.
    held_bytes: f64,
    held_objects: u32,
    noted: u32,
}

/// Where and when a task would run.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    /// [`NONE`] for a new container.
    track: u32,
    size: u32,
    is_new_worker: bool,
    from_ms: f64,
    end_ms: f64,
    usd: f64,
}

/// What a task needs, whoever runs it.
#[derive(Debug, Clone, Copy)]
struct Need {
    task: u32,
    ready_ms: f64,
    /// The parent that came last.
    last_parent: u32,
    /// The worker that ran all parents; [`NONE`] where there is none.
    made_by: u32,
    is_source: bool,
    bytes: f64,
    objects: u32,
    latest_ms: f64,
}

/// The schedule in the making.
#[derive(Debug)]
pub(crate) struct Tracks<'p, 'a> {
    plane: &'p Plane<'a>,
    /// Where the run stands that goes on from there.
    standing: Option<&'p Standing>,
    tracks: Vec<Track>,
    workers: u32,
    placed: Vec<Placed>,
    ready: BinaryHeap<Reverse<(u64, Reverse<u64>, u32)>>,
    aim: Aim,
    /// Per size: tracks that run, by end; tracks that are idle, the latest last. With their uses.
    busy: Vec<BinaryHeap<Reverse<(u64, u32, u32)>>>,
    idle: Vec<VecDeque<(u32, u32)>>,
    busy_count: u32,
    copies: Vec<Copies>,
    holders: Vec<u32>,
}

impl<'p, 'a> Tracks<'p, 'a> {
    pub fn new(plane: &'p Plane<'a>) -> Self {
        Self::from(plane, None)
    }

    /// Of a run that stands somewhere.
    pub fn from(plane: &'p Plane<'a>, standing: Option<&'p Standing>) -> Self {
        let dense = plane.dense;
        let (tasks, sizes) = (dense.len() as usize, dense.sizes.len());
        Self {
            plane,
            standing,
            tracks: Vec::new(),
            workers: 0,
            placed: Vec::with_capacity(tasks),
            ready: BinaryHeap::new(),
            aim: Aim::by(0.0),
            busy: vec![BinaryHeap::new(); sizes],
            idle: vec![VecDeque::new(); sizes],
            busy_count: 0,
            copies: Vec::with_capacity(dense.objects.len()),
            holders: Vec::new(),
        }
    }

    /// Schedules everything.
    pub fn schedule(&mut self, aim: Aim) -> Assignment {
        let dense = self.plane.dense;
        self.reset();
        self.aim = aim;
        match self.standing {
            None => dense.graph.sources().for_each(|t| self.make_ready(t, 0.0)),
            Some(standing) => self.resume(standing),
        }
        let begin_ms = self.begin_ms();
        let mut rank = 0;
        while let Some(Reverse((_, _, task))) = self.ready.pop() {
            self.placed[task as usize].rank = rank;
            rank += 1;
            self.place(task);
            self.look_ahead(rank as usize);
            for &child in dense.graph.children(task) {
                let missing = &mut self.placed[child as usize].missing;
                *missing -= 1;
                if *missing == 0 {
                    let ends = dense.graph.parents(child).iter().map(|&p| self.placed[p as usize].end_ms);
                    self.make_ready(child, ends.fold(begin_ms, f64::max));
                }
            }
        }
        self.assignment()
    }

    fn assignment(&self) -> Assignment {
        let worker = self.placed.iter().map(|placed| placed.worker).collect();
        let size = self.placed.iter().map(|placed| placed.size).collect();
        let rank = self.placed.iter().map(|placed| placed.rank).collect();
        Assignment::new(worker, size, rank, self.workers)
    }

    /// Nothing begins earlier.
    fn begin_ms(&self) -> f64 {
        self.standing.map_or(0.0, |standing| standing.now_ms)
    }

    fn reset(&mut self) {
        let dense = self.plane.dense;
        self.tracks.clear();
        self.workers = 0;
        self.busy_count = 0;
        self.busy.iter_mut().for_each(BinaryHeap::clear);
        self.idle.iter_mut().for_each(VecDeque::clear);
        self.copies.clear();
        self.copies.resize(dense.objects.len(), Copies::NOWHERE);
        for (size, &warm) in dense.warm.iter().enumerate() {
            for _ in 0..warm {
                let track = self.add_track(size as u32, self.begin_ms());
                self.idle[size].push_back((track, 0));
            }
        }
        let missing = |t: u32| dense.graph.parents(t).len() as u32;
        self.placed.clear();
        self.placed.extend((0..dense.len()).map(|t| Placed { missing: missing(t), ..NOT_PLACED }));
    }

    fn make_ready(&mut self, task: u32, ready_ms: f64) {
        // The longest way to the end goes first among tasks that become ready together.
        let urgency = Reverse(self.plane.tail_ms[task as usize].to_bits());
        let first_ms = if self.aim.order == Order::Ready { ready_ms } else { 0.0 };
        self.ready.push(Reverse((first_ms.to_bits(), urgency, task)));
    }

    fn add_track(&mut self, size: u32, free_ms: f64) -> u32 {
        self.tracks.push(Track {
            size,
            worker: NONE,
            worker_from_ms: 0.0,
            free_ms,
            last_task: NONE,
            uses: 0,
            is_idle: true,
            held_bytes: 0.0,
            held_objects: 0,
            noted: NONE,
        });
        self.tracks.len() as u32 - 1
    }

    fn place(&mut self, task: u32) {
        let need = self.need(task);
        self.retire(need.ready_ms);
        let mut best: Option<Candidate> = None;
        let mut consider = |c: Candidate| {
            if best.is_none_or(|b| is_better(&c, &b, need.latest_ms)) {
                best = Some(c);
            }
        };
        for &track in &self.holders {
            consider(self.on_track(&need, track));
        }
        for &size in &self.plane.dense.useful {
            if !self.suits(task, size) {
                continue;
            }
            let size = size as usize;
            if let Some(&Reverse((_, track, _))) = self.busy[size].peek() {
                consider(self.on_track(&need, track));
            }
            if let Some(&(track, _)) = self.idle[size].back() {
                consider(self.on_track(&need, track));
            }
            // By urgency, the one that went idle last may have done so after this task was ready.
            if self.aim.order == Order::Urgency
                && let Some(&(track, _)) = self.idle[size].front()
            {
                consider(self.on_track(&need, track));
            }
        }
        let has_room = self.busy_count < self.plane.dense.concurrency_max
            && (self.tracks.len() as u32) < self.aim.tracks_max;
        if has_room && self.aim.size.is_some() {
            consider(self.on_new(&need, self.size_of_new(task)));
        } else if has_room {
            // By cost, so that the first that ends in time is the cheapest of them.
            for &size in self.plane.by_cost(task) {
                if self.plane.run_ms(task, size.into()).is_finite() {
                    let candidate = self.on_new(&need, size.into());
                    consider(candidate);
                    if candidate.end_ms <= need.latest_ms {
                        break;
                    }
                }
            }
        }
        // All places may be taken by sizes that do not allow the task.
        let best = best.unwrap_or_else(|| self.on_new(&need, self.size_of_new(task)));
        self.put(&need, best);
    }

    fn suits(&self, task: u32, size: u32) -> bool {
        match self.aim.size {
            Some(_) => size == self.size_of_new(task),
            None => self.plane.run_ms(task, size).is_finite(),
        }
    }

    /// The wanted size where it allows the task, else the smallest that does.
    fn size_of_new(&self, task: u32) -> u32 {
        let dense = self.plane.dense;
        dense.size_for(self.aim.size.unwrap_or(dense.useful[0]), task)
    }

    /// What the task needs; notes who holds its inputs.
    fn need(&mut self, task: u32) -> Need {
        let dense = self.plane.dense;
        let (mut ready_ms, mut last_parent) = (self.begin_ms(), NONE);
        let parents = dense.graph.parents(task);
        let mut made_by = parents.first().map_or(NONE, |&p| self.placed[p as usize].worker);
        for &p in parents {
            let parent = &self.placed[p as usize];
            if parent.end_ms >= ready_ms {
                (ready_ms, last_parent) = (parent.end_ms, p);
            }
            if parent.worker != made_by {
                made_by = NONE;
            }
        }
        let latest_ms = self.aim.deadline_ms - self.plane.tail_ms[task as usize];
        let is_source = parents.is_empty();
        let mut need =
            Need { task, ready_ms, last_parent, made_by, is_source, bytes: 0.0, objects: 0, latest_ms };
        self.holders.clear();
        if last_parent != NONE {
            self.note(self.placed[last_parent as usize].track, task, 0.0, 0);
        }
        for &object in dense.stored_reads(task) {
            let bytes = dense.objects[object as usize].bytes as f64;
            need.bytes += bytes;
            need.objects += 1;
            if let Some(maker) = dense.maker(object) {
                self.note(self.placed[maker as usize].track, task, bytes, 1);
            }
            let copies = self.copies[object as usize];
            copies.tracks().for_each(|k| self.note(k, task, bytes, 1));
        }
        if self.holders.len() > HOLDERS_MAX {
            let tracks = &self.tracks;
            self.holders[1..].sort_unstable_by(|&a, &b| {
                let held = |k: u32| tracks[k as usize].held_bytes;
                held(b).total_cmp(&held(a)).then(a.cmp(&b))
            });
            self.holders.truncate(HOLDERS_MAX);
        }
        let mut holders = std::mem::take(&mut self.holders);
        holders.retain(|&k| self.suits(task, self.tracks[k as usize].size));
        self.holders = holders;
        need
    }

    fn note(&mut self, track: u32, task: u32, bytes: f64, objects: u32) {
        // What was done before the run is looked at may be on no track.
        if track == NONE {
            return;
        }
        let at = &mut self.tracks[track as usize];
        if at.noted != task {
            (at.noted, at.held_bytes, at.held_objects) = (task, 0.0, 0);
            self.holders.push(track);
        }
        at.held_bytes += bytes;
        at.held_objects += objects;
    }

    /// Moves what has ended by `now_ms` to the idle ones, and drops stale entries.
    fn retire(&mut self, now_ms: f64) {
        for &size in &self.plane.dense.useful {
            let (busy, idle) = (&mut self.busy[size as usize], &mut self.idle[size as usize]);
            while let Some(&Reverse((end, track, uses))) = busy.peek() {
                let is_stale = self.tracks[track as usize].uses != uses;
                if !is_stale && f64::from_bits(end) > now_ms {
                    break;
                }
                busy.pop();
                if !is_stale {
                    self.busy_count -= 1;
                    self.tracks[track as usize].is_idle = true;
                    idle.push_back((track, uses));
                }
            }
            let is_stale = |&(track, uses): &(u32, u32)| self.tracks[track as usize].uses != uses;
            while idle.back().is_some_and(is_stale) {
                idle.pop_back();
            }
            while idle.front().is_some_and(is_stale) {
                idle.pop_front();
            }
        }
    }

    fn download_ms(&self, need: &Need, size: u32, track: Option<&Track>) -> (f64, u32) {
        let (bytes, objects) = match track.filter(|k| k.noted == need.task) {
            Some(k) => (need.bytes - k.held_bytes, need.objects - k.held_objects),
            None => (need.bytes, need.objects),
        };
        let transfer = &self.plane.dense.sizes[size as usize].transfer;
        let ms = f64::from(objects) * transfer.download_latency_ms
            + bytes.max(0.0) * transfer.download_ms_per_byte;
        (ms, objects)
    }

    /// On the worker of a track, or on a new one there if that has left.
    fn on_track(&self, need: &Need, track: u32) -> Candidate {
        let dense = self.plane.dense;
        let at = &self.tracks[track as usize];
        let size = dense.size(at.size);
        let (download_ms, objects) = self.download_ms(need, at.size, Some(at));
        let run_ms = download_ms + self.plane.run_ms(need.task, at.size);
        let pause_ms = need.ready_ms + 2.0 * dense.dispatch_ms - at.free_ms;
        let is_ahead = need.made_by == at.worker || need.is_source;
        let begin_ms = need.ready_ms.max(at.free_ms);
        let outlives = begin_ms + 2.0 * run_ms - at.worker_from_ms > dense.life_ms(at.size);
        let is_new_worker = at.worker == NONE || outlives || pause_ms > self.plane.linger_ms;
        let (start_ms, billed_from_ms, request_usd) = if is_new_worker {
            let invoked_ms = begin_ms + if need.last_parent == NONE { 0.0 } else { dense.dispatch_ms };
            let prices = &dense.problem.platform.prices;
            (invoked_ms + size.startup.warm_ms + dense.dispatch_ms, invoked_ms, prices.request_usd)
        } else if is_ahead {
            (need.ready_ms.max(at.free_ms), at.free_ms, 0.0)
        } else {
            let runs_on = need.last_parent != NONE && at.last_task == need.last_parent;
            let trips = if runs_on { 1.0 } else { 2.0 };
            let told_ms = need.ready_ms + trips * dense.dispatch_ms;
            (told_ms.max(at.free_ms + dense.dispatch_ms), at.free_ms, 0.0)
        };
        let end_ms = start_ms + run_ms;
        let usd = (end_ms - billed_from_ms) * size.usd_per_ms + request_usd;
        let gets_usd = f64::from(objects) * dense.problem.platform.prices.get_usd;
        Candidate {
            track,
            size: at.size,
            is_new_worker,
            from_ms: billed_from_ms,
            end_ms,
            usd: usd + gets_usd,
        }
    }

    /// On a new container.
    fn on_new(&self, need: &Need, size: u32) -> Candidate {
        let dense = self.plane.dense;
        let prices = &dense.problem.platform.prices;
        let (download_ms, objects) = self.download_ms(need, size, None);
        let from_ms = need.ready_ms + if need.last_parent == NONE { 0.0 } else { dense.dispatch_ms };
        let start_ms = from_ms + dense.size(size).startup.cold_ms + dense.dispatch_ms;
        let end_ms = start_ms + download_ms + self.plane.run_ms(need.task, size);
        let billed_ms = end_ms - from_ms + 2.0 * dense.dispatch_ms;
        let usd = billed_ms * dense.size(size).usd_per_ms
            + prices.request_usd
            + f64::from(objects) * prices.get_usd;
        Candidate { track: NONE, size, is_new_worker: true, from_ms, end_ms, usd }
    }

    fn put(&mut self, need: &Need, on: Candidate) {
        let (dense, task) = (self.plane.dense, need.task);
        let track = if on.track == NONE { self.add_track(on.size, 0.0) } else { on.track };
        for &object in dense.stored_reads(task) {
            if dense.objects[object as usize].readers < 2 {
                continue;
            }
            let copies = &mut self.copies[object as usize];
            let is_here = copies.tracks.contains(&track)
                || dense.maker(object).is_some_and(|p| self.placed[p as usize].track == track);
            if !is_here {
                copies.add(track);
            }
        }
        let at = &mut self.tracks[track as usize];
        let was_busy = !std::mem::replace(&mut at.is_idle, false);
        if on.is_new_worker {
            (at.worker, at.worker_from_ms) = (self.workers, on.from_ms);
            self.workers += 1;
        }
        at.free_ms = on.end_ms;
        at.last_task = task;
        at.uses += 1;
        let (worker, uses) = (at.worker, at.uses);
        // Workers of the pool are found by what they hold alone, and take no place on the platform.
        if !dense.is_pool(on.size) {
            self.busy[on.size as usize].push(Reverse((on.end_ms.to_bits(), track, uses)));
            self.busy_count += u32::from(!was_busy);
        }
        let placed = &mut self.placed[task as usize];
        (placed.end_ms, placed.track) = (on.end_ms, track);
        (placed.worker, placed.size) = (worker, on.size);
    }
}

/// In time goes before late; in time the cheaper wins, late the one that ends first.
fn is_better(a: &Candidate, b: &Candidate, latest_ms: f64) -> bool {
    let in_time = |c: &Candidate| c.end_ms <= latest_ms;
    match (in_time(a), in_time(b)) {
        (true, true) => (a.usd, a.end_ms) < (b.usd, b.end_ms),
        (false, false) => (a.end_ms, a.usd) < (b.end_ms, b.usd),
        (a_in_time, _) => a_in_time,
    }
}

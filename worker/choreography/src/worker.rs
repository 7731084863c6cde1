//! One invocation of a worker: join, take tasks, run them, commit, mark edges, hand on, leave.
//!
//! A *planned* worker runs every task with its id and waits a little (`linger_ms`) for the next; a *flexible*
//! worker has no id, goes on with the first ready child of what it finished (become), starts workers for the
//! others (invoke) and leaves when nothing is left. Truth is in the store: a hint only makes the machine ask.
//! Commit, edges, the question who is alive and the lease of the next task travel in one request. Source of
//! become/invoke: WUKONG (SoCC'20); here outputs are stored before edges are marked.
//!
//! By concern: `tasks` takes them and ends them, `ahead` begins them before the store has answered, `answers`
//! makes sense of what the store says, `keep` keeps results for the next task in memory, `decided` knows what
//! will not run, `leave` ends the invocation,
//! `replan` changes the plan, `retry` follows a failure; `preload`, `duplicate` and `prewarm` are the
//! optimisations of these names, which cost a plan without them nothing.

mod ahead;
mod answers;
mod decided;
mod duplicate;
mod hold;
mod keep;
mod leave;
mod preload;
mod prewarm;
mod replan;
mod retry;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foresail_schemas::graph::Graph;
use foresail_schemas::id::WorkerId;
use foresail_schemas::run::{Operation, RunStatus};

use crate::outbox::Outbox;
use crate::plan_view::PlanView;
pub use crate::protocol::WorkerSettings;
use crate::protocol::{Action, CommitHints, Event};
use ahead::Ahead;
use decided::Skips;
use duplicate::Copies;
use hold::Holds;
use keep::Keeps;
use preload::PreLoads;
use prewarm::PreWarms;

/// How far the invocation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Joining,
    Working,
    /// Asked its host what it used, to say so when it leaves.
    Accounting,
    Leaving,
    Finished,
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Worker {
    settings: WorkerSettings,
    graph: Arc<Graph>,
    plan: Arc<PlanView>,
    /// The index of this planned worker in the plan.
    index: Option<u32>,
    outbox: Outbox,
    phase: Phase,
    status: RunStatus,
    /// Ready, by rank.
    queue: BTreeSet<(u32, u32)>,
    /// To be queued later: after a failed attempt.
    delayed: Vec<(f64, u32)>,
    leasing: BTreeSet<u32>,
    /// Of these, what is told to be ready meanwhile: the refusal of a lease may come after the hint.
    told: BTreeSet<u32>,
    /// What a task took of late, in ms.
    each_ms: Option<f64>,
    /// Task to attempt; those that wait for a lane included.
    running: BTreeMap<u32, u32>,
    /// Tasks whose code has ended and whose outputs are being stored, to attempt.
    storing: BTreeMap<u32, u32>,
    /// Planned for this worker and not known to have a result.
    mine: BTreeSet<u32>,
    /// Children of other planned workers, until it is known whether those live.
    asked: BTreeMap<WorkerId, BTreeSet<u32>>,
    /// Tasks to hand over to a successor because life ends.
    handed_over: Vec<u32>,
    reading_plan: bool,
    preloads: PreLoads,
    copies: Copies,
    ahead: Ahead,
    skips: Skips,
    prewarms: PreWarms,
    holds: Holds,
    keeps: Keeps,
    /// Since when there has been nothing to do.
    idle_since_ms: Option<f64>,
    heartbeat_ms: f64,
}

impl Worker {
    /// A new invocation that begins with `first_tasks`.
    #[must_use]
    pub fn new(
        settings: WorkerSettings,
        graph: Arc<Graph>,
        plan: Arc<PlanView>,
        first_tasks: &[u32],
    ) -> Self {
        let known = first_tasks.iter().filter(|&&task| (task as usize) < graph.len());
        let queue = known.map(|&task| (plan.rank(task), task)).collect();
        let mut worker = Self {
            settings,
            graph,
            plan: Arc::clone(&plan),
            index: None,
            outbox: Outbox::default(),
            phase: Phase::Joining,
            status: RunStatus::Running,
            queue,
            delayed: Vec::new(),
            leasing: BTreeSet::new(),
            told: BTreeSet::new(),
            each_ms: None,
            running: BTreeMap::new(),
            storing: BTreeMap::new(),
            mine: BTreeSet::new(),
            asked: BTreeMap::new(),
            handed_over: Vec::new(),
            reading_plan: false,
            preloads: PreLoads::default(),
            copies: Copies::default(),
            ahead: Ahead::default(),
            skips: Skips::default(),
            prewarms: PreWarms::default(),
            holds: Holds::default(),
            keeps: Keeps::default(),
            idle_since_ms: None,
            heartbeat_ms: 0.0,
        };
        worker.follow(plan);
        worker
    }

    /// Begins: joins and asks for the first task in one request.
    pub fn start(&mut self, now_ms: f64, out: &mut Vec<Action>) {
        let WorkerSettings { instance, worker, config, start, .. } = self.settings.clone();
        let planned = worker.is_some();
        self.outbox.push(Operation::Join { worker, instance, config, start });
        if planned {
            self.listen(out);
            self.outbox.push(Operation::Open { tasks: self.mine.iter().copied().collect() });
            self.ask_for_commits();
        }
        self.heartbeat_ms = now_ms + self.settings.options.heartbeat_ms;
        self.take_tasks(now_ms, out);
        self.pump(now_ms, out);
    }

    /// Takes an event and says what to do.
    pub fn handle(&mut self, event: Event, now_ms: f64, out: &mut Vec<Action>) {
        if self.phase == Phase::Finished {
            return;
        }
        match event {
            Event::Answered { request, answer } => {
                if let Some(operations) = self.outbox.answered(request) {
                    self.answered(&operations, answer, now_ms, out);
                }
            }
            Event::Unanswered { request } => self.outbox.unanswered(request, now_ms),
            Event::Computed { task, attempt } => self.computed(task, attempt),
            Event::Held { task, attempt, executed } => self.held(task, attempt, executed, now_ms, out),
            Event::Executed { task, attempt, outcome } => self.executed(task, attempt, outcome, now_ms, out),
            Event::Hint { ready, committed, skipped } => {
                self.skipped(skipped);
                ready.into_iter().for_each(|task| self.hint(task));
                committed.into_iter().for_each(|(task, commit)| self.committed(task, commit, out));
            }
            Event::RunEnded { status } => self.end(status, out),
            Event::PlanRead { epoch, plan } => self.plan_read(epoch, &plan, out),
            Event::UsageRead { usage } => self.leave(usage),
            Event::Retire => self.settings.life_ends_ms = now_ms.min(self.settings.life_ends_ms),
            Event::Tick => {}
        }
        self.pump(now_ms, out);
    }

    fn is_mine(&self, task: u32) -> bool {
        self.index.is_some() && self.plan.worker_index(task) == self.index
    }

    /// Whether the task is being asked for or carried out here.
    fn has_begun(&self, task: u32) -> bool {
        self.leasing.contains(&task) || self.runs(task)
    }

    fn runs(&self, task: u32) -> bool {
        self.running.contains_key(&task)
            || self.storing.contains_key(&task)
            || self.holds.has(task)
            || self.keeps.has(task)
            || self.ahead.has(task)
    }

    fn hint(&mut self, task: u32) {
        if (task as usize) >= self.graph.len() {
            return;
        }
        if self.leasing.contains(&task) {
            self.told.insert(task);
        } else if self.is_mine(task) && self.mine.contains(&task) {
            self.enqueue(task);
        } else {
            self.may_copy(task);
        }
    }

    fn listen(&self, out: &mut Vec<Action>) {
        let commits = if self.preloads.is_empty() { CommitHints::Drop } else { CommitHints::Pass };
        out.push(Action::Listen { commits });
    }

    /// Does what is due and says when to wake.
    fn pump(&mut self, now_ms: f64, out: &mut Vec<Action>) {
        if self.phase == Phase::Finished {
            return;
        }
        if self.outbox.is_lost(now_ms) {
            self.finish(out);
            return;
        }
        let due: Vec<u32> =
            self.delayed.extract_if(.., |(at, _)| *at <= now_ms).map(|(_, task)| task).collect();
        due.into_iter().for_each(|task| self.enqueue(task));
        if self.phase == Phase::Working {
            self.take_tasks(now_ms, out);
            self.store_given_up(out);
            self.store_kept(now_ms, out);
            self.look_again(now_ms);
            self.heartbeat(now_ms);
            self.prewarms.start_due(now_ms, out);
            self.copy_if_idle(now_ms);
            self.leave_if_idle(now_ms, out);
            self.claim(now_ms);
        }
        self.outbox.flush(now_ms, out);
        if self.phase == Phase::Leaving && self.outbox.is_empty() {
            self.finish(out);
            return;
        }
        let works = self.phase == Phase::Working;
        let heartbeat = works.then_some(self.heartbeat_ms);
        let quiet = works && self.outbox.is_empty();
        let linger =
            self.idle_since_ms.filter(|_| quiet).map(|since| since + self.settings.options.linger_ms);
        let delayed = self.delayed.iter().map(|(at, _)| *at).filter(|_| works);
        let claim = self.claim_ms().filter(|_| works);
        let kept = self.keeps.due_ms().filter(|_| works);
        let (resend, prewarm) = (self.outbox.resend_ms(), self.prewarms.next_ms());
        let wakes = [heartbeat, linger, claim, kept, resend, prewarm, self.next_look_ms()];
        let at_ms = wakes.into_iter().flatten().chain(delayed).fold(f64::INFINITY, f64::min);
        if at_ms.is_finite() {
            out.push(Action::WakeAt { at_ms });
        }
    }

    fn heartbeat(&mut self, now_ms: f64) {
        if now_ms < self.heartbeat_ms {
            return;
        }
        self.heartbeat_ms = now_ms + self.settings.options.heartbeat_ms;
        // A copy has no lease to prolong.
        let begun = self.running.iter().chain(&self.storing);
        let begun = begun.filter(|&(&task, &attempt)| attempt > 0 || self.ahead.has(task));
        let begun = begun.map(|(&task, _)| task);
        let tasks: BTreeSet<u32> = begun.chain(self.holds.tasks()).chain(self.keeps.tasks()).collect();
        let tasks = tasks.into_iter().collect();
        self.outbox.push(Operation::Renew { instance: self.settings.instance.clone(), tasks });
    }
}

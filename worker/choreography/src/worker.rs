//! One invocation of a worker: join, take tasks, run them, commit, mark edges, hand on, leave.
//!
//! A *planned* worker runs every task with its id and waits a little (`linger_ms`) for the next; a *flexible*
//! worker has no id, goes on with the first ready child of what it finished (become), starts workers for the
//! others (invoke) and leaves when nothing is left. Truth is in the store: a hint only makes the machine ask.
//! Commit, edges, the question who is alive and the lease of the next task travel in one request. Source of
//! become/invoke: WUKONG (SoCC'20); here outputs are stored before edges are marked.

mod leave;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foresail_schemas::graph::Graph;
use foresail_schemas::id::WorkerId;
use foresail_schemas::plan::Plan;
use foresail_schemas::run::{
    ChildState, Commit, Failure, Operation, OperationAnswer, OperationResult, RunStatus,
};

use crate::outbox::Outbox;
use crate::plan_view::PlanView;
pub use crate::protocol::WorkerSettings;
use crate::protocol::{Action, Event, Executed};

/// First pause after a failed attempt.
const RETRY_MS_FIRST: f64 = 100.0;
/// Longest pause after a failed attempt.
const RETRY_MS_MAX: f64 = 10_000.0;
/// Time kept free at the end of a worker's life, beside twice the predicted time of the next task.
const LIFE_MARGIN_MS: f64 = 2_000.0;

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
#[derive(Debug)]
pub struct Worker {
    settings: WorkerSettings,
    graph: Arc<Graph>,
    plan: PlanView,
    outbox: Outbox,
    phase: Phase,
    status: RunStatus,
    /// Ready, by rank.
    queue: BTreeSet<(u32, u32)>,
    /// To be queued later: after a failed attempt.
    delayed: Vec<(f64, u32)>,
    leasing: BTreeSet<u32>,
    /// Task to attempt.
    running: BTreeMap<u32, u32>,
    /// Planned for this worker and not known to have a result.
    mine: BTreeSet<u32>,
    /// Children of other planned workers, until it is known whether those live.
    asked: BTreeMap<WorkerId, BTreeSet<u32>>,
    /// Tasks to hand over to a successor because life ends.
    handed_over: Vec<u32>,
    reading_plan: bool,
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
        epoch: u64,
        plan: &Plan,
        first_tasks: &[u32],
    ) -> Self {
        let plan = PlanView::new(epoch, plan);
        let known = first_tasks.iter().filter(|&&task| (task as usize) < graph.len());
        let queue = known.map(|&task| (plan.rank(task), task)).collect();
        let mine = settings.worker.as_ref().map(|w| plan.tasks_of(w).collect()).unwrap_or_default();
        Self {
            settings,
            graph,
            plan,
            outbox: Outbox::default(),
            phase: Phase::Joining,
            status: RunStatus::Running,
            queue,
            delayed: Vec::new(),
            leasing: BTreeSet::new(),
            running: BTreeMap::new(),
            mine,
            asked: BTreeMap::new(),
            handed_over: Vec::new(),
            reading_plan: false,
            idle_since_ms: None,
            heartbeat_ms: 0.0,
        }
    }

    /// Begins: joins and asks for the first task in one request.
    pub fn start(&mut self, now_ms: f64, out: &mut Vec<Action>) {
        let WorkerSettings { instance, worker, config, start, .. } = self.settings.clone();
        let planned = worker.is_some();
        self.outbox.push(Operation::Join { worker, instance, config, start });
        if planned {
            out.push(Action::Listen);
            self.outbox.push(Operation::Open { tasks: self.mine.iter().copied().collect() });
        }
        self.heartbeat_ms = now_ms + self.settings.options.heartbeat_ms;
        self.take_tasks(now_ms);
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
                    self.answered(&operations, answer, out);
                }
            }
            Event::Unanswered { request } => self.outbox.unanswered(request, now_ms),
            Event::Executed { task, attempt, outcome } => self.executed(task, attempt, outcome, now_ms),
            Event::Hint { ready } => ready.into_iter().for_each(|task| self.hint(task)),
            Event::RunEnded { status } => self.end(status, out),
            Event::PlanRead { epoch, plan } => self.plan_read(epoch, &plan),
            Event::UsageRead { usage } => self.leave(usage),
            Event::Tick => {}
        }
        self.pump(now_ms, out);
    }

    fn is_mine(&self, task: u32) -> bool {
        self.settings.worker.is_some() && self.plan.worker(task) == self.settings.worker.as_ref()
    }

    fn enqueue(&mut self, task: u32) {
        if !self.leasing.contains(&task) && !self.running.contains_key(&task) {
            self.queue.insert((self.plan.rank(task), task));
        }
    }

    fn hint(&mut self, task: u32) {
        if (task as usize) < self.graph.len() && self.is_mine(task) && self.mine.contains(&task) {
            self.enqueue(task);
        }
    }

    fn free_lanes(&self) -> usize {
        (self.settings.lanes as usize).saturating_sub(self.running.len() + self.leasing.len())
    }

    /// Asks for leases as long as lanes are free; what does not fit into the rest of life goes to a
    /// successor.
    fn take_tasks(&mut self, now_ms: f64) {
        if self.reading_plan {
            return;
        }
        while self.free_lanes() > 0 {
            let Some((_, task)) = self.queue.pop_first() else { return };
            let fresh = self.running.is_empty() && self.phase == Phase::Joining;
            if !fresh && !self.fits_into_life(task, now_ms) {
                self.handed_over.push(task);
                continue;
            }
            self.lease(task);
        }
    }

    fn fits_into_life(&self, task: u32, now_ms: f64) -> bool {
        now_ms + 2.0 * self.plan.exec_ms(task) + LIFE_MARGIN_MS <= self.settings.life_ends_ms
    }

    fn lease(&mut self, task: u32) {
        let (instance, epoch) = (self.settings.instance.clone(), self.plan.epoch);
        self.leasing.insert(task);
        self.outbox.push(Operation::Lease { task, instance, epoch });
    }

    fn executed(&mut self, task: u32, attempt: u32, outcome: Result<Executed, Failure>, now_ms: f64) {
        if self.running.get(&task) != Some(&attempt) {
            return;
        }
        self.running.remove(&task);
        let instance = self.settings.instance.clone();
        match outcome {
            Ok(Executed { outputs, measured }) => {
                let commit = Commit { attempt, instance, outputs, measured };
                self.outbox.push(Operation::Commit { task, commit });
                self.mine.remove(&task);
                self.propagate(task);
                self.take_tasks(now_ms);
                self.lease_a_child(task, now_ms);
            }
            Err(failure) => {
                self.outbox.push(Operation::Fail { task, attempt, instance, failure });
                let pause_ms = (RETRY_MS_FIRST * f64::from(1_u32 << (attempt - 1).min(16))).min(RETRY_MS_MAX);
                self.delayed.push((now_ms + pause_ms, task));
            }
        }
    }

    /// Marks the out-edges of a committed task and asks who lives among the owners of its children.
    fn propagate(&mut self, parent: u32) {
        let children = self.graph.children(parent).to_vec();
        for &task in &children {
            self.outbox.push(Operation::Arrive { task, parent });
        }
        let others: BTreeSet<&WorkerId> =
            children.iter().filter(|&&c| !self.is_mine(c)).filter_map(|&c| self.plan.worker(c)).collect();
        for worker in others.into_iter().cloned() {
            self.outbox.push(Operation::WhoIs { worker });
        }
        self.outbox.push(Operation::Propagated { task: parent });
    }

    /// In the same request as the commit: the lease of the child that this worker would run if it is ready.
    fn lease_a_child(&mut self, parent: u32, now_ms: f64) {
        if self.free_lanes() == 0 || self.reading_plan {
            return;
        }
        let mine = |&&c: &&u32| self.is_mine(c);
        let become_it = |&&c: &&u32| self.plan.worker(c).is_none() && self.same_config(c);
        let children = self.graph.children(parent);
        let planned = children.iter().filter(mine).min_by_key(|&&c| self.plan.rank(c));
        if let Some(&child) = planned.or_else(|| children.iter().find(become_it))
            && !self.leasing.contains(&child)
            && !self.running.contains_key(&child)
            && self.fits_into_life(child, now_ms)
        {
            self.lease(child);
        }
    }

    fn same_config(&self, task: u32) -> bool {
        self.plan.config(task).key() == self.settings.config.key()
    }

    fn answered(&mut self, operations: &[Operation], answer: OperationAnswer, out: &mut Vec<Action>) {
        let OperationAnswer { status, plan_epoch, results } = answer;
        let mut arrived = Vec::new();
        let mut owners = Vec::new();
        for (operation, result) in operations.iter().zip(results) {
            match operation {
                Operation::Join { .. } => self.joined(&result, out),
                Operation::Lease { task, .. } => self.leased(*task, result, out),
                Operation::Commit { task, commit } => {
                    if matches!(result, OperationResult::Committed { .. } | OperationResult::RunOver) {
                        out.push(Action::Discard { task: *task, attempt: commit.attempt });
                    }
                }
                Operation::Arrive { task, .. } => arrived.push((*task, result)),
                Operation::WhoIs { worker } => owners.push((worker, result)),
                Operation::Open { .. } => self.open_known(result),
                Operation::Frontier { .. } => self.frontier(result, out),
                Operation::Leave { .. } => self.left(result, out),
                _ => {}
            }
        }
        // Children after leases: whether this worker has a lane left for one is known only then.
        for (task, result) in arrived {
            if result == (OperationResult::Marked { child: ChildState::Ready }) {
                self.dispatch(task, out);
            }
        }
        for (worker, result) in owners {
            self.owner_known(worker, &result, out);
        }
        let unknown: Vec<WorkerId> = self.asked.keys().cloned().collect();
        unknown.into_iter().for_each(|worker| self.outbox.push(Operation::WhoIs { worker }));
        if status != RunStatus::Running {
            self.end(status, out);
        } else if plan_epoch > self.plan.epoch {
            self.read_plan(out);
        }
    }

    fn joined(&mut self, result: &OperationResult, out: &mut Vec<Action>) {
        match result {
            OperationResult::Joined => self.phase = Phase::Working,
            _ => self.finish(out),
        }
    }

    fn leased(&mut self, task: u32, result: OperationResult, out: &mut Vec<Action>) {
        self.leasing.remove(&task);
        match result {
            // A lease granted at the very end of the run is given back by leaving.
            OperationResult::Granted { attempt, parents } if self.status == RunStatus::Running => {
                self.running.insert(task, attempt);
                out.push(Action::Execute { task, attempt, parents });
            }
            OperationResult::Committed { .. } => {
                // Somebody ran it; whether they lived to tell its children is not known, and telling twice is
                // harmless.
                self.mine.remove(&task);
                self.propagate(task);
            }
            OperationResult::StaleEpoch => {
                self.enqueue(task);
                self.read_plan(out);
            }
            _ => {}
        }
    }

    /// A child is ready and nobody has it. Who is leaving takes nothing more, not even its own.
    fn dispatch(&mut self, task: u32, out: &mut Vec<Action>) {
        if self.leasing.contains(&task) || self.running.contains_key(&task) {
            return;
        }
        let stays = self.phase == Phase::Working;
        let has_lane = stays && self.free_lanes() > self.queue.len();
        match self.plan.worker(task).cloned() {
            Some(_) if stays && self.is_mine(task) => self.enqueue(task),
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
            ready.into_iter().for_each(|task| self.hint(task));
        }
    }

    fn frontier(&mut self, result: OperationResult, out: &mut Vec<Action>) {
        let OperationResult::Frontier { ready, unpropagated } = result else { return };
        // The look at the end: what is stuck elsewhere. Its own ready tasks make the store refuse its leave.
        let others: Vec<u32> = ready.into_iter().filter(|&task| !self.is_mine(task)).collect();
        others.into_iter().for_each(|task| self.dispatch(task, out));
        unpropagated.into_iter().for_each(|task| self.propagate(task));
    }

    fn read_plan(&mut self, out: &mut Vec<Action>) {
        if !self.reading_plan {
            self.reading_plan = true;
            out.push(Action::ReadPlan);
        }
    }

    fn plan_read(&mut self, epoch: u64, plan: &Plan) {
        self.reading_plan = false;
        if epoch <= self.plan.epoch {
            return;
        }
        self.plan = PlanView::new(epoch, plan);
        let queued: Vec<u32> = std::mem::take(&mut self.queue).into_iter().map(|(_, task)| task).collect();
        if let Some(worker) = &self.settings.worker {
            self.mine = self.plan.tasks_of(worker).collect();
        }
        for task in queued {
            match self.plan.worker(task).cloned() {
                Some(worker) if !self.is_mine(task) => {
                    self.outbox.push(Operation::WhoIs { worker: worker.clone() });
                    self.asked.entry(worker).or_default().insert(task);
                }
                _ => self.enqueue(task),
            }
        }
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
            self.take_tasks(now_ms);
            self.heartbeat(now_ms);
            self.leave_if_idle(now_ms, out);
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
        let wakes = [heartbeat, linger, self.outbox.resend_ms()];
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
        let tasks = self.running.keys().copied().collect();
        self.outbox.push(Operation::Renew { instance: self.settings.instance.clone(), tasks });
    }
}

//! The watchdog of a run: finds what is stuck and starts it again.
//!
//! The client runs it while it waits. Stuck is a ready task that nobody has had for a while (its worker died,
//! a notification or an invocation was lost). The repair is idempotent, so that a false alarm costs an
//! invocation and harms nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foresail_schemas::id::WorkerId;
use foresail_schemas::run::{LargerTask, Operation, OperationAnswer, OperationResult, RunOptions, RunStatus};

use crate::outbox::Outbox;
use crate::plan_view::PlanView;
use crate::protocol::{Action, Event, Invoke};

/// Most stuck tasks repaired in one look.
pub const RESCUES_PER_LOOK_MAX: u32 = 256;

/// The machine.
#[derive(Debug, Clone)]
pub struct Watchdog {
    plan: Arc<PlanView>,
    options: RunOptions,
    outbox: Outbox,
    /// Tasks whose planned worker is being looked up.
    asked: BTreeMap<WorkerId, BTreeSet<u32>>,
    /// When a task was started again, so that a slow start is not taken for a lost one.
    rescued_ms: BTreeMap<u32, f64>,
    look_ms: f64,
    over: bool,
}

impl Watchdog {
    /// A watchdog for a run under `plan`.
    #[must_use]
    pub fn new(plan: Arc<PlanView>, options: RunOptions) -> Self {
        Self {
            plan,
            options,
            outbox: Outbox::default(),
            asked: BTreeMap::new(),
            rescued_ms: BTreeMap::new(),
            look_ms: 0.0,
            over: false,
        }
    }

    /// Begins to watch.
    pub fn start(&mut self, now_ms: f64, out: &mut Vec<Action>) {
        self.look_ms = now_ms + self.options.watch_ms;
        self.pump(now_ms, out);
    }

    /// Takes an event and says what to do.
    pub fn handle(&mut self, event: Event, now_ms: f64, out: &mut Vec<Action>) {
        if self.over {
            return;
        }
        match event {
            Event::Answered { request, answer } => {
                if let Some(operations) = self.outbox.answered(request) {
                    self.answered(&operations, answer, now_ms, out);
                }
            }
            Event::Unanswered { request } => self.outbox.unanswered(request, now_ms),
            Event::PlanRead { epoch, plan } => self.plan = Arc::new(PlanView::new(epoch, &plan)),
            Event::RunEnded { .. } => self.over = true,
            Event::Tick
            | Event::Retire
            | Event::Hint { .. }
            | Event::Computed { .. }
            | Event::Held { .. }
            | Event::Executed { .. }
            | Event::UsageRead { .. } => {}
        }
        self.pump(now_ms, out);
    }

    fn pump(&mut self, now_ms: f64, out: &mut Vec<Action>) {
        if self.over {
            out.push(Action::Finished);
            return;
        }
        if now_ms >= self.look_ms && self.outbox.is_empty() {
            self.look_ms = now_ms + self.options.watch_ms;
            self.asked.clear();
            let idle_ms_min = self.options.watch_ms;
            self.outbox.push(Operation::Frontier { idle_ms_min, limit: RESCUES_PER_LOOK_MAX });
        }
        self.outbox.flush(now_ms, out);
        // While a request is outstanding its answer wakes the machine, and that always comes: the host has a
        // time-out.
        if let Some(at_ms) = self.outbox.resend_ms() {
            out.push(Action::WakeAt { at_ms });
        } else if self.outbox.is_empty() {
            out.push(Action::WakeAt { at_ms: self.look_ms });
        }
    }

    fn answered(
        &mut self,
        operations: &[Operation],
        answer: OperationAnswer,
        now_ms: f64,
        out: &mut Vec<Action>,
    ) {
        if answer.status != RunStatus::Running {
            self.over = true;
            return;
        }
        if answer.plan_epoch > self.plan.epoch() {
            out.push(Action::ReadPlan);
            return;
        }
        for (operation, result) in operations.iter().zip(answer.results) {
            match (operation, result) {
                (_, OperationResult::Frontier { ready, larger, .. }) => {
                    larger.iter().for_each(|larger| self.rescue_on_larger(*larger, now_ms, out));
                    let of_plan = ready.into_iter().filter(|task| larger.iter().all(|l| l.task != *task));
                    of_plan.for_each(|task| self.rescue(task, now_ms, out));
                }
                (Operation::WhoIs { worker }, OperationResult::Instance { instance }) => {
                    let tasks = self.asked.remove(worker).unwrap_or_default();
                    if instance.is_none() {
                        self.invoke(Some(worker.clone()), tasks.into_iter().collect(), now_ms, out);
                    }
                }
                _ => {}
            }
        }
    }

    fn was_rescued_lately(&self, task: u32, now_ms: f64) -> bool {
        self.rescued_ms.get(&task).is_some_and(|at_ms| now_ms - at_ms < self.options.lease_ms)
    }

    /// A task that ran out of memory runs on a flexible worker, whatever the plan says.
    fn rescue_on_larger(&mut self, larger: LargerTask, now_ms: f64, out: &mut Vec<Action>) {
        let LargerTask { task, config } = larger;
        if !self.was_rescued_lately(task, now_ms) {
            self.rescued_ms.insert(task, now_ms);
            out.push(Action::Invoke(Invoke { worker: None, config, tasks: vec![task] }));
        }
    }

    fn rescue(&mut self, task: u32, now_ms: f64, out: &mut Vec<Action>) {
        if self.was_rescued_lately(task, now_ms) {
            return;
        }
        match self.plan.worker(task).cloned() {
            None => self.invoke(None, vec![task], now_ms, out),
            Some(worker) => {
                let tasks = self.asked.entry(worker.clone()).or_default();
                if tasks.is_empty() {
                    self.outbox.push(Operation::WhoIs { worker });
                }
                tasks.insert(task);
            }
        }
    }

    fn invoke(&mut self, worker: Option<WorkerId>, tasks: Vec<u32>, now_ms: f64, out: &mut Vec<Action>) {
        self.rescued_ms.extend(tasks.iter().map(|&task| (task, now_ms)));
        out.extend(self.plan.invoke(worker, tasks).map(Action::Invoke));
    }
}

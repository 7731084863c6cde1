//! Watching over a run: carries out what the watchdog machine asks for, for whoever watches.
//!
//! The client that waits for a run does it from the run's first moment on, and the local host for runs whose
//! client is gone. Watching ends with the run, or when the store refuses for good to tell of it. Times in ms
//! since it began.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foresail_choreography::{Action, Event, Invoke, PlanView, Watchdog};
use foresail_schemas::run::{CurrentPlan, Operation, OperationAnswer, RunOptions};

/// Longest sleep between two looks, should the machine name no time.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Why a question was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// It may be answered later.
    ForNow,
    /// It never will be: there is no such run, or the token is wrong.
    ForGood,
}

/// How a watchdog reaches the run.
pub trait Watched: Sync {
    /// Asks the store of the run.
    fn operate(
        &self,
        operations: Vec<Operation>,
    ) -> impl Future<Output = Result<OperationAnswer, Silence>> + Send;

    /// The plan in force; nothing where it cannot be read for the moment.
    fn plan(&self) -> impl Future<Output = Option<CurrentPlan>> + Send;

    /// Asks for a worker. What fails is asked for again at a later look.
    fn invoke(&self, invoke: Invoke) -> impl Future<Output = ()> + Send;
}

/// Watches over a run until it has ended. A store that does not answer is not given up: once restarted it is
/// found again.
pub async fn watch_over(run: &impl Watched, view: Arc<PlanView>, options: RunOptions) {
    let mut machine = Watchdog::new(view, options);
    let mut shell = Shell { run, began: Instant::now(), wake: None, events: VecDeque::new() };
    let mut actions = Vec::new();
    machine.start(shell.now_ms(), &mut actions);
    loop {
        shell.wake = None;
        for action in actions.drain(..) {
            if shell.perform(action).await.is_break() {
                return;
            }
        }
        let event = match shell.events.pop_front() {
            Some(event) => event,
            None => {
                shell.sleep().await;
                Event::Tick
            }
        };
        machine.handle(event, shell.now_ms(), &mut actions);
    }
}

/// The I/O of the machine.
struct Shell<'a, W> {
    run: &'a W,
    began: Instant,
    wake: Option<f64>,
    events: VecDeque<Event>,
}

impl<W: Watched> Shell<'_, W> {
    fn now_ms(&self) -> f64 {
        self.began.elapsed().as_secs_f64() * 1000.0
    }

    async fn sleep(&self) {
        let longest_ms = SLEEP_MAX.as_secs_f64() * 1000.0;
        let left_ms = self.wake.map_or(longest_ms, |at_ms| (at_ms - self.now_ms()).clamp(0.0, longest_ms));
        tokio::time::sleep(Duration::from_secs_f64(left_ms / 1000.0)).await;
    }

    /// Carries out an action; breaks at the end, and where no later action can succeed either.
    async fn perform(&mut self, action: Action) -> ControlFlow<()> {
        match action {
            Action::Operate { request, operations } => {
                self.events.push_back(match self.run.operate(operations.to_vec()).await {
                    Ok(answer) => Event::Answered { request, answer },
                    Err(Silence::ForNow) => Event::Unanswered { request },
                    Err(Silence::ForGood) => return ControlFlow::Break(()),
                });
            }
            Action::ReadPlan => {
                if let Some(CurrentPlan { epoch, plan, .. }) = self.run.plan().await {
                    self.events.push_back(Event::PlanRead { epoch, plan: Box::new(plan) });
                }
            }
            Action::Invoke(invoke) => self.run.invoke(invoke).await,
            Action::WakeAt { at_ms } => self.wake = Some(at_ms),
            Action::Finished => return ControlFlow::Break(()),
            // A watchdog runs no tasks and holds no subscription.
            Action::Execute { .. }
            | Action::Store { .. }
            | Action::PreLoad { .. }
            | Action::PreWarm { .. }
            | Action::Abort { .. }
            | Action::Discard { .. }
            | Action::Listen { .. }
            | Action::ReadUsage => {}
        }
        ControlFlow::Continue(())
    }
}

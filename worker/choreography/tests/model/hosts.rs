//! What a step does: the store, the platform and the hosts of the machines.

use std::collections::BTreeMap;
use std::sync::Arc;

use foresail_choreography::{
    Action, Event, Executed, Invoke, Ledger, PlanView, Watchdog, Worker, WorkerSettings, first_invocations,
};
use foresail_schemas::id::InstanceId;
use foresail_schemas::metric::StartState;
use foresail_schemas::run::{
    Change, Location, Measured, Operation, OperationAnswer, RunOptions, RunStatus, StoredObject, WorkerUsage,
};

use super::steps::Step;
use super::store::Store;
use super::{Body, Machine, Mail, Model, Scenario, State, WorkKind, seal};

/// The client's watchdog.
const WATCHDOG: u32 = 0;
/// No worker ends because its life does.
const LIFE_MS: f64 = 1e9;

impl Model {
    pub(super) fn of(scenario: &Scenario) -> Self {
        let view = |at: usize| Arc::new(PlanView::new(at as u64 + 1, &scenario.plans[at]));
        // Attempts are limited elsewhere; here no run is to fail. Heartbeats of those who do nothing else
        // would multiply the states without bringing another.
        let options = RunOptions {
            lease_ms: 10_000.0,
            heartbeat_ms: 6_000.0,
            watch_ms: 5_000.0,
            attempts_max: 50,
            overlap_uploads: false,
            ..RunOptions::default()
        };
        Self {
            graph: Arc::clone(scenario.workflow.graph()),
            plans: scenario.plans.clone(),
            views: [view(0), view(1)],
            options,
            decisions: scenario.decisions.clone(),
            mutant: scenario.mutant,
        }
    }

    pub(super) fn first(&self, scenario: &Scenario) -> Result<State, String> {
        let mut ledger = Ledger::new(&scenario.workflow, self.options);
        let _sources = ledger.begin(0.0);
        let mut watchdog = Watchdog::new(Arc::clone(&self.views[0]), self.options);
        let mut out = Vec::new();
        watchdog.start(0.0, &mut out);
        let body = Body {
            machine: Machine::Watchdog(Box::new(watchdog)),
            instance: None,
            listens: false,
            wake_ms: None,
        };
        let starts = first_invocations(&self.graph, &self.views[0]).into_iter();
        let mut state = State {
            now_ms: 0.0,
            faults: scenario.faults,
            store: seal(Store::new(ledger)),
            machines: BTreeMap::new(),
            mail: starts.map(|invoke| seal(Mail::Start { invoke })).collect(),
            started: 0,
        };
        self.act(&mut state, WATCHDOG, body, out)?;
        Ok(state)
    }

    /// The state after a step, or what it broke.
    pub(super) fn take(&self, state: &State, step: Step) -> Result<State, String> {
        let mut next = state.clone();
        match step {
            Step::Deliver(at) => {
                let mail = next.mail.swap_remove(at).value.clone();
                self.deliver(&mut next, mail)?;
            }
            Step::Lose(at) => {
                let mail = next.mail.swap_remove(at).value.clone();
                match mail {
                    Mail::Tell { .. } => next.faults.deafen -= 1,
                    Mail::Request { machine, request, .. } => {
                        next.faults.lose -= 1;
                        unanswered(&mut next, machine, request);
                    }
                    _ => next.faults.lose -= 1,
                }
            }
            Step::LoseAnswer(at) => {
                next.faults.lose -= 1;
                if let Mail::Request { machine, request, operations, .. } =
                    next.mail.swap_remove(at).value.clone()
                {
                    self.decide(&mut next, &operations)?;
                    unanswered(&mut next, machine, request);
                }
            }
            Step::Double(at) => {
                next.faults.double -= 1;
                let mail = next.mail.swap_remove(at).value.clone();
                let again = match mail.clone() {
                    Mail::Request { machine, request, operations, .. } => {
                        Mail::Request { machine, request, operations, is_second: true }
                    }
                    other => other,
                };
                next.mail.push(seal(again));
                self.deliver(&mut next, mail)?;
            }
            Step::Tick(id) => self.tell(&mut next, id, Event::Tick)?,
            Step::Crash(id) => {
                next.faults.crash -= 1;
                remove(&mut next, id);
            }
            Step::Late => {
                next.faults.late -= 1;
                next.now_ms += 2.0 * (self.options.lease_ms + self.options.watch_ms);
            }
            Step::Replan => {
                next.faults.replan -= 1;
                let mut store = next.store.value.clone();
                let epoch = store.ledger.plan_epoch();
                if epoch < self.plans.len() as u64 {
                    let _replaced = store.ledger.replan(epoch, None, next.now_ms);
                }
                next.store = seal(store);
            }
            Step::Wait => {
                let wakes = next.machines.values().filter_map(|body| body.value.wake_ms);
                let at_ms = wakes.fold(f64::INFINITY, f64::min);
                if at_ms.is_infinite() {
                    return Err(format!("nothing happens any more, the run is {:?}", next.status()));
                }
                next.now_ms = at_ms;
            }
        }
        let is_fault = !matches!(step, Step::Deliver(_) | Step::Tick(_) | Step::Wait);
        next.faults.total -= u8::from(is_fault);
        Ok(next)
    }

    fn view(&self, epoch: u64) -> &Arc<PlanView> {
        &self.views[epoch as usize - 1]
    }

    fn deliver(&self, state: &mut State, mail: Mail) -> Result<(), String> {
        match mail {
            Mail::Start { invoke } => self.start(state, invoke),
            Mail::Request { machine, request, operations, is_second } => {
                let answer = self.decide(state, &operations)?;
                if !is_second && state.machines.contains_key(&machine) {
                    let event = Event::Answered { request, answer };
                    state.mail.push(seal(Mail::Tell { machine, event }));
                }
                Ok(())
            }
            Mail::Tell { machine, event } => self.tell(state, machine, event),
            Mail::Plan { machine } => {
                let epoch = state.store.value.ledger.plan_epoch();
                let plan = Box::new(self.plans[epoch as usize - 1].clone());
                self.tell(state, machine, Event::PlanRead { epoch, plan })
            }
            Mail::Work { machine, task, attempt, kind } => {
                let location = match kind {
                    WorkKind::ToStore => Location::Inline(String::new()),
                    WorkKind::ToMemory => Location::Unstored(String::new()),
                };
                let object = StoredObject { bytes: 10, hash: String::new(), location };
                let outputs = vec![object; self.graph.writes(task).len()];
                let decides = self.graph.decides(task).then(|| &self.decisions[machine as usize % 2]);
                let executed = Executed {
                    outputs,
                    measured: Measured::default(),
                    decision: decides.cloned(),
                    printed: None,
                };
                let event = match kind {
                    WorkKind::ToStore => Event::Executed { task, attempt, outcome: Ok(executed) },
                    WorkKind::ToMemory => Event::Held { task, attempt, executed },
                };
                self.tell(state, machine, event)
            }
        }
    }

    fn start(&self, state: &mut State, invoke: Invoke) -> Result<(), String> {
        state.started += 1;
        let id = state.started;
        let instance = InstanceId::new(format!("i{id}")).map_err(|error| error.to_string())?;
        let settings = WorkerSettings {
            instance: instance.clone(),
            worker: invoke.worker,
            config: invoke.config,
            start: StartState::Cold,
            options: self.options,
            lanes: 1,
            backlog_ms: 0.0,
            keep_bytes_min: Some(1),
            life_ends_ms: LIFE_MS,
        };
        let view = Arc::clone(self.view(state.store.value.ledger.plan_epoch()));
        let mut worker = Worker::new(settings, Arc::clone(&self.graph), view, &invoke.tasks);
        let mut out = Vec::new();
        worker.start(state.now_ms, &mut out);
        let machine = Machine::Worker(Box::new(worker));
        self.act(state, id, Body { machine, instance: Some(instance), listens: false, wake_ms: None }, out)
    }

    /// The store decides; hints go to whoever listens.
    fn decide(&self, state: &mut State, operations: &[Operation]) -> Result<OperationAnswer, String> {
        let mut store = state.store.value.clone();
        let mut results = Vec::new();
        for operation in operations {
            let (result, events) =
                store.apply(&self.graph, &self.options, operation, state.now_ms, self.mutant)?;
            results.push(result);
            for event in events {
                let (ready, skipped) = match event.change {
                    Change::TaskReady { task } => (vec![task], Vec::new()),
                    Change::TasksSkipped { tasks, .. } => (Vec::new(), tasks),
                    _ => continue,
                };
                {
                    let listeners: Vec<u32> =
                        state.machines.iter().filter(|(_, b)| b.value.listens).map(|(&id, _)| id).collect();
                    for machine in listeners {
                        let (ready, skipped) = (ready.clone(), skipped.clone());
                        let event = Event::Hint { ready, committed: Vec::new(), skipped };
                        state.mail.push(seal(Mail::Tell { machine, event }));
                    }
                }
            }
        }
        let (status, plan_epoch) = (store.ledger.status(), store.ledger.plan_epoch());
        state.store = seal(store);
        Ok(OperationAnswer { status, plan_epoch, results })
    }

    fn tell(&self, state: &mut State, id: u32, event: Event) -> Result<(), String> {
        let Some(body) = state.machines.get(&id) else { return Ok(()) };
        let mut body = body.value.clone();
        let mut out = Vec::new();
        // Whoever waits for a timer asks for it again each time.
        body.wake_ms = None;
        match &mut body.machine {
            Machine::Worker(worker) => worker.handle(event, state.now_ms, &mut out),
            Machine::Watchdog(watchdog) => watchdog.handle(event, state.now_ms, &mut out),
        }
        self.act(state, id, body, out)
    }

    fn act(&self, state: &mut State, id: u32, mut body: Body, actions: Vec<Action>) -> Result<(), String> {
        let mut asks_for_usage = false;
        for action in actions {
            match action {
                Action::Operate { request, operations } => {
                    let mail = Mail::Request { machine: id, request, operations, is_second: false };
                    state.mail.push(seal(mail));
                }
                Action::Execute { task, attempt, parents, hold_bytes_min } => {
                    let instance = body.instance.clone().ok_or("only workers run tasks")?;
                    let mut store = state.store.value.clone();
                    store.begins(&self.graph, &instance, (task, attempt), &parents)?;
                    state.store = seal(store);
                    let kind = hold_bytes_min.map_or(WorkKind::ToStore, |_| WorkKind::ToMemory);
                    state.mail.push(seal(Mail::Work { machine: id, task, attempt, kind }));
                }
                Action::Store { task, attempt } => {
                    let kind = WorkKind::ToStore;
                    state.mail.push(seal(Mail::Work { machine: id, task, attempt, kind }));
                }
                Action::Abort { task: lost } => state.mail.retain(|mail| {
                    !matches!(mail.value, Mail::Work { machine, task, .. } if machine == id && task == lost)
                }),
                Action::Discard { task, attempt } => {
                    let instance = body.instance.clone().ok_or("only workers discard")?;
                    let mut store = state.store.value.clone();
                    store.discards(&instance, task, attempt)?;
                    state.store = seal(store);
                }
                Action::Invoke(invoke) => state.mail.push(seal(Mail::Start { invoke })),
                Action::Listen { .. } => body.listens = true,
                Action::ReadPlan => state.mail.push(seal(Mail::Plan { machine: id })),
                Action::ReadUsage => asks_for_usage = true,
                Action::WakeAt { at_ms } => body.wake_ms = Some(at_ms),
                Action::Finished => {
                    remove(state, id);
                    return Ok(());
                }
                Action::PreLoad { .. } | Action::PreWarm { .. } => {}
            }
        }
        state.machines.insert(id, seal(body));
        match asks_for_usage {
            true => self.tell(state, id, Event::UsageRead { usage: WorkerUsage::default() }),
            false => Ok(()),
        }
    }

    /// What must hold where nothing is under way and nobody lives.
    pub(super) fn check_end(&self, state: &State) -> Result<(), String> {
        let store = &state.store.value;
        let result = |task: u32| store.ledger.commit(task);
        let tasks = 0..self.graph.len() as u32;
        let missing: Vec<u32> =
            tasks.clone().filter(|&task| result(task).is_none() && !store.is_skipped(task)).collect();
        if state.status() != RunStatus::Completed || !missing.is_empty() {
            return Err(format!("the run ends {:?} without results of {missing:?}", state.status()));
        }
        for task in tasks {
            let Some((decider, wanted)) = self.graph.condition(task) else { continue };
            let decided = result(decider).and_then(|commit| commit.decision.as_ref());
            let is_called = decided.is_some_and(|decided| wanted.holds(decided));
            if is_called != result(task).is_some() {
                return Err(format!("task {task} is called for: {is_called}; it has {:?}", result(task)));
            }
        }
        Ok(())
    }
}

fn unanswered(state: &mut State, machine: u32, request: u64) {
    if state.machines.contains_key(&machine) {
        state.mail.push(seal(Mail::Tell { machine, event: Event::Unanswered { request } }));
    }
}

/// The process is gone, and what was to be told to it. What it sent is still under way.
fn remove(state: &mut State, id: u32) {
    state.machines.remove(&id);
    state.mail.retain(|mail| match mail.value {
        Mail::Tell { machine, .. } | Mail::Work { machine, .. } | Mail::Plan { machine } => machine != id,
        Mail::Start { .. } | Mail::Request { .. } => true,
    });
}

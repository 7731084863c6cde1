//! Bills of runs that are made up event by event.

use foresail_schemas::examples;
use foresail_schemas::metric::StartState;
use foresail_schemas::platform::Pool;
use foresail_schemas::run::{Change, Commit, Failure, FailureKind, Measured, WorkerUsage};

use super::*;

/// Two amounts closer than this are the same.
const ROUNDING_USD: f64 = 1e-15;

/// A run of the example: `split`, `count-0`, `count-1` and `merge` on worker `w-1`, `count-1` flexible.
struct Told {
    workflow: Workflow,
    plan: Plan,
    platform: Platform,
    events: Vec<RunEvent>,
}

impl Told {
    fn new() -> Self {
        let platform = Platform::built_in().swap_remove(1);
        let (workflow, plan) = (examples::workflow(), examples::plan());
        Self {
            workflow,
            plan: Plan { platform: platform.name.clone(), ..plan },
            platform,
            events: Vec::new(),
        }
    }

    fn tell(&mut self, at_ms: f64, change: Change) -> &mut Self {
        let seq = self.events.len() as u64 + 1;
        self.events.push(RunEvent { seq, at_ms, change });
        self
    }

    fn joins(&mut self, at_ms: f64, instance: &str, worker: Option<&str>, start: StartState) -> &mut Self {
        let (worker, config) = (worker.map(|worker| worker.parse().unwrap()), self.plan.tasks[0].config);
        self.tell(at_ms, Change::WorkerJoined { worker, instance: instance.parse().unwrap(), config, start })
    }

    fn leaves(&mut self, at_ms: f64, instance: &str, usage: WorkerUsage) -> &mut Self {
        self.tell(at_ms, Change::WorkerLeft { instance: instance.parse().unwrap(), usage })
    }

    fn leases(&mut self, at_ms: f64, instance: &str, task: u32, attempt: u32) -> &mut Self {
        let instance = instance.parse().unwrap();
        let (epoch, expires_ms, assuming) = (1, at_ms + 1e4, Vec::new());
        self.tell(at_ms, Change::TaskLeased { task, attempt, instance, epoch, expires_ms, assuming })
    }

    fn fails(&mut self, at_ms: f64, instance: &str, task: u32) -> &mut Self {
        let message = "no".to_owned();
        let (attempt, kind, exception, lost) = (1, FailureKind::TaskError, None, Vec::new());
        let failure = Failure { task: None, attempt, kind, message, exception, lost };
        let (instance, again_ms, config) = (instance.parse().unwrap(), None, None);
        self.tell(at_ms, Change::TaskFailed { task, attempt, instance, failure, again_ms, config })
    }

    /// Commits a task that ran for so long and moved data for 20 ms, as planned.
    fn commits(&mut self, at_ms: f64, instance: &str, task: u32, exec_ms: f64) -> &mut Self {
        let measured = Measured { download_ms: 15.0, exec_ms, upload_ms: 5.0, ..Measured::default() };
        let instance = instance.parse().unwrap();
        let (attempt, outputs, decision, printed) = (1, Vec::new(), None, None);
        let commit = Commit { attempt, instance, outputs, measured, decision, printed };
        self.tell(at_ms, Change::TaskCommitted { task, commit })
    }

    fn bill(&self) -> Bill {
        let run = RunId::new("r").unwrap();
        let Self { workflow, plan, platform, events } = self;
        let bill = bill(&Account { run: &run, workflow, plan, platform, events, now_ms: 9_000.0 });
        let sum: f64 = bill.causes.iter().map(|cause| cause.usd).sum();
        assert!((sum - bill.difference_usd).abs() < ROUNDING_USD, "the causes add up: {bill:#?}");
        let lines: f64 = bill.lines.iter().map(|line| line.billed.usd).sum();
        assert!((lines - bill.billed_usd).abs() < ROUNDING_USD, "the lines add up: {bill:#?}");
        bill
    }

    /// What a cause adds; 0 where it is not there.
    fn cause(&self, kind: CauseKind) -> f64 {
        self.bill().causes.iter().filter(|cause| cause.kind == kind).map(|cause| cause.usd).sum()
    }

    fn usd_per_ms(&self) -> f64 {
        self.platform.rates().usd_per_ms(&self.plan.tasks[0].config)
    }

    fn kinds(&self) -> Vec<CauseKind> {
        self.bill().causes.iter().map(|cause| cause.kind).collect()
    }
}

/// Exactly what was planned, on the workers that were planned.
fn as_planned() -> Told {
    let mut told = Told::new();
    let mut usage = told.plan.usage[0].usage;
    told.plan.usage[0].usage.puts = 2;
    usage.puts = 2;
    // Two invocations share what was predicted of them in all.
    let half = |ms: f64| ms / 2.0;
    let (billed_ms, init_ms) = (half(usage.billed_ms), half(usage.init_ms));
    let second = WorkerUsage { billed_ms, init_ms, ..WorkerUsage::default() };
    let first = WorkerUsage { billed_ms, init_ms, ..usage };
    told.joins(100.0, "a", Some("w-1"), StartState::Cold).joins(900.0, "b", None, StartState::Cold);
    let exec_ms: Vec<f64> = told.plan.tasks.iter().map(|task| task.exec_ms).collect();
    for (task, instance) in [(0, "a"), (1, "a"), (2, "b"), (3, "a")] {
        told.leases(1_000.0, instance, task, 1).commits(2_000.0, instance, task, exec_ms[task as usize]);
    }
    told.leaves(2_600.0, "a", first).leaves(2_600.0, "b", second);
    told
}

fn near(found: f64, expect: f64) {
    assert!((found - expect).abs() < ROUNDING_USD, "{found} is not {expect}");
}

#[test]
fn a_run_that_goes_as_planned_costs_what_was_predicted() {
    let bill = as_planned().bill();
    near(bill.difference_usd, 0.0);
    assert!(bill.causes.iter().all(|cause| cause.usd.abs() < ROUNDING_USD), "{:#?}", bill.causes);
    assert_eq!((bill.estimated, bill.replanned), (0, 0));
}

#[test]
fn every_line_has_quantity_price_and_both_amounts() {
    let told = as_planned();
    let bill = told.bill();
    let kinds: Vec<LineKind> = bill.lines.iter().map(|line| line.kind).collect();
    use LineKind::{Execution, Gets, Initialisation, Puts, Requests, Transfer};
    assert_eq!(kinds, [Requests, Execution, Initialisation, Puts, Gets, Transfer]);
    let config = told.plan.tasks[0].config;
    let used = told.plan.usage[0].usage;
    for (at, quantity) in [
        (0, 2.0),
        (1, config.gb() * (used.billed_ms - used.init_ms) / 1e3),
        (2, config.gb() * used.init_ms / 1e3),
        (3, 2.0),
        (4, used.gets as f64),
        (5, (used.download_bytes + used.upload_bytes) as f64 / GB_BYTES),
    ] {
        let line = &bill.lines[at];
        assert!((line.billed.quantity - quantity).abs() < 1e-9, "{line:?}");
        near(line.billed.usd, quantity * line.price_usd);
        near(line.difference_usd().unwrap(), 0.0);
    }
}

#[test]
fn code_that_takes_longer_is_a_cause_by_its_name() {
    let mut told = as_planned();
    let exec_ms = told.plan.tasks[1].exec_ms;
    for event in &mut told.events {
        if let Change::TaskCommitted { task: 1, commit } = &mut event.change {
            commit.measured.exec_ms += 100.0;
        }
        if let Change::WorkerLeft { instance, usage } = &mut event.change
            && instance.as_str() == "a"
        {
            usage.billed_ms += 100.0;
        }
    }
    let usd = 100.0 * told.usd_per_ms();
    near(told.bill().difference_usd, usd);
    near(told.cause(CauseKind::Execution), usd);
    let largest = &told.bill().causes[0];
    assert_eq!((largest.kind, largest.task.as_deref()), (CauseKind::Execution, Some("count")));
    assert!(largest.what.contains("100 ms more"), "{exec_ms}: {}", largest.what);
}

#[test]
fn an_attempt_that_fails_is_paid_for_and_said() {
    let mut told = as_planned();
    let at = told.events.len() - 2;
    let mut tail = told.events.split_off(at);
    told.leases(2_100.0, "b", 2, 1).fails(2_350.0, "b", 2);
    for event in &mut tail {
        if let Change::WorkerLeft { instance, usage } = &mut event.change
            && instance.as_str() == "b"
        {
            usage.billed_ms += 250.0;
        }
    }
    told.events.extend(tail);
    near(told.cause(CauseKind::InVain), 250.0 * told.usd_per_ms());
    near(told.bill().difference_usd, 250.0 * told.usd_per_ms());
}

#[test]
fn transfers_beside_tasks_cost_nothing_and_no_waiting_is_negative() {
    let mut told = as_planned();
    for event in &mut told.events {
        if let Change::TaskCommitted { commit, .. } = &mut event.change {
            // Far more than the workers lived.
            commit.measured.upload_ms += 10_000.0;
        }
    }
    near(told.bill().difference_usd, 0.0);
    let cause = |kind| told.bill().causes.into_iter().find(|cause| cause.kind == kind);
    let waiting = cause(CauseKind::Waiting).unwrap();
    assert!(waiting.what.contains("cost $0.00 instead of"), "{}", waiting.what);
    near(told.cause(CauseKind::Moving) + waiting.usd, 0.0);
}

#[test]
fn another_invocation_of_a_planned_worker_and_one_of_a_later_plan_are_told_apart() {
    let usage = WorkerUsage { billed_ms: 40.0, init_ms: 0.0, ..WorkerUsage::default() };
    for (worker, kind) in [("w-1", CauseKind::StartedAgain), ("w-9", CauseKind::Replanned)] {
        let mut told = as_planned();
        told.joins(2_500.0, "c", Some(worker), StartState::Warm).leaves(2_600.0, "c", usage);
        let usd = told.platform.prices.request_usd + 40.0 * told.usd_per_ms();
        near(told.cause(kind), usd);
        near(told.bill().difference_usd, usd);
    }
}

#[test]
fn a_cold_start_more_costs_what_one_was_predicted_to() {
    let mut told = as_planned();
    let one_ms = told.plan.usage[0].usage.init_ms / 2.0;
    let usage = WorkerUsage { billed_ms: one_ms + 30.0, init_ms: one_ms + 30.0, ..WorkerUsage::default() };
    told.joins(2_500.0, "c", None, StartState::Cold).leaves(2_600.0, "c", usage);
    near(told.cause(CauseKind::ColdStarts), one_ms * told.usd_per_ms());
    near(told.cause(CauseKind::Initialisation), 30.0 * told.usd_per_ms());
    near(told.cause(CauseKind::OtherRequests), told.platform.prices.request_usd);
}

#[test]
fn objects_and_bytes_beyond_the_plan_are_causes_of_their_own() {
    let mut told = as_planned();
    told.platform.prices.transfer_gb_usd = 0.02;
    for event in &mut told.events {
        if let Change::WorkerLeft { instance, usage } = &mut event.change
            && instance.as_str() == "b"
        {
            (usage.puts, usage.gets, usage.upload_bytes) = (3, 1, 1 << 30);
        }
    }
    near(told.cause(CauseKind::Puts), 3.0 * told.platform.prices.put_usd);
    near(told.cause(CauseKind::Gets), told.platform.prices.get_usd);
    near(told.cause(CauseKind::Transfer), 0.02);
}

#[test]
fn what_did_not_run_saves_its_prediction() {
    let mut told = as_planned();
    let of_last = |event: &RunEvent| matches!(event.change, Change::TaskCommitted { task: 3, .. });
    told.events.retain(|event| !of_last(event));
    told.tell(2_700.0, Change::TasksSkipped { by: 0, tasks: vec![3] });
    let last = &told.plan.tasks[3];
    near(told.cause(CauseKind::NotRun), -told.usd_per_ms() * (last.end_ms - last.start_ms));
    // The workers lived as long all the same.
    near(told.bill().difference_usd, 0.0);
    assert!(told.kinds().contains(&CauseKind::Waiting));
}

#[test]
fn a_worker_that_never_reports_is_estimated_and_counted() {
    let mut told = as_planned();
    told.events.pop();
    let bill = told.bill();
    assert_eq!((bill.status, bill.estimated), (RunStatus::Running, 1));
    // It joined after 900 ms, and it is 9 s now.
    let requests = bill.lines[0].billed.quantity;
    assert_eq!(requests, 2.0);
    let lived_ms = 8_100.0 - told.plan.usage[0].usage.billed_ms / 2.0;
    let predicted_init_ms = told.plan.usage[0].usage.init_ms / 2.0;
    assert!(bill.difference_usd > 0.0 && lived_ms > predicted_init_ms);
    near(bill.difference_usd, lived_ms * told.usd_per_ms());
}

#[test]
fn a_plan_that_does_not_say_what_it_costs_has_one_cause() {
    let mut told = as_planned();
    told.plan.usage.clear();
    let bill = told.bill();
    assert_eq!(told.kinds(), [CauseKind::Unitemised]);
    assert!(bill.lines.iter().all(|line| line.predicted.is_none()));
    near(bill.predicted_usd, told.plan.predicted.cost_usd);
}

#[test]
fn workers_of_a_pool_are_billed_by_the_hour_and_make_no_request() {
    let mut told = as_planned();
    let pool = Pool { memory_mb: 32_768, vcpu: 8.0, workers_max: 2, worker_hour_usd: 3.6 };
    told.platform.pool = Some(pool);
    let (instance, config) = ("p".parse().unwrap(), pool.config());
    let (worker, start) = (None, StartState::Warm);
    told.tell(2_000.0, Change::WorkerJoined { worker, instance, config, start });
    told.leaves(2_600.0, "p", WorkerUsage { billed_ms: 3_600.0, ..WorkerUsage::default() });
    let bill = told.bill();
    let line = bill.lines.iter().find(|line| line.kind == LineKind::Pool).unwrap();
    assert!((line.billed.quantity - 0.001).abs() < 1e-12);
    near(bill.difference_usd, 0.0036);
    assert_eq!(bill.lines[0].billed.quantity, 2.0);
}

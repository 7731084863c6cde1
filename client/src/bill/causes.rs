//! Why a bill is not what was predicted: causes that add up to the difference.
//!
//! The memory of a worker is paid for while it lives. Of that life the time in the code of tasks and in
//! transfers is measured and was predicted task by task, the initialisation and what came to nothing are
//! known; what is left is waiting, round trips and starts. The same is done for plan and run, and the
//! differences of the parts are the causes. Where a task ran on another size than planned, its time is
//! compared at the planned price and the price at the measured time, so that nothing counts twice. Uploads
//! that go on beside the next task cost nothing by themselves: where the parts are more than the whole, that
//! much is taken from what moving data cost.

use std::collections::{BTreeMap, BTreeSet};

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::id::WorkerId;
use foresail_schemas::plan::PlannedTask;
use foresail_schemas::platform::Rates;
use foresail_schemas::run::{ConfigUsage, Measured, WorkerUsage};
use serde::Serialize;

use super::Account;
use super::books::Books;
use crate::units;

/// A cause of a difference between bill and prediction.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cause {
    /// What it is.
    pub kind: CauseKind,
    /// The tasks that it is of, by their name, where it is of some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// What happened, in words.
    pub what: String,
    /// What it adds to the bill; negative where it saved.
    pub usd: f64,
}

/// The kinds of causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CauseKind {
    /// The code of tasks took more or less time than predicted.
    Execution,
    /// Tasks ran on other sizes than planned.
    OtherSize,
    /// Tasks that the plan counted did not run: skipped, taken over from an earlier run, or not reached.
    NotRun,
    /// Bringing inputs and storing outputs took more or less time.
    Moving,
    /// Attempts that came to nothing.
    InVain,
    /// More or fewer new workers than planned had to make themselves ready.
    ColdStarts,
    /// New workers took more or less time to make themselves ready.
    Initialisation,
    /// Planned workers were invoked again: handed over at the end of their life, or started after a loss.
    StartedAgain,
    /// Workers that a later plan added.
    Replanned,
    /// Planned workers that were never invoked.
    NotStarted,
    /// Flexible workers, and those started beforehand, were more or fewer.
    OtherRequests,
    /// Workers waited more or less, for each other and for the run's state.
    Waiting,
    /// More or fewer objects were written.
    Puts,
    /// More or fewer objects were read.
    Gets,
    /// More or fewer bytes moved between workers and the store.
    Transfer,
    /// The plan does not say what its cost consists of.
    Unitemised,
}

/// The whole difference where the plan says only its sum.
pub(super) fn unitemised(usd: f64) -> Vec<Cause> {
    let what = "the plan does not say what its cost consists of".to_owned();
    vec![Cause { kind: CauseKind::Unitemised, task: None, what, usd }]
}

/// The causes, the largest first; those that change nothing are left out.
pub(super) fn causes(account: &Account<'_>, books: &Books) -> Vec<Cause> {
    let Account { plan, platform, .. } = *account;
    let rates = platform.rates();
    let mut found = Causes { rates, lanes: f64::from(platform.lanes), all: Vec::new() };
    let (predicted, billed) = (Sums::of(&rates, &plan.usage), Sums::of(&rates, &books.usage()));
    let tasks = found.tasks(account, books);
    let beyond = found.requests(account, books, billed.requests_usd - predicted.requests_usd);
    found.starts(&predicted, &billed);
    let vain_usd = found.in_vain(books);
    let planned = Rest::of(predicted.memory_usd - predicted.init_usd - tasks.planned_usd);
    let ran = Rest::of(billed.memory_usd - billed.init_usd - tasks.ran_usd - vain_usd - beyond);
    let moved = longer(tasks.moving_ms);
    let moving = format!("moving data took {moved}; what went on beside tasks costs nothing");
    found.add(CauseKind::Moving, moving, tasks.moving_usd - ran.beside_usd + planned.beside_usd);
    found.add(
        CauseKind::Waiting,
        format!(
            "starting, waiting for each other and round trips cost {} instead of {}",
            units::small_usd(ran.waiting_usd),
            units::small_usd(planned.waiting_usd)
        ),
        ran.waiting_usd - planned.waiting_usd,
    );
    found.moved(&predicted.used, &billed.used);
    let mut all = found.all;
    all.retain(|cause| cause.usd != 0.0);
    all.sort_by(|a, b| b.usd.abs().total_cmp(&a.usd.abs()));
    all
}

/// What is left of the cost of memory when all that is measured is taken away. Below 0 it is what went on
/// beside something else: uploads, while the next task ran.
struct Rest {
    waiting_usd: f64,
    beside_usd: f64,
}

impl Rest {
    fn of(usd: f64) -> Self {
        Self { waiting_usd: usd.max(0.0), beside_usd: (-usd).max(0.0) }
    }
}

/// Sums over all sizes.
struct Sums {
    used: WorkerUsage,
    cold_starts: u64,
    requests_usd: f64,
    memory_usd: f64,
    init_usd: f64,
}

impl Sums {
    fn of(rates: &Rates, used: &[ConfigUsage]) -> Self {
        let (mut sum, mut cold_starts) = (WorkerUsage::default(), 0);
        let (mut requests_usd, mut memory_usd, mut init_usd) = (0.0, 0.0, 0.0);
        for of_size in used {
            sum.add(&of_size.usage);
            cold_starts += of_size.cold_starts;
            requests_usd += of_size.invocations as f64 * rates.request_usd(&of_size.config);
            memory_usd += rates.usd_per_ms(&of_size.config) * of_size.usage.billed_ms;
            init_usd += init_usd_of(rates, &of_size.config, &of_size.usage);
        }
        Self { used: sum, cold_starts, requests_usd, memory_usd, init_usd }
    }
}

fn init_usd_of(rates: &Rates, config: &ResourceConfig, used: &WorkerUsage) -> f64 {
    rates.usd_per_ms(config) * used.init_ms.min(used.billed_ms)
}

/// What tasks were predicted to cost while they ran, and did.
struct OfTasks {
    planned_usd: f64,
    ran_usd: f64,
    /// Of that, what moving data cost more than planned, and took.
    moving_usd: f64,
    moving_ms: f64,
}

/// What all tasks of a name add.
#[derive(Default)]
struct OfName {
    count: u64,
    more_ms: f64,
    execution_usd: f64,
    elsewhere: u64,
    other_size_usd: f64,
}

struct Causes {
    rates: Rates,
    lanes: f64,
    all: Vec<Cause>,
}

impl Causes {
    fn add(&mut self, kind: CauseKind, what: String, usd: f64) {
        self.all.push(Cause { kind, task: None, what, usd });
    }

    /// USD per ms of a task, its share where several run at a time.
    fn share_usd(&self, config: &ResourceConfig) -> f64 {
        self.rates.usd_per_ms(config) / self.lanes
    }

    fn tasks(&mut self, account: &Account<'_>, books: &Books) -> OfTasks {
        let mut names: BTreeMap<&str, OfName> = BTreeMap::new();
        let mut sums = OfTasks { planned_usd: 0.0, ran_usd: 0.0, moving_usd: 0.0, moving_ms: 0.0 };
        let (mut missing_usd, mut skipped, mut missing) = (0.0, 0_u64, 0_u64);
        for ((task, planned), booked) in
            account.workflow.tasks().iter().zip(&account.plan.tasks).zip(&books.tasks)
        {
            let planned_usd = self.share_usd(&planned.config);
            let (exec_ms, move_ms) = planned_ms(planned);
            sums.planned_usd += planned_usd * (exec_ms + move_ms);
            let here = booked
                .ran
                .as_ref()
                .and_then(|(instance, measured)| Some((books.invoked.get(instance)?.config, measured)));
            let Some((config, measured)) = here else {
                missing_usd -= planned_usd * (exec_ms + move_ms);
                skipped += u64::from(booked.is_skipped);
                missing += u64::from(!booked.is_skipped);
                continue;
            };
            let (ran_usd, moved_ms) = (self.share_usd(&config), moved_ms(measured));
            sums.ran_usd += ran_usd * (measured.exec_ms + moved_ms);
            sums.moving_usd += ran_usd * moved_ms - planned_usd * move_ms;
            sums.moving_ms += moved_ms - move_ms;
            let of_name = names.entry(task.name.as_str()).or_default();
            of_name.count += 1;
            of_name.more_ms += measured.exec_ms - exec_ms;
            of_name.execution_usd += planned_usd * (measured.exec_ms - exec_ms);
            of_name.elsewhere += u64::from(config.key() != planned.config.key());
            of_name.other_size_usd += (ran_usd - planned_usd) * measured.exec_ms;
        }
        self.of_names(names);
        let what = format!("{skipped} tasks were skipped, {missing} have no result of this run");
        self.add(CauseKind::NotRun, what, missing_usd);
        sums
    }

    fn of_names(&mut self, names: BTreeMap<&str, OfName>) {
        for (name, of_name) in names {
            let OfName { count, more_ms, execution_usd, elsewhere, other_size_usd } = of_name;
            let task = Some(name.to_owned());
            let what = format!("the code of {count} tasks took {}", longer(more_ms));
            self.all.push(Cause { kind: CauseKind::Execution, task: task.clone(), what, usd: execution_usd });
            let what = format!("{elsewhere} of {count} tasks ran on another size than planned");
            self.all.push(Cause { kind: CauseKind::OtherSize, task, what, usd: other_size_usd });
        }
    }

    /// Accounts for the invocations; gives what those beyond the plan cost beside their tasks.
    fn requests(&mut self, account: &Account<'_>, books: &Books, difference_usd: f64) -> f64 {
        let planned: BTreeSet<&WorkerId> = account.plan.workers.iter().map(|worker| &worker.id).collect();
        let (again, new) = books.beyond(&planned);
        let (mut rests_usd, mut left_usd) = (0.0, difference_usd);
        for (kind, instances, who) in [
            (CauseKind::StartedAgain, again, "planned workers were started again: handed over, or lost"),
            (CauseKind::Replanned, new, "workers were added by later plans"),
        ] {
            let (mut requests_usd, mut rest_usd) = (0.0, 0.0);
            for instance in &instances {
                requests_usd += self.rates.request_usd(&books.invoked[*instance].config);
                rest_usd += self.rest_usd(books, instance);
            }
            left_usd -= requests_usd;
            rests_usd += rest_usd;
            self.add(kind, format!("{} {who}", instances.len()), requests_usd + rest_usd);
        }
        let started: BTreeSet<&WorkerId> =
            books.invoked.values().filter_map(|invoked| invoked.worker.as_ref()).collect();
        let idle: Vec<_> = account.plan.workers.iter().filter(|w| !started.contains(&w.id)).collect();
        let idle_usd = -idle.iter().map(|worker| self.rates.request_usd(&worker.config)).sum::<f64>();
        self.add(
            CauseKind::NotStarted,
            format!("{} planned workers were never started", idle.len()),
            idle_usd,
        );
        let flexible = books.invoked.values().filter(|invoked| invoked.worker.is_none()).count() as u64;
        let expected = account.plan.predicted.invocations.saturating_sub(planned.len() as u64);
        let what = format!("{flexible} invocations of no planned worker instead of {expected}");
        self.add(CauseKind::OtherRequests, what, left_usd - idle_usd);
        rests_usd
    }

    /// What an invocation cost beside its initialisation, its tasks and what came to nothing.
    fn rest_usd(&self, books: &Books, instance: &foresail_schemas::id::InstanceId) -> f64 {
        let invoked = &books.invoked[instance];
        let used = books.used(invoked);
        let of_it = books.tasks.iter().filter_map(|task| task.ran.as_ref());
        let of_it = of_it.filter(|(by, _)| by == instance);
        let tasks_ms: f64 = of_it.map(|(_, measured)| measured.exec_ms + moved_ms(measured)).sum();
        let vain_ms = invoked.vain_ms.min(used.billed_ms);
        self.rates.usd_per_ms(&invoked.config) * used.billed_ms
            - init_usd_of(&self.rates, &invoked.config, &used)
            - self.share_usd(&invoked.config) * (tasks_ms + vain_ms)
    }

    /// Initialisation: how many, and how long.
    fn starts(&mut self, predicted: &Sums, billed: &Sums) {
        let difference_usd = billed.init_usd - predicted.init_usd;
        let more = billed.cold_starts as f64 - predicted.cold_starts as f64;
        // One costs what was predicted; where none was, what it took.
        let one_usd = match (predicted.cold_starts, billed.cold_starts) {
            (0, 0) => 0.0,
            (0, count) => billed.init_usd / count as f64,
            (count, _) => predicted.init_usd / count as f64,
        };
        let (now, before) = (billed.cold_starts, predicted.cold_starts);
        self.add(CauseKind::ColdStarts, format!("{now} cold starts instead of {before}"), more * one_usd);
        let (now, before) = (billed.used.init_ms, predicted.used.init_ms);
        let what = format!("{} of initialisation instead of {}", units::ms(now), units::ms(before));
        self.add(CauseKind::Initialisation, what, difference_usd - more * one_usd);
    }

    fn in_vain(&mut self, books: &Books) -> f64 {
        let of = |invoked: &super::books::Invoked| {
            let vain_ms = invoked.vain_ms.min(books.used(invoked).billed_ms);
            self.share_usd(&invoked.config) * vain_ms
        };
        let usd = books.invoked.values().map(of).sum();
        self.add(CauseKind::InVain, format!("{} attempts came to nothing", books.vain), usd);
        usd
    }

    fn moved(&mut self, predicted: &WorkerUsage, billed: &WorkerUsage) {
        let prices = self.rates.prices;
        let more = |now: u64, before: u64| now as f64 - before as f64;
        let what = format!("{} objects were written instead of {}", billed.puts, predicted.puts);
        self.add(CauseKind::Puts, what, more(billed.puts, predicted.puts) * prices.put_usd);
        let what = format!("{} objects were read instead of {}", billed.gets, predicted.gets);
        self.add(CauseKind::Gets, what, more(billed.gets, predicted.gets) * prices.get_usd);
        let bytes = |used: &WorkerUsage| units::bytes(used.download_bytes + used.upload_bytes);
        let what = format!("{} moved instead of {}", bytes(billed), bytes(predicted));
        let usd = prices.transfer_usd(billed) - prices.transfer_usd(predicted);
        self.add(CauseKind::Transfer, what, usd);
    }
}

/// What a task is predicted to take in its code, and moving data.
fn planned_ms(planned: &PlannedTask) -> (f64, f64) {
    match planned.unexpected {
        true => (0.0, 0.0),
        false => (planned.exec_ms, planned.end_ms - planned.start_ms - planned.exec_ms),
    }
}

fn moved_ms(measured: &Measured) -> f64 {
    measured.download_ms + measured.upload_ms
}

fn longer(more_ms: f64) -> String {
    let word = if more_ms < 0.0 { "less" } else { "more" };
    format!("{} {word} than predicted", units::ms(more_ms.abs()))
}

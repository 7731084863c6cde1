//! Which limits a run meets, by how much, and what to do about each.
//!
//! What a run would ask where nothing makes it wait is held against what there is: over 1, something has to
//! wait, or is refused. Quotas and settings can be raised and are told; what is busy is carried out too.

use foresail_schemas::Platform;
use serde::Serialize;

use super::around::{Documents, INVOCATIONS_AT_ONCE};
use super::meter::{Meter, Usage};
use super::service::{Keeper, Service};

/// Connections of a worker to whoever keeps the state: one asks, one listens.
const CONNECTIONS_PER_WORKER: f64 = 2.0;
/// Share of a worker's processor that folding may take.
const FOLDING_SHARE: f64 = 0.1;

/// On what a number rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Of the platform's table: its documentation.
    Documented,
    /// A default that can be set otherwise.
    Setting,
    /// Of the table of the keeper: measured, or an assumption that it names.
    Measured,
    /// An assumption of the platform's table.
    Assumed,
}

/// A limit, and what is asked of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limit {
    /// Its name.
    pub name: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// The most that would be asked, were there no limits.
    pub demand: f64,
    /// What there is.
    pub capacity: f64,
    /// Demand over capacity: met where it is over 1.
    pub ratio: f64,
    /// On what the capacity rests.
    pub basis: Basis,
    /// What most of it is asked for, where there is more than one cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mostly: Option<&'static str>,
    /// What to do where it is met.
    pub advice: &'static str,
}

/// What limits are judged by.
#[derive(Debug)]
pub struct Judged<'a> {
    /// What was asked where nothing had to wait.
    pub usage: &'a Usage,
    /// The platform as it is.
    pub platform: &'a Platform,
    /// What the keeper can do.
    pub service: &'a Service,
    /// Who it is.
    pub keeper: Keeper,
    /// What each worker reads first.
    pub documents: Documents,
    /// Runs at the same time.
    pub runs: u32,
}

/// All limits, the one that is exceeded most first.
#[must_use]
pub fn limits(judged: &Judged) -> Vec<Limit> {
    let mut all = of_platform(judged);
    all.extend(of_keeper(judged));
    all.extend(of_settings(judged));
    all.sort_by(|a, b| b.ratio.total_cmp(&a.ratio));
    all
}

fn limit(
    (name, unit): (&'static str, &'static str),
    (demand, capacity): (f64, f64),
    basis: Basis,
    advice: &'static str,
) -> Limit {
    Limit { name, unit, demand, capacity, ratio: demand / capacity, basis, mostly: None, advice }
}

fn of_platform(judged: &Judged) -> Vec<Limit> {
    let (usage, documented) = (judged.usage, Basis::Documented);
    let workers = usage.workers_max;
    let quota = f64::from(judged.platform.concurrency_max);
    let mut all = vec![limit(
        ("workers at once", "workers"),
        (workers, quota),
        documented,
        "ask for a higher quota, or plan for fewer workers; what is beyond waits in the platform's queue",
    )];
    let Some(pace) = judged.platform.pace else { return all };
    let seconds = (pace.growth_ms / 1_000.0).round().max(1.0) as usize;
    all.push(limit(
        ("new workers", "workers per period"),
        (usage.cold_starts.peak_in(seconds), f64::from(pace.growth_workers)),
        documented,
        "spread the plan over several sizes (each function grows by itself), or start workers beforehand",
    ));
    all.push(limit(
        ("invocations", "per s"),
        (
            usage.invocations.peak_per_s(),
            f64::from(judged.runs) * INVOCATIONS_AT_ONCE * 1_000.0 / pace.invoke_ms,
        ),
        Basis::Assumed,
        "let workers invoke each other: a first task that fans out to some hundred, each with its own share",
    ));
    let prefix = "keep the objects small enough for the commit, or give the runs prefixes of their own";
    all.push(limit(
        ("objects stored", "per s"),
        (usage.puts.peak_per_s(), pace.puts_per_s),
        documented,
        prefix,
    ));
    all.push(limit(
        ("objects read", "per s"),
        (usage.gets.peak_per_s(), pace.gets_per_s),
        documented,
        prefix,
    ));
    all
}

fn of_keeper(judged: &Judged) -> Vec<Limit> {
    let Judged { usage, service, keeper, .. } = judged;
    let (thread, link, tell) = match keeper {
        Keeper::Metad => (
            "processor of metad",
            "link of metad",
            "divide the work into several runs: a worker reads workflow and plan whole, and all news",
        ),
        Keeper::Redis => (
            "processor of Redis",
            "link of Redis",
            "divide the work into several runs, on several servers: a worker reads the log of its run",
        ),
    };
    let mut worked: Vec<(&'static str, &Meter)> =
        vec![("requests", &usage.requests_ms), ("documents", &usage.documents_ms), ("news", &usage.news_ms)];
    if *keeper == Keeper::Metad {
        worked.push(("measurements", &usage.learning_ms));
    }
    let sent = [
        ("answers", &usage.answers_bytes),
        ("documents", &usage.documents_bytes),
        ("news", &usage.news_bytes),
    ];
    let mut all = vec![
        shared((thread, "ms per s"), &worked, 1_000.0, tell),
        shared((link, "bytes per s"), &sent, service.link_bytes_per_s, tell),
    ];
    if *keeper == Keeper::Redis {
        let learning = [("measurements", &usage.learning_ms)];
        let advice =
            "replicas do not help here: every one learns everything; send from fewer, longer workers";
        all.push(shared(("processor of metad", "ms per s"), &learning, 1_000.0, advice));
    }
    if let Some(fold_us) = service.fold_us {
        let asked = usage.folded.peak_per_s() * fold_us / 1_000.0;
        let advice = "divide the work into several runs: every worker folds all that its run does";
        let kept = (asked, FOLDING_SHARE * 1_000.0);
        all.push(limit(("folding in each worker", "ms per s"), kept, Basis::Measured, advice));
    }
    all
}

/// A limit of something that several causes share.
fn shared(
    named: (&'static str, &'static str),
    causes: &[(&'static str, &Meter)],
    capacity: f64,
    advice: &'static str,
) -> Limit {
    let meters: Vec<&Meter> = causes.iter().map(|(_, meter)| *meter).collect();
    let (peak, parts) = Meter::peak_of(&meters);
    let most = causes.iter().zip(&parts).max_by(|a, b| a.1.total_cmp(b.1));
    let mostly = most.map(|((cause, _), _)| *cause).filter(|_| causes.len() > 1);
    Limit { mostly, ..limit(named, (peak, capacity), Basis::Measured, advice) }
}

fn of_settings(judged: &Judged) -> Vec<Limit> {
    let Judged { usage, service, .. } = judged;
    let workers = usage.workers_max;
    let mut all = vec![limit(
        ("connections", "connections"),
        (CONNECTIONS_PER_WORKER * workers, service.connections_max as f64),
        Basis::Setting,
        "raise the setting (`--connections-max` of metad, `maxclients` of Redis) and `ulimit -n`",
    )];
    if let Some(listeners_max) = service.listeners_max {
        all.push(limit(
            ("listeners", "requests"),
            (workers, listeners_max as f64),
            Basis::Setting,
            "raise `--listeners-max` of metad",
        ));
    }
    if let Some(body_bytes_max) = Keeper::Metad.service().body_bytes_max {
        let bytes = judged.documents.workflow_bytes + judged.documents.plan_bytes;
        all.push(limit(
            ("beginning of a run", "bytes"),
            (bytes as f64, body_bytes_max as f64),
            Basis::Setting,
            "raise `--body-bytes-max` of metad, or divide the work into several runs",
        ));
    }
    all
}

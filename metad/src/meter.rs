//! What metad counts of itself, and its OpenMetrics text.
//!
//! Names begin with `foresail_metad_`, those of scores with `metad_prediction_`; times are in seconds, as
//! OpenMetrics wants it. Source of the text format: the OpenMetrics 1.0 specification.

mod scores;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use foresail_model::Scores;

use crate::batch_log::Place;

/// Upper ends of the histogram buckets in seconds.
const BUCKETS_S: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// A histogram of times that any thread may add to; a text made meanwhile may miss the last of them.
#[derive(Debug, Default)]
struct Times {
    buckets: [AtomicU64; BUCKETS_S.len()],
    count: AtomicU64,
    sum_ns: AtomicU64,
}

impl Times {
    fn add(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        if let Some(place) = BUCKETS_S.iter().position(|&end| seconds <= end) {
            add(&self.buckets[place], 1);
        }
        add(&self.count, 1);
        add(&self.sum_ns, time.as_nanos() as u64);
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        for (end, count) in BUCKETS_S.iter().zip(&self.buckets) {
            below += count.load(Ordering::Relaxed);
            line(out, &format!("{name}_bucket{{{labels}{comma}le=\"{end:?}\"}}"), below);
        }
        let count = self.count.load(Ordering::Relaxed).max(below);
        line(out, &format!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}}"), count);
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        line(out, &format!("{name}_count{braces}"), count);
        line(out, &format!("{name}_sum{braces}"), self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9);
    }
}

/// Methods that are counted apart.
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "DELETE", "HEAD", "other"];

/// Statuses that are counted apart; the last place is for all others.
const STATUSES: [u16; 20] =
    [200, 201, 204, 304, 400, 401, 404, 405, 408, 409, 410, 413, 415, 422, 429, 500, 503, 504, 507, 0];

/// What was answered at one route.
#[derive(Debug, Default)]
pub struct RouteMeter {
    answers: [[AtomicU64; STATUSES.len()]; METHODS.len()],
    times: Times,
}

impl RouteMeter {
    /// Counts an answer.
    pub fn answered(&self, method: &str, status: u16, time: Duration) {
        let place = |n: Option<usize>, last: usize| n.unwrap_or(last - 1);
        let method = place(METHODS.iter().position(|m| *m == method), METHODS.len());
        let status = place(STATUSES.iter().position(|s| *s == status), STATUSES.len());
        add(&self.answers[method][status], 1);
        self.times.add(time);
    }
}

/// Counters of the daemon.
#[derive(Debug, Default)]
pub struct Meter {
    /// Batches stored.
    pub batches: AtomicU64,
    /// Batches that had been stored before.
    pub duplicates: AtomicU64,
    /// Records stored.
    pub accepted: AtomicU64,
    /// Records set aside.
    pub rejected: AtomicU64,
    /// Run operations decided.
    pub operations: AtomicU64,
    /// Run events stored.
    pub events: AtomicU64,
    /// Predictions answered.
    pub predictions: AtomicU64,
    /// Questions that were answered on the blocking pool because much had to be fitted first.
    pub cold: AtomicU64,
    /// Work that ended or was left out after its request had gone.
    pub overtime: AtomicU64,
    /// Rows of model checkpoints that could not be read at the start.
    pub damaged_rows: AtomicU64,
    /// Model checkpoints written.
    pub checkpoints: AtomicU64,
    /// Requests under way, those that listen for events included.
    pub requests_open: AtomicU64,
    commits: Times,
    fits: Times,
    /// By the pattern of the address.
    routes: ArcSwap<BTreeMap<String, Arc<RouteMeter>>>,
}

/// What is true at the moment of asking.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Epoch of the model.
    pub epoch: u64,
    /// Changes that wait for the writer.
    pub queue: u64,
    /// Workflows with metrics.
    pub workflows: u64,
    /// Tasks with a model.
    pub tasks: u64,
    /// Runs by status.
    pub runs: BTreeMap<&'static str, u64>,
    /// 1 when requests are taken.
    pub ready: u64,
    /// How well plans predicted.
    pub scores: Scores,
    /// How far the log of batches is followed, where there is one.
    pub log: Option<Place>,
}

/// Adds `n` to a counter.
pub fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

fn line(out: &mut String, name: &str, value: impl std::fmt::Display) {
    writeln!(out, "{name} {value}").expect("writing to a String cannot fail");
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    writeln!(out, "# TYPE {name} {kind}\n# HELP {name} {help}").expect("writing to a String cannot fail");
}

impl Meter {
    /// Counts a commit (one fsync).
    pub fn commit(&self, time: Duration) {
        self.commits.add(time);
    }

    /// Counts one building of new model snapshots.
    pub fn fit(&self, time: Duration) {
        self.fits.add(time);
    }

    /// The counters of a route; `pattern` is the pattern of the address, of which there are few.
    pub fn route(&self, pattern: &str) -> Arc<RouteMeter> {
        if let Some(known) = self.routes.load().get(pattern) {
            return Arc::clone(known);
        }
        let new = Arc::<RouteMeter>::default();
        let before = self.routes.rcu(|routes| {
            let mut routes = BTreeMap::clone(routes);
            routes.entry(pattern.to_owned()).or_insert_with(|| Arc::clone(&new));
            routes
        });
        // Somebody may have been faster.
        before.get(pattern).cloned().unwrap_or(new)
    }

    /// All of it as OpenMetrics text.
    #[must_use]
    pub fn text(&self, gauges: &Gauges) -> String {
        let mut out = String::with_capacity(16 << 10);
        self.write_requests(&mut out);
        self.write_counters(&mut out);
        self.write_gauges(&mut out, gauges);
        scores::write(&mut out, &gauges.scores);
        out.push_str("# EOF\n");
        out
    }

    fn write_requests(&self, out: &mut String) {
        let name = "foresail_metad_requests";
        head(out, name, "counter", "Requests by route, method and status.");
        let routes = self.routes.load();
        for (route, meter) in routes.iter() {
            for (method, counts) in METHODS.iter().zip(&meter.answers) {
                for (status, count) in STATUSES.iter().zip(counts) {
                    let count = count.load(Ordering::Relaxed);
                    if count > 0 {
                        let labels = format!("route=\"{route}\",method=\"{method}\",status=\"{status}\"");
                        line(out, &format!("{name}_total{{{labels}}}"), count);
                    }
                }
            }
        }
        let name = "foresail_metad_request_seconds";
        head(out, name, "histogram", "Time from the head of a request to the head of its answer.");
        for (route, meter) in routes.iter().filter(|(_, m)| m.times.count.load(Ordering::Relaxed) > 0) {
            meter.times.write(out, name, &format!("route=\"{route}\""));
        }
        let name = "foresail_metad_commit_seconds";
        head(out, name, "histogram", "Time of one commit of the store, which is one fsync.");
        self.commits.write(out, name, "");
        let name = "foresail_metad_fit_seconds";
        head(out, name, "histogram", "Time to learn a group of batches and to build the new snapshots.");
        self.fits.write(out, name, "");
    }

    fn write_counters(&self, out: &mut String) {
        let counters = [
            ("batches", &self.batches, "Batches stored."),
            ("batch_duplicates", &self.duplicates, "Batches that had been stored before."),
            ("records_accepted", &self.accepted, "Records stored."),
            ("records_rejected", &self.rejected, "Records set aside in the quarantine."),
            ("run_operations", &self.operations, "Run operations decided."),
            ("run_events", &self.events, "Run events stored."),
            ("predictions", &self.predictions, "Predictions answered."),
            ("cold_questions", &self.cold, "Requests answered beside the event loop, after large fits."),
            ("overtime", &self.overtime, "Work that ended or was left out after its request had gone."),
            ("checkpoints", &self.checkpoints, "Model checkpoints written."),
        ];
        for (name, counter, help) in counters {
            let name = format!("foresail_metad_{name}");
            head(out, &name, "counter", help);
            line(out, &format!("{name}_total"), counter.load(Ordering::Relaxed));
        }
    }

    fn write_gauges(&self, out: &mut String, gauges: &Gauges) {
        let now = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let log = gauges.log.map(|place| {
            [
                ("log_applied", place.applied, "Sequence in the log of batches up to which all is learnt."),
                ("log_last", place.last, "Last sequence that the log is known to have."),
                ("log_lag", place.last.saturating_sub(place.applied), "Batches of the log not learnt yet."),
                ("log_connected", place.connected, "1 while there is a connection to the log."),
            ]
        });
        let values = [
            ("epoch", gauges.epoch, "Epoch of the model."),
            ("queue_depth", gauges.queue, "Changes that wait for the writer."),
            ("workflows", gauges.workflows, "Workflows with metrics."),
            ("model_tasks", gauges.tasks, "Tasks with a model in memory."),
            ("requests_open", now(&self.requests_open), "Requests under way."),
            (
                "model_rows_damaged",
                now(&self.damaged_rows),
                "Rows of models that the last start could not read.",
            ),
            ("ready", gauges.ready, "1 when requests are taken."),
        ];
        for (name, value, help) in values.into_iter().chain(log.into_iter().flatten()) {
            let name = format!("foresail_metad_{name}");
            head(out, &name, "gauge", help);
            line(out, &name, value);
        }
        let name = "foresail_metad_runs";
        head(out, name, "gauge", "Runs that are kept, by status.");
        for (status, count) in &gauges.runs {
            line(out, &format!("{name}{{status=\"{status}\"}}"), count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_family_once_and_ends_as_the_format_wants() {
        let meter = Meter::default();
        meter.route("/v1/runs").answered("GET", 200, Duration::from_millis(2));
        meter.route("/v1/runs").answered("GET", 200, Duration::from_millis(40));
        meter.commit(Duration::from_micros(700));
        add(&meter.accepted, 3);
        let gauges = Gauges { epoch: 7, runs: BTreeMap::from([("running", 2)]), ..Gauges::default() };
        let text = meter.text(&gauges);
        for expected in [
            "foresail_metad_requests_total{route=\"/v1/runs\",method=\"GET\",status=\"200\"} 2\n",
            "foresail_metad_request_seconds_bucket{route=\"/v1/runs\",le=\"0.0025\"} 1\n",
            "foresail_metad_request_seconds_bucket{route=\"/v1/runs\",le=\"+Inf\"} 2\n",
            "foresail_metad_commit_seconds_bucket{le=\"0.001\"} 1\n",
            "foresail_metad_commit_seconds_count 1\n",
            "foresail_metad_records_accepted_total 3\n",
            "foresail_metad_epoch 7\n",
            "foresail_metad_runs{status=\"running\"} 2\n",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        let types: Vec<_> = text.lines().filter(|l| l.starts_with("# TYPE")).collect();
        let distinct: std::collections::BTreeSet<_> = types.iter().collect();
        assert_eq!(types.len(), distinct.len());
    }

    #[test]
    fn every_status_that_a_problem_has_is_counted_apart() {
        for code in foresail_schemas::ErrorCode::ALL {
            assert!(STATUSES.contains(&code.status()), "{code:?} {}", code.status());
        }
    }
}

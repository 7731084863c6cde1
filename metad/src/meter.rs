//! What metad counts of itself, and its OpenMetrics text.
//!
//! Names begin with `foresail_metad_`; times are in seconds, as OpenMetrics wants it. Source of the text
//! format: the OpenMetrics 1.0 specification.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper ends of the histogram buckets in seconds.
const BUCKETS_S: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// A histogram of times.
#[derive(Debug, Clone, Default)]
pub struct Times {
    buckets: [u64; BUCKETS_S.len()],
    count: u64,
    sum_s: f64,
}

impl Times {
    fn add(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        if let Some(place) = BUCKETS_S.iter().position(|&end| seconds <= end) {
            self.buckets[place] += 1;
        }
        self.count += 1;
        self.sum_s += seconds;
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        for (end, count) in BUCKETS_S.iter().zip(self.buckets) {
            below += count;
            line(out, &format!("{name}_bucket{{{labels}{comma}le=\"{end:?}\"}}"), below);
        }
        line(out, &format!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}}"), self.count);
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        line(out, &format!("{name}_count{braces}"), self.count);
        line(out, &format!("{name}_sum{braces}"), self.sum_s);
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
    /// Model checkpoints written.
    pub checkpoints: AtomicU64,
    /// Requests under way, those that listen for events included.
    pub requests_open: AtomicU64,
    commits: Mutex<Times>,
    fits: Mutex<Times>,
    /// By route, method and status.
    requests: Mutex<BTreeMap<(String, String, u16), u64>>,
    /// By route.
    latencies: Mutex<BTreeMap<String, Times>>,
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

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Meter {
    /// Counts a commit (one fsync).
    pub fn commit(&self, time: Duration) {
        locked(&self.commits).add(time);
    }

    /// Counts one building of new model snapshots.
    pub fn fit(&self, time: Duration) {
        locked(&self.fits).add(time);
    }

    /// Counts a request; `route` is the pattern of the address, of which there are few.
    pub fn request(&self, route: &str, method: &str, status: u16, time: Duration) {
        *locked(&self.requests).entry((route.to_owned(), method.to_owned(), status)).or_default() += 1;
        locked(&self.latencies).entry(route.to_owned()).or_default().add(time);
    }

    /// All of it as OpenMetrics text.
    #[must_use]
    pub fn text(&self, gauges: &Gauges) -> String {
        let mut out = String::with_capacity(16 << 10);
        self.write_requests(&mut out);
        self.write_counters(&mut out);
        write_gauges(&mut out, gauges, self.requests_open.load(Ordering::Relaxed));
        out.push_str("# EOF\n");
        out
    }

    fn write_requests(&self, out: &mut String) {
        let name = "foresail_metad_requests";
        head(out, name, "counter", "Requests by route, method and status.");
        for ((route, method, status), count) in locked(&self.requests).iter() {
            let labels = format!("route=\"{route}\",method=\"{method}\",status=\"{status}\"");
            line(out, &format!("{name}_total{{{labels}}}"), count);
        }
        let name = "foresail_metad_request_seconds";
        head(out, name, "histogram", "Time from the head of a request to the head of its answer.");
        for (route, times) in locked(&self.latencies).iter() {
            times.write(out, name, &format!("route=\"{route}\""));
        }
        let name = "foresail_metad_commit_seconds";
        head(out, name, "histogram", "Time of one commit of the store, which is one fsync.");
        locked(&self.commits).write(out, name, "");
        let name = "foresail_metad_fit_seconds";
        head(out, name, "histogram", "Time to learn a group of batches and to build the new snapshots.");
        locked(&self.fits).write(out, name, "");
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
            ("checkpoints", &self.checkpoints, "Model checkpoints written."),
        ];
        for (name, counter, help) in counters {
            let name = format!("foresail_metad_{name}");
            head(out, &name, "counter", help);
            line(out, &format!("{name}_total"), counter.load(Ordering::Relaxed));
        }
    }
}

fn write_gauges(out: &mut String, gauges: &Gauges, requests_open: u64) {
    let values = [
        ("epoch", gauges.epoch, "Epoch of the model."),
        ("queue_depth", gauges.queue, "Changes that wait for the writer."),
        ("workflows", gauges.workflows, "Workflows with metrics."),
        ("model_tasks", gauges.tasks, "Tasks with a model in memory."),
        ("requests_open", requests_open, "Requests under way."),
        ("ready", gauges.ready, "1 when requests are taken."),
    ];
    for (name, value, help) in values {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_family_once_and_ends_as_the_format_wants() {
        let meter = Meter::default();
        meter.request("/v1/runs", "GET", 200, Duration::from_millis(2));
        meter.request("/v1/runs", "GET", 200, Duration::from_millis(40));
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
}

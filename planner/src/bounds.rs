//! Lower bounds that no plan can beat under the model of the timing pass: LB_T of the makespan, LB_C of the
//! cost, LB_C(D) of the cost of a plan that ends by D.
//!
//! LB_T is the larger of two. *Path*: the earliest finish over the DAG (see `path`). *Area*: all work over
//! all lanes of all workers that may run at the same time. Every task needs a worker, and the first of each
//! size starts cold unless one of that size is warm when the run begins.
//!
//! LB_C adds the least money of every task by itself (downloads of external inputs once, uploads, the round
//! trip that its worker waits after it), the PUTs that every plan makes, one GET per external object, one
//! start and one request. LB_C(D) leaves out the sizes on which a task is too slow for D between its
//! earliest start and the shortest way to the end, and adds the starts of as many workers as it takes to do
//! all work by D.

use foresail_schemas::plan::{Bounds, PlanSummary};

use crate::dense::Dense;

mod lane;
mod path;

use path::Earliest;

/// Relative difference that is rounding.
const ROUNDING: f64 = 1e-9;

/// The bounds of a problem.
#[derive(Debug, Clone)]
pub(crate) struct Floor {
    /// LB_T in ms.
    pub makespan_ms: f64,
    /// LB_C in USD.
    pub cost_usd: f64,
    earliest: Earliest,
    /// Per task: the least time from its end to the end of the run.
    tail_ms: Vec<f64>,
}

impl Floor {
    pub fn new(dense: &Dense) -> Self {
        let least = Least::new(dense);
        let earliest = Earliest::new(dense, &least);
        let last_ms = earliest.end_ms.iter().copied().fold(0.0, f64::max);
        let makespan_ms = last_ms.max(area_ms(dense, &least)) + dense.dispatch_ms / 2.0;
        let tail_ms = tail_ms(dense, &least);
        let mut floor = Self { makespan_ms, cost_usd: 0.0, earliest, tail_ms };
        floor.cost_usd = floor.cost_by(dense, f64::INFINITY);
        floor
    }

    /// LB_T in ms and LB_C in USD.
    pub fn pair(&self) -> (f64, f64) {
        (self.makespan_ms, self.cost_usd)
    }

    /// LB_C(D): what no plan that ends by `deadline_ms` can beat; infinite where none does.
    pub fn cost_by(&self, dense: &Dense, deadline_ms: f64) -> f64 {
        if deadline_ms < self.makespan_ms * (1.0 - ROUNDING) {
            return f64::INFINITY;
        }
        let prices = &dense.problem.platform.prices;
        let sizes = || 0..dense.size_count();
        let least = |f: &dyn Fn(u32) -> f64| sizes().map(f).fold(f64::INFINITY, f64::min);
        let lanes = f64::from(dense.lanes);
        let run_ms = |c: u32, t: u32| dense.exec_ms(c, t) + dense.upload_ms(c, t);
        let mut work_ms = 0.0;
        let mut tasks_usd = 0.0;
        for t in 0..dense.len() {
            let window_ms = deadline_ms - self.tail_ms[t as usize] - self.earliest.start_ms[t as usize];
            let mut usd = f64::INFINITY;
            let mut shortest_ms = f64::INFINITY;
            let fits = |c: u32| run_ms(c, t) <= window_ms + ROUNDING * deadline_ms;
            for c in sizes().filter(|&c| dense.allows(c, t) && fits(c)) {
                let ms = run_ms(c, t) + dense.dispatch_ms;
                usd = usd.min(ms / lanes * dense.size(c).usd_per_ms);
                shortest_ms = shortest_ms.min(ms);
            }
            tasks_usd += usd;
            work_ms += shortest_ms;
        }
        let puts: u64 = dense.uploads.iter().map(|s| u64::from(s.objects)).sum();
        let objects = dense.graph.objects();
        let external = (0..objects.len() as u32)
            .filter(|&o| objects[o as usize].producer.is_none() && dense.objects[o as usize].readers > 0);
        let get_usd =
            |o: u32| prices.get_usd + least(&|c| dense.download_ms(c, o) / lanes * dense.size(c).usd_per_ms);
        let external_usd: f64 = external.map(get_usd).sum();
        // A worker joins before its first task and leaves after its last: a start and two round trips.
        let start_usd = least(&|c| {
            let request_usd = if dense.is_pool(c) { 0.0 } else { prices.request_usd };
            (dense.first_start_ms(c) + 2.0 * dense.dispatch_ms) * dense.size(c).usd_per_ms + request_usd
        });
        // No container has more time than there is between its first task and the deadline, and each starts.
        let lane_ms = (deadline_ms - self.earliest.first_ms + dense.dispatch_ms) * lanes;
        let containers = if deadline_ms.is_finite() { (work_ms / lane_ms - ROUNDING).ceil() } else { 1.0 };
        let starts_usd = containers.max(1.0) * start_usd;
        tasks_usd + puts as f64 * prices.put_usd + external_usd + starts_usd
    }
}

/// A plan's distance to the bounds.
pub(crate) fn gap(bounds: (f64, f64), summary: &PlanSummary) -> Bounds {
    let ratio = |value: f64, bound: f64| if bound > 0.0 { value / bound } else { 1.0 };
    Bounds {
        makespan_ms: bounds.0,
        cost_usd: bounds.1,
        makespan_ratio: ratio(summary.makespan_ms, bounds.0),
        cost_ratio: ratio(summary.cost_usd, bounds.1),
    }
}

/// The least that anything takes on any size.
struct Least {
    /// Per task: execution and uploads.
    run_ms: Vec<f64>,
    /// From the submission to the first task of the first worker.
    start_ms: f64,
    download_latency_ms: f64,
    download_ms_per_byte: f64,
}

impl Least {
    fn new(dense: &Dense) -> Self {
        let sizes = 0..dense.size_count();
        let least = |f: &dyn Fn(u32) -> f64| sizes.clone().map(f).fold(f64::INFINITY, f64::min);
        let run_ms = |t: u32| {
            let allowed = sizes.clone().filter(|&c| dense.allows(c, t));
            allowed.map(|c| dense.exec_ms(c, t) + dense.upload_ms(c, t)).fold(f64::INFINITY, f64::min)
        };
        Self {
            run_ms: (0..dense.len()).map(run_ms).collect(),
            start_ms: least(&|c| dense.first_start_ms(c)) + dense.dispatch_ms,
            download_latency_ms: least(&|c| dense.size(c).transfer.download_latency_ms),
            download_ms_per_byte: least(&|c| dense.size(c).transfer.download_ms_per_byte),
        }
    }

    fn download_ms(&self, dense: &Dense, object: u32) -> f64 {
        self.download_latency_ms + dense.object_bytes(object) as f64 * self.download_ms_per_byte
    }
}

/// All work over all lanes; between two tasks a lane waits for a round trip.
fn area_ms(dense: &Dense, least: &Least) -> f64 {
    let lanes = f64::from(dense.concurrency_max) * f64::from(dense.lanes);
    let on_platform = (0..dense.len()).filter(|&t| !dense.is_pooled(t));
    let work_ms: f64 = on_platform.map(|t| least.run_ms[t as usize] + dense.dispatch_ms).sum();
    least.start_ms + (work_ms / lanes - dense.dispatch_ms).max(0.0)
}

fn tail_ms(dense: &Dense, least: &Least) -> Vec<f64> {
    let mut tail_ms = vec![0.0; dense.len() as usize];
    for &t in dense.graph.order().iter().rev() {
        let below = dense.graph.children(t).iter().map(|&c| tail_ms[c as usize] + least.run_ms[c as usize]);
        tail_ms[t as usize] = below.map(|ms| ms + dense.dispatch_ms).fold(dense.dispatch_ms / 2.0, f64::max);
    }
    tail_ms
}

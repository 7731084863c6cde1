//! Lower bounds that no plan can beat under the model of the timing pass: LB_T of the makespan, LB_C of the
//! cost, LB_C(D) of the cost of a plan that ends by D.
//!
//! LB_T is the larger of two. *Path*: the earliest finish over the DAG (see `path`). *Area*: all code over
//! all lanes, or all uploads over all links, of all workers that may run at the same time. Every task needs
//! a worker, and the first of each size starts cold unless one of that size is warm when the run begins.
//!
//! A lane computes while others store and inputs are fetched ahead, so LB_C adds the largest of three: the
//! least money of every task's code with the round trip that its lane waits for it, of every upload, and of
//! one download per external object. To that come the PUTs that every plan makes, one GET per external
//! object, one start and one request. LB_C(D) leaves out the sizes on which a task is too slow for D between
//! its earliest start and the shortest way to the end, and adds the starts of as many workers as it takes to
//! do all work by D.

use foresail_schemas::plan::{Bounds, PlanSummary};

use crate::dense::Dense;

mod inflow;
mod path;
mod residual;

use path::Earliest;
pub(crate) use residual::residual;

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
        let (mut work_ms, mut code_usd, mut uploads_usd) = (0.0, 0.0, 0.0);
        for t in 0..dense.len() {
            let window_ms = deadline_ms - self.tail_ms[t as usize] - self.earliest.start_ms[t as usize];
            let mut usd = [f64::INFINITY; 2];
            let mut shortest_ms = f64::INFINITY;
            let fits = |c: u32| run_ms(c, t) <= window_ms + ROUNDING * deadline_ms;
            for c in sizes().filter(|&c| dense.allows(c, t) && fits(c)) {
                let (ms, usd_per_ms) = (dense.exec_ms(c, t), dense.size(c).usd_per_ms);
                usd[0] = usd[0].min(ms / lanes * usd_per_ms);
                usd[1] = usd[1].min(dense.upload_ms(c, t) * usd_per_ms);
                shortest_ms = shortest_ms.min(ms);
            }
            code_usd += usd[0];
            uploads_usd += usd[1];
            work_ms += shortest_ms;
        }
        let puts: u64 = dense.uploads.iter().map(|s| u64::from(s.objects)).sum();
        let objects = dense.graph.objects();
        let external = (0..objects.len() as u32)
            .filter(|&o| objects[o as usize].producer.is_none() && dense.objects[o as usize].readers > 0);
        let (mut gets, mut downloads_usd) = (0_u64, 0.0);
        for o in external {
            gets += 1;
            downloads_usd += least(&|c| dense.download_ms(c, o) * dense.size(c).usd_per_ms);
        }
        let tasks_usd = code_usd.max(uploads_usd).max(downloads_usd);
        let requests_usd = puts as f64 * prices.put_usd + gets as f64 * prices.get_usd;
        // A worker joins before its first task and leaves after its last: a start and two round trips.
        let start_usd = least(&|c| {
            let request_usd = if dense.is_pool(c) { 0.0 } else { prices.request_usd };
            (dense.first_start_ms(c) + 2.0 * dense.dispatch_ms) * dense.size(c).usd_per_ms + request_usd
        });
        // No container has more time than there is between its first task and the deadline, and each starts.
        let lane_ms = (deadline_ms - self.earliest.first_ms) * lanes;
        let containers = if deadline_ms.is_finite() { (work_ms / lane_ms - ROUNDING).ceil() } else { 1.0 };
        let starts_usd = containers.max(1.0) * start_usd;
        tasks_usd + requests_usd + starts_usd
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
    /// Per task: execution.
    exec_ms: Vec<f64>,
    /// Per task: uploads.
    upload_ms: Vec<f64>,
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
        let column = || Vec::with_capacity(dense.len() as usize);
        let (mut exec_ms, mut upload_ms, mut run_ms) = (column(), column(), column());
        for t in 0..dense.len() {
            let mut least_ms = [f64::INFINITY; 3];
            for c in sizes.clone().filter(|&c| dense.allows(c, t)) {
                let (exec_ms, upload_ms) = (dense.exec_ms(c, t), dense.upload_ms(c, t));
                for (least_ms, ms) in least_ms.iter_mut().zip([exec_ms, upload_ms, exec_ms + upload_ms]) {
                    *least_ms = least_ms.min(ms);
                }
            }
            exec_ms.push(least_ms[0]);
            upload_ms.push(least_ms[1]);
            run_ms.push(least_ms[2]);
        }
        Self {
            exec_ms,
            upload_ms,
            run_ms,
            start_ms: least(&|c| dense.first_start_ms(c)) + dense.dispatch_ms,
            download_latency_ms: least(&|c| dense.size(c).transfer.download_latency_ms),
            download_ms_per_byte: least(&|c| dense.size(c).transfer.download_ms_per_byte),
        }
    }

    fn download_ms(&self, dense: &Dense, object: u32) -> f64 {
        self.download_latency_ms + dense.object_bytes(object) as f64 * self.download_ms_per_byte
    }
}

/// All code over all lanes, or all uploads over all links.
fn area_ms(dense: &Dense, least: &Least) -> f64 {
    let workers = f64::from(dense.concurrency_max);
    let lanes = workers * f64::from(dense.lanes);
    let on_platform = || (0..dense.len()).filter(|&t| !dense.is_pooled(t)).map(|t| t as usize);
    let code_ms: f64 = on_platform().map(|t| least.exec_ms[t]).sum();
    let uploads_ms: f64 = on_platform().map(|t| least.upload_ms[t]).sum();
    least.start_ms + (code_ms / lanes).max(uploads_ms / workers)
}

fn tail_ms(dense: &Dense, least: &Least) -> Vec<f64> {
    let mut tail_ms = vec![0.0; dense.len() as usize];
    for &t in dense.graph.order().iter().rev() {
        let below = dense.graph.children(t).iter().map(|&c| tail_ms[c as usize] + least.run_ms[c as usize]);
        tail_ms[t as usize] = below.fold(dense.dispatch_ms / 2.0, f64::max);
    }
    tail_ms
}

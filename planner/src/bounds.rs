//! Lower bounds that no plan can beat under the model of the timing pass: LB_T of the makespan, LB_C of the
//! cost.
//!
//! LB_T is the larger of two. *Path*: the earliest finish over the DAG with the least time of any size for
//! every step. A task starts one round trip after its last parent at the earliest. Inputs that move through
//! the store are either downloaded on one link, or their producers ran in the same container on its lanes;
//! whatever the plan chooses, link and lanes share the work, and the best split puts a prefix of the
//! inputs, by work per download, on the lanes (a fractional relaxation). *Area*: all work over all lanes of
//! all workers that may run at the same time. Every task needs a worker, and the first of each size starts
//! cold.
//!
//! LB_C adds the least money of every task by itself (downloads of external inputs once, uploads, the round
//! trip that its worker waits after it), the PUTs that every plan makes, one GET per external object, one
//! start and one request.

use foresail_schemas::plan::{Bounds, PlanSummary};

use crate::dense::Dense;

/// Subsets of a fan-in, by time of arrival, for which the split is computed.
const FAN_IN_CUTS_MAX: usize = 8;

/// LB_T in ms and LB_C in USD.
pub(crate) fn of(dense: &Dense) -> (f64, f64) {
    let least = Least::new(dense);
    let makespan_ms = path_ms(dense, &least).max(area_ms(dense, &least)) + dense.dispatch_ms / 2.0;
    (makespan_ms, cost_usd(dense))
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
            start_ms: least(&|c| dense.size(c).startup.cold_ms) + dense.dispatch_ms,
            download_latency_ms: least(&|c| dense.size(c).transfer.download_latency_ms),
            download_ms_per_byte: least(&|c| dense.size(c).transfer.download_ms_per_byte),
        }
    }

    fn download_ms(&self, dense: &Dense, object: u32) -> f64 {
        self.download_latency_ms + dense.object_bytes(object) as f64 * self.download_ms_per_byte
    }
}

/// One parent whose objects a task reads from the store, or one external object.
#[derive(Debug, Clone, Copy)]
struct Inflow {
    /// Earliest end of the parent; start of the worker for an external object.
    from_ms: f64,
    /// Time on a lane if the parent runs in the same container; infinite for an external object.
    run_ms: f64,
    /// Time on the link otherwise.
    download_ms: f64,
}

/// Earliest finish over the DAG.
fn path_ms(dense: &Dense, least: &Least) -> f64 {
    let mut finish_ms = vec![0.0_f64; dense.len() as usize];
    let mut inflows = Vec::new();
    for &t in dense.graph.order() {
        let parents = dense.graph.parents(t).iter().map(|&p| finish_ms[p as usize] + dense.dispatch_ms);
        let ready_ms = parents.fold(least.start_ms, f64::max);
        collect_inflows(dense, least, t, &finish_ms, &mut inflows);
        let there_ms = fan_in_ms(&mut inflows, f64::from(dense.lanes));
        finish_ms[t as usize] = ready_ms.max(there_ms) + least.run_ms[t as usize];
    }
    finish_ms.into_iter().fold(0.0, f64::max)
}

fn collect_inflows(dense: &Dense, least: &Least, task: u32, finish_ms: &[f64], inflows: &mut Vec<Inflow>) {
    inflows.clear();
    let objects = dense.graph.objects();
    let mut external = Inflow { from_ms: least.start_ms, run_ms: f64::INFINITY, download_ms: 0.0 };
    // Objects of one parent stand together: outputs are numbered by task, and reads are few per parent.
    let mut produced: Vec<(u32, f64)> = Vec::new();
    for &object in dense.stored_reads(task) {
        let download_ms = least.download_ms(dense, object);
        match objects[object as usize].producer {
            None => external.download_ms += download_ms,
            Some(parent) => produced.push((parent, download_ms)),
        }
    }
    produced.sort_unstable_by_key(|&(parent, _)| parent);
    for row in produced.chunk_by(|a, b| a.0 == b.0) {
        let parent = row[0].0 as usize;
        inflows.push(Inflow {
            from_ms: finish_ms[parent],
            run_ms: least.run_ms[parent] + dense.dispatch_ms,
            download_ms: row.iter().map(|(_, ms)| ms).sum(),
        });
    }
    if external.download_ms > 0.0 {
        inflows.push(external);
    }
}

/// When all inputs can be in one container at the earliest, one round trip after the last co-located parent.
fn fan_in_ms(inflows: &mut [Inflow], lanes: f64) -> f64 {
    inflows.sort_by(|a, b| a.from_ms.total_cmp(&b.from_ms));
    let len = inflows.len();
    let cuts = len.min(FAN_IN_CUTS_MAX);
    let mut latest_ms = 0.0_f64;
    for cut in 0..cuts {
        latest_ms = latest_ms.max(split_ms(&inflows[cut * len / cuts..], lanes));
    }
    latest_ms
}

/// Lanes and link work from the moment that the first of these inflows can begin; the best split of them
/// over both.
fn split_ms(inflows: &[Inflow], lanes: f64) -> f64 {
    let begin = |i: &Inflow| if i.run_ms.is_finite() { i.from_ms - i.run_ms } else { i.from_ms };
    // A parent on a lane is followed by a round trip, which `run_ms` has and `from_ms` has not.
    let dispatched = |i: &Inflow| begin(i).max(0.0);
    let base_ms = inflows.iter().map(dispatched).fold(f64::INFINITY, f64::min);
    let mut by_gain: Vec<&Inflow> = inflows.iter().collect();
    let gain = |i: &Inflow| if i.run_ms > 0.0 { i.download_ms / i.run_ms } else { f64::INFINITY };
    by_gain.sort_by(|a, b| gain(b).total_cmp(&gain(a)));
    let mut link_ms: f64 = inflows.iter().map(|i| i.download_ms).sum();
    let mut lane_ms = 0.0;
    for inflow in by_gain {
        let run_ms = inflow.run_ms / lanes;
        if run_ms.is_infinite() || lane_ms + run_ms >= link_ms - inflow.download_ms {
            // The part of this inflow at which both end together.
            let both = if run_ms.is_infinite() { 0.0 } else { run_ms + inflow.download_ms };
            let part = if both > 0.0 { ((link_ms - lane_ms) / both).clamp(0.0, 1.0) } else { 0.0 };
            return base_ms + (link_ms - part * inflow.download_ms).max(lane_ms);
        }
        lane_ms += run_ms;
        link_ms -= inflow.download_ms;
    }
    base_ms + lane_ms.max(link_ms)
}

/// All work over all lanes; between two tasks a lane waits for a round trip.
fn area_ms(dense: &Dense, least: &Least) -> f64 {
    let lanes = f64::from(dense.concurrency_max) * f64::from(dense.lanes);
    let work_ms: f64 = least.run_ms.iter().map(|ms| ms + dense.dispatch_ms).sum();
    least.start_ms + (work_ms / lanes - dense.dispatch_ms).max(0.0)
}

fn cost_usd(dense: &Dense) -> f64 {
    let prices = &dense.problem.platform.prices;
    let sizes = || 0..dense.size_count();
    let least = |f: &dyn Fn(u32) -> f64| sizes().map(f).fold(f64::INFINITY, f64::min);
    let lanes = f64::from(dense.lanes);
    let task_usd = |t: u32| {
        let allowed = sizes().filter(|&c| dense.allows(c, t));
        let life_ms = |c: u32| dense.exec_ms(c, t) + dense.upload_ms(c, t) + dense.dispatch_ms;
        let usd = allowed.map(|c| life_ms(c) / lanes * dense.size(c).usd_per_ms);
        usd.fold(f64::INFINITY, f64::min)
    };
    let tasks_usd: f64 = (0..dense.len()).map(task_usd).sum();
    let puts: u64 = dense.uploads.iter().map(|s| u64::from(s.objects)).sum();
    let objects = dense.graph.objects();
    let external = (0..objects.len() as u32)
        .filter(|&o| objects[o as usize].producer.is_none() && !dense.graph.consumers(o).is_empty());
    let get_usd =
        |o: u32| prices.get_usd + least(&|c| dense.download_ms(c, o) / lanes * dense.size(c).usd_per_ms);
    let external_usd: f64 = external.map(get_usd).sum();
    // A worker joins before its first task and leaves after its last: a start and two round trips.
    let start_usd =
        least(&|c| (dense.size(c).startup.cold_ms + 2.0 * dense.dispatch_ms) * dense.size(c).usd_per_ms);
    tasks_usd + puts as f64 * prices.put_usd + external_usd + start_usd + prices.request_usd
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(from_ms: f64, run_ms: f64, download_ms: f64, count: usize, lanes: f64) -> f64 {
        fan_in_ms(&mut vec![Inflow { from_ms, run_ms, download_ms }; count], lanes)
    }

    #[test]
    fn link_and_lanes_share_a_fan_in() {
        // Four inputs, 100 ms to make or 50 ms to fetch: 4/3 of them made here end with the 8/3 that are
        // fetched.
        assert!((split(100.0, 100.0, 50.0, 4, 1.0) - 400.0 / 3.0).abs() < 1e-9);
        // With two lanes twice as many can be made in the same time: 2 made, 2 fetched.
        assert!((split(100.0, 100.0, 50.0, 4, 2.0) - 100.0).abs() < 1e-9);
        // What comes from outside can only be fetched.
        assert!((split(10.0, f64::INFINITY, 50.0, 4, 1.0) - 210.0).abs() < 1e-9);
        assert_eq!(split(0.0, 0.0, 0.0, 0, 1.0), 0.0);
    }

    #[test]
    fn inputs_that_come_late_are_counted_from_when_they_come() {
        let early = Inflow { from_ms: 0.0, run_ms: 0.0, download_ms: 1.0 };
        let late = Inflow { from_ms: 1_000.0, run_ms: f64::INFINITY, download_ms: 50.0 };
        assert!(fan_in_ms(&mut [early, late], 1.0) >= 1_050.0);
    }
}

//! The earliest finish of every task over the DAG, with the least time of any size for every step.
//!
//! A task starts one round trip after its last parent at the earliest, and its downloads begin then: nothing
//! is fetched for a task before it starts. What it reads from the store is in its container already only if
//!
//! - the maker ran there before it: then the maker's time was spent on the container's lanes, or
//! - another reader ran there before it: then the task starts after that reader.
//!
//! For every moment up to which other readers may have come first, the best split of makers puts on the
//! lanes those that save most download per time (a fractional relaxation); the rest is added on the link.
//! The least over all moments holds. Besides, one lane and one link bring at most one thing at a time,
//! whoever asked for it; see `lane`. Where inputs would be fetched ahead of a task, lanes and link would
//! overlap and [`Inflows::end_ms`] would have to take the larger of both instead of their sum.

use crate::bounds::Least;
use crate::bounds::lane::Lane;
use crate::dense::Dense;

/// Moments up to which other readers may have come first, for which the split is computed.
const MOMENTS_MAX: usize = 8;

/// Earliest times in ms.
#[derive(Debug, Clone)]
pub(super) struct Earliest {
    /// Per task: its start.
    pub start_ms: Vec<f64>,
    /// Per task: its end.
    pub end_ms: Vec<f64>,
    /// Start of the first task of any.
    pub first_ms: f64,
}

impl Earliest {
    pub fn new(dense: &Dense, least: &Least) -> Self {
        let tasks = dense.len() as usize;
        let unknown = || vec![f64::INFINITY; tasks];
        // First without the downloads of objects that others read as well: when those may have come first
        // is known only then.
        let mut earliest = Self { start_ms: unknown(), end_ms: unknown(), first_ms: least.start_ms };
        let mut inflows = Inflows { lanes: f64::from(dense.lanes), ..Inflows::default() };
        earliest.pass(dense, least, &mut inflows, None);
        let has_shared = dense.objects.iter().any(|o| o.readers > 1);
        if has_shared {
            let before = earliest.clone();
            earliest.pass(dense, least, &mut inflows, Some(&before));
        }
        earliest
    }

    fn pass(&mut self, dense: &Dense, least: &Least, inflows: &mut Inflows, before: Option<&Self>) {
        for &t in dense.graph.order() {
            let parents = dense.graph.parents(t).iter();
            let ready_ms =
                parents.fold(least.start_ms, |ms, &p| ms.max(self.end_ms[p as usize] + dense.dispatch_ms));
            self.start_ms[t as usize] = ready_ms;
            let mut there_ms = ready_ms;
            if !dense.stored_reads(t).is_empty() {
                inflows.collect(dense, least, t, self, before);
                there_ms = inflows.end_ms(ready_ms).max(inflows.serial_ms());
                if dense.lanes == 1 {
                    there_ms = there_ms.max(inflows.lane.there_ms());
                }
            }
            self.end_ms[t as usize] = there_ms + least.run_ms[t as usize];
        }
    }

    /// When a task may at the earliest have brought an object into its container for one that starts later.
    fn brought_ms(&self, dense: &Dense, least: &Least, task: u32, download_ms: f64) -> f64 {
        let there_ms = self.start_ms[task as usize] + download_ms;
        // On one lane the other runs to its end first.
        if dense.lanes > 1 { there_ms } else { there_ms + least.run_ms[task as usize] + dense.dispatch_ms }
    }
}

/// One object that a task reads from the store.
#[derive(Debug, Clone, Copy)]
struct Inflow {
    /// Earliest start of the maker.
    from_ms: f64,
    /// Time on a lane if the maker runs in the same container; infinite for an external object, nothing for
    /// what the same maker has paid for already.
    run_ms: f64,
    /// Time on the link otherwise.
    download_ms: f64,
    /// From when on it may be there because of another reader.
    brought_ms: f64,
}

/// What one task reads from the store.
#[derive(Debug, Default)]
struct Inflows {
    lanes: f64,
    all: Vec<Inflow>,
    moments_ms: Vec<f64>,
    lane: Lane,
}

impl Inflows {
    fn collect(
        &mut self,
        dense: &Dense,
        least: &Least,
        task: u32,
        now: &Earliest,
        before: Option<&Earliest>,
    ) {
        self.all.clear();
        self.lane.clear();
        let mut last_maker = None;
        // The outputs of one maker stand side by side among the objects; where they do not among the reads
        // they count for several makers less than they cost, which keeps the bound low.
        for &object in dense.stored_reads(task) {
            let maker = dense.graph.objects()[object as usize].producer;
            let (from_ms, run_ms) = match maker {
                None => (least.start_ms, f64::INFINITY),
                Some(p) if last_maker == Some(p) => (now.start_ms[p as usize], 0.0),
                Some(p) => {
                    (now.start_ms[p as usize], (least.run_ms[p as usize] + dense.dispatch_ms) / self.lanes)
                }
            };
            last_maker = maker.or(last_maker);
            let outside = (least.start_ms, least.start_ms, f64::INFINITY);
            let maker_ms = maker.map_or(outside, |p| {
                let p = p as usize;
                (now.start_ms[p], now.end_ms[p], least.run_ms[p])
            });
            let download_ms = least.download_ms(dense, object);
            self.lane.add(maker, maker_ms, download_ms);
            let others = dense.graph.consumers(object).iter().filter(|&&u| u != task);
            let brought = others.map(|&u| before.map_or(0.0, |b| b.brought_ms(dense, least, u, download_ms)));
            let brought_ms = brought.fold(f64::INFINITY, f64::min);
            self.all.push(Inflow { from_ms, run_ms, download_ms, brought_ms });
        }
        // By how much download a maker in the same container saves per time on its lanes.
        let gain = |i: &Inflow| if i.run_ms > 0.0 { i.download_ms / i.run_ms } else { f64::INFINITY };
        self.all.sort_by(|a, b| gain(b).total_cmp(&gain(a)));
    }

    /// When all is there, for a task that starts at `ready_ms` at the earliest.
    fn end_ms(&mut self, ready_ms: f64) -> f64 {
        self.moments_ms.clear();
        let brought = self.all.iter().map(|i| i.brought_ms).filter(|ms| ms.is_finite());
        self.moments_ms.extend(brought.map(|ms| ms.max(ready_ms)));
        self.moments_ms.sort_by(f64::total_cmp);
        self.moments_ms.dedup();
        let step = self.moments_ms.len().div_ceil(MOMENTS_MAX).max(1);
        let mut least_ms = f64::INFINITY;
        let mut from_ms = ready_ms;
        // Between two moments: no earlier than the first, and nothing brought that is brought from the
        // second on.
        for until_ms in self.moments_ms.iter().copied().step_by(step).chain([f64::INFINITY]) {
            if from_ms >= least_ms {
                break;
            }
            least_ms = least_ms.min(self.split_ms(from_ms, until_ms));
            from_ms = until_ms;
        }
        least_ms
    }

    /// Whoever brings what: a container with one lane makes or fetches one input after another. With more
    /// lanes makers and the link overlap, at best by half.
    fn serial_ms(&mut self) -> f64 {
        let overlap = if self.lanes > 1.0 { 0.5 } else { 1.0 };
        // From the latest on: those that begin no earlier than a moment take their time after it.
        self.all.sort_by(|a, b| b.from_ms.total_cmp(&a.from_ms));
        let mut sum_ms = 0.0;
        let mut latest_ms = 0.0_f64;
        for inflow in &self.all {
            sum_ms += overlap * inflow.run_ms.min(inflow.download_ms);
            latest_ms = latest_ms.max(inflow.from_ms + sum_ms);
        }
        latest_ms
    }

    /// The best split of what is not brought before `until_ms` over lanes, before the task starts, and the
    /// link, after it has.
    fn split_ms(&self, ready_ms: f64, until_ms: f64) -> f64 {
        let rest = || self.all.iter().filter(|i| i.brought_ms >= until_ms);
        let base_ms =
            rest().filter(|i| i.run_ms.is_finite()).map(|i| i.from_ms).fold(f64::INFINITY, f64::min);
        let mut free_ms = (ready_ms - base_ms).max(0.0);
        let mut link_ms: f64 = rest().map(|i| i.download_ms).sum();
        let mut late_ms = 0.0;
        for inflow in rest().filter(|i| i.run_ms.is_finite()) {
            // On the lanes for nothing before the task is ready; later if it saves more than it takes.
            let part = if inflow.run_ms > free_ms { free_ms / inflow.run_ms } else { 1.0 };
            free_ms = (free_ms - inflow.run_ms).max(0.0);
            link_ms -= part * inflow.download_ms;
            if part < 1.0 && inflow.download_ms > inflow.run_ms {
                late_ms += (1.0 - part) * inflow.run_ms;
                link_ms -= (1.0 - part) * inflow.download_ms;
            } else if part < 1.0 {
                break;
            }
        }
        ready_ms + late_ms + link_ms.max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` inputs that are made from 0 on; the task is ready at `ready_ms`.
    fn end_ms(ready_ms: f64, run_ms: f64, download_ms: f64, brought_ms: f64, count: usize) -> f64 {
        let inflow = Inflow { from_ms: 0.0, run_ms, download_ms, brought_ms };
        let mut inflows = Inflows { lanes: 1.0, all: vec![inflow; count], ..Inflows::default() };
        inflows.end_ms(ready_ms)
    }

    #[test]
    fn what_is_not_made_in_the_same_container_is_fetched_after_the_start() {
        let own = f64::INFINITY;
        // One of four is made there until the task is ready, three are fetched.
        assert!((end_ms(100.0, 100.0, 50.0, own, 4) - 250.0).abs() < 1e-9);
        // Fetching takes longer than making: all are made one after another.
        assert!((end_ms(100.0, 100.0, 500.0, own, 4) - 400.0).abs() < 1e-9);
        // What comes from outside can only be fetched.
        assert!((end_ms(10.0, f64::INFINITY, 50.0, own, 4) - 210.0).abs() < 1e-9);
        assert_eq!(end_ms(70.0, 0.0, 0.0, own, 0), 70.0);
    }

    #[test]
    fn a_container_makes_or_fetches_one_thing_at_a_time() {
        let inflow = |from_ms, download_ms| Inflow { from_ms, run_ms: 100.0, download_ms, brought_ms: 0.0 };
        let all = vec![inflow(0.0, 30.0), inflow(500.0, 20.0), inflow(0.0, 400.0)];
        let mut inflows = Inflows { lanes: 1.0, all, ..Inflows::default() };
        assert!((inflows.serial_ms() - 520.0).abs() < 1e-9, "the late one decides");
        inflows.all.iter_mut().for_each(|i| i.from_ms = 0.0);
        assert!((inflows.serial_ms() - 150.0).abs() < 1e-9, "two are fetched, one is made");
    }

    #[test]
    fn another_reader_may_have_brought_what_is_shared() {
        let external = f64::INFINITY;
        assert!((end_ms(10.0, external, 50.0, 0.0, 4) - 10.0).abs() < 1e-9, "before the task is ready");
        assert!((end_ms(10.0, external, 50.0, 120.0, 4) - 120.0).abs() < 1e-9, "at 120 ms");
        assert!((end_ms(10.0, external, 50.0, 900.0, 4) - 210.0).abs() < 1e-9, "too late to help");
    }
}

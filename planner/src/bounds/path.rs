//! The earliest finish of every task over the DAG, with the least time of any size for every step.
//!
//! A task starts when its last parent has ended at the earliest: in the same worker it waits for nobody.
//! What it reads from the store may be in its container by then: because the maker ran there, on the
//! container's lanes, or because it was fetched ahead, over the container's link, for this task or for
//! another that reads it. A fetch begins one round trip after its maker has ended at the earliest. So whoever
//! asks for what, after every moment there is at least the time of the best split over lanes and link, or
//! over up-link and link, of all inputs that are made later; see `inflow`.

use crate::bounds::Least;
use crate::bounds::inflow::{Inflow, Supply};
use crate::dense::{Dense, NONE};

/// Most inputs of all makers of a task's inputs that are looked at.
const DEEP_READS_MAX: usize = 10_000;

/// Makers of a maker's inputs of which the one is looked for whose outputs take longest to fetch.
const SOURCES_MAX: usize = 32;

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
        let unknown = || vec![f64::INFINITY; dense.len() as usize];
        let mut earliest = Self { start_ms: unknown(), end_ms: unknown(), first_ms: least.start_ms };
        let mut inflow = Inflow::new(f64::from(dense.lanes), least.start_ms);
        let own_ms: Vec<f64> = (0..dense.len()).map(|t| own_ms(dense, least, t)).collect();
        // The task that a maker was last looked at for.
        let mut taken = vec![NONE; dense.len() as usize];
        let mut deep = Inflow::new(f64::from(dense.lanes), least.start_ms);
        for &t in dense.graph.order() {
            let parents = dense.graph.parents(t).iter();
            let ready_ms = parents.fold(least.start_ms, |ms, &p| ms.max(earliest.end_ms[p as usize]));
            earliest.start_ms[t as usize] = ready_ms;
            let mut there_ms = ready_ms;
            if !dense.stored_reads(t).is_empty() {
                earliest.collect(dense, least, (t, &own_ms), &mut inflow);
                there_ms = ready_ms.max(inflow.there_ms());
                if inflow.is_shared && is_small(dense, t) {
                    let of = (t, &own_ms[..], &mut taken[..]);
                    earliest.deepen(dense, least, of, (&inflow, &mut deep));
                    there_ms = there_ms.max(deep.split_ms());
                }
            }
            earliest.end_ms[t as usize] = there_ms + least.run_ms[t as usize];
        }
        earliest
    }

    /// The same inputs, where a maker that runs in the container has there as well what it reads of the one
    /// task whose outputs take longest to fetch, of another task each: fetched after that has ended, or made
    /// by it on a lane.
    fn deepen(
        &self,
        dense: &Dense,
        least: &Least,
        (task, own_ms, taken): (u32, &[f64], &mut [u32]),
        (inflow, deep): (&Inflow, &mut Inflow),
    ) {
        deep.clear();
        inflow.supplies().iter().filter_map(|s| s.maker).for_each(|maker| taken[maker as usize] = task);
        let mut sources: Vec<(f64, u32)> = Vec::new();
        for &supply in inflow.supplies() {
            let source = supply.maker.and_then(|maker| {
                sources.clear();
                for &o in dense.stored_reads(maker) {
                    let Some(from) = dense.maker(o) else { continue };
                    if taken[from as usize] == task {
                        continue;
                    }
                    let fetch_ms = least.download_ms(dense, o);
                    if let Some((sum_ms, _)) = sources.iter_mut().find(|(_, same)| *same == from) {
                        *sum_ms += fetch_ms;
                    } else if sources.len() < SOURCES_MAX {
                        sources.push((fetch_ms, from));
                    }
                }
                sources.iter().copied().max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)))
            });
            let Some((fetch_ms, from)) = source else {
                deep.add(supply);
                continue;
            };
            taken[from as usize] = task;
            let end_ms = self.end_ms[from as usize];
            deep.add(Supply {
                maker: supply.maker,
                begin_ms: supply.begin_ms.min(end_ms - least.run_ms[from as usize]),
                end_ms: supply.end_ms,
                run_ms: supply.run_ms + least.exec_ms[from as usize],
                store_ms: supply.store_ms + least.upload_ms[from as usize],
                fetch_from_ms: supply.fetch_from_ms.min(end_ms + dense.dispatch_ms),
                download_ms: supply.download_ms.min(fetch_ms),
                own_ms: own_ms[from as usize],
            });
        }
    }

    fn collect(&self, dense: &Dense, least: &Least, (task, own_ms): (u32, &[f64]), inflow: &mut Inflow) {
        inflow.clear();
        for &object in dense.stored_reads(task) {
            let download_ms = least.download_ms(dense, object);
            match dense.maker(object) {
                None => inflow.add(Supply::external(least.start_ms, download_ms)),
                Some(maker) => {
                    let p = maker as usize;
                    inflow.add(Supply {
                        maker: Some(maker),
                        begin_ms: self.end_ms[p] - least.run_ms[p],
                        end_ms: self.end_ms[p],
                        run_ms: least.exec_ms[p],
                        store_ms: least.upload_ms[p],
                        fetch_from_ms: self.end_ms[p] + dense.dispatch_ms,
                        download_ms,
                        own_ms: own_ms[p],
                    });
                }
            }
        }
    }
}

/// Time to fetch what comes from outside and nobody else reads.
fn own_ms(dense: &Dense, least: &Least, task: u32) -> f64 {
    let is_own = |&&o: &&u32| dense.maker(o).is_none() && dense.objects[o as usize].readers == 1;
    dense.stored_reads(task).iter().filter(is_own).map(|&o| least.download_ms(dense, o)).sum()
}

/// Whether the inputs of all makers of a task's inputs are few enough to be looked at.
fn is_small(dense: &Dense, task: u32) -> bool {
    let reads = dense.graph.parents(task).iter().map(|&p| dense.stored_reads(p).len());
    reads.sum::<usize>() <= DEEP_READS_MAX
}

//! What list scheduling looks up for every deadline alike: run times by task and size, and the least time
//! from a task to the end.

use foresail_schemas::run::RunOptions;

use crate::dense::{Dense, fetch};

/// What does not change between deadlines.
#[derive(Debug)]
pub(crate) struct Plane<'a> {
    pub dense: &'a Dense<'a>,
    pub linger_ms: f64,
    /// Per task: the least time from its end to the end of the workflow.
    pub tail_ms: Vec<f64>,
    /// Per task and size: exec and upload in ms; infinite where the size does not allow the task.
    run_ms: Vec<f64>,
    /// Per task: the useful sizes, the cheapest run first.
    by_cost: Vec<u8>,
}

impl<'a> Plane<'a> {
    pub fn new(dense: &'a Dense<'a>) -> Self {
        Self::of(dense, |_| true)
    }

    /// Where only tasks that are `open` are placed; of others nothing is looked up.
    pub fn of(dense: &'a Dense<'a>, open: impl Fn(u32) -> bool) -> Self {
        let sizes = dense.size_count() as usize;
        let mut run_ms = Vec::with_capacity(sizes * dense.len() as usize);
        let mut by_cost = Vec::with_capacity(run_ms.capacity());
        for t in 0..dense.len() {
            let from = run_ms.len();
            if !open(t) {
                run_ms.resize(from + sizes, f64::INFINITY);
                by_cost.resize(by_cost.len() + dense.useful.len(), 0);
                continue;
            }
            run_ms.extend((0..sizes as u32).map(|c| match dense.allows(c, t) {
                true => dense.exec_ms(c, t) + dense.upload_ms(c, t),
                false => f64::INFINITY,
            }));
            let usd = |c: u8| run_ms[from + usize::from(c)] * dense.sizes[usize::from(c)].usd_per_ms;
            let at = by_cost.len();
            by_cost.extend(dense.useful.iter().map(|&c| c as u8));
            by_cost[at..].sort_by(|&a, &b| usd(a).total_cmp(&usd(b)));
        }
        let mut tail_ms = vec![0.0_f64; dense.len() as usize];
        for &t in dense.graph.order().iter().rev().filter(|&&t| open(t)) {
            let below = dense.graph.children(t).iter().map(|&c| {
                let row = &run_ms[c as usize * sizes..(c as usize + 1) * sizes];
                let way_ms = crate::rank::way_ms(dense, c);
                tail_ms[c as usize] + row.iter().copied().fold(f64::INFINITY, f64::min) + way_ms
            });
            tail_ms[t as usize] = below.fold(dense.dispatch_ms / 2.0, f64::max);
        }
        Self { dense, linger_ms: RunOptions::default().linger_ms, tail_ms, run_ms, by_cost }
    }

    /// Exec and upload of a task on a size; infinite where the size does not allow it.
    pub fn run_ms(&self, task: u32, size: u32) -> f64 {
        self.run_ms[task as usize * self.dense.sizes.len() + size as usize]
    }

    /// Asks for what is looked up of a task.
    #[inline(always)]
    pub fn look_at(&self, task: u32) {
        fetch(&self.tail_ms, task as usize);
        fetch(&self.run_ms, task as usize * self.dense.sizes.len());
        fetch(&self.by_cost, task as usize * self.dense.useful.len());
    }

    /// The useful sizes, the cheapest run of the task first.
    pub fn by_cost(&self, task: u32) -> &[u8] {
        let sizes = self.dense.useful.len();
        &self.by_cost[task as usize * sizes..(task as usize + 1) * sizes]
    }
}

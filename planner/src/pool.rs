//! The serverful pool beside a platform: which tasks are routed there, and which of its workers runs them.
//!
//! A task is routed when no size of the menu can hold it: too little memory, or a life that its predicted
//! time, or its p99 over nine tenths, does not fit into. Everything else stays on the platform. The tasks
//! that are routed are bound to at most `workers_max` planned workers, so that no plan asks for more than
//! there are: a task follows its parent in the pool, where no other has done so, else it goes to the worker
//! with the least to do.
//!
//! Source: DEWE v3 (Jiang, Lee, Zomaya) sends long and large tasks to a local queue and the rest to
//! functions, by hand; here predicted times and the platform's limits decide.

use crate::assignment::Assignment;
use crate::dense::{Dense, NONE};

/// The size of the pool and what only it can run.
#[derive(Debug)]
pub(crate) struct Routed {
    pub size: u32,
    pub workers_max: u32,
    pub tasks: Vec<u32>,
    pub is_routed: Vec<bool>,
}

impl Routed {
    /// Nothing where the platform has no pool or no times are predicted for it. `dense` knows no pool yet, so
    /// that its size is asked about as one of the menu.
    pub fn new(dense: &Dense) -> Option<Self> {
        let pool = dense.problem.platform.pool?;
        let is_pool = |c: &u32| dense.size(*c).config.key() == pool.config().key();
        let size = (0..dense.size_count()).find(is_pool)?;
        let fits = |t: u32| (0..dense.size_count()).any(|c| c != size && dense.suits(c, t));
        let is_routed: Vec<bool> = (0..dense.len()).map(|t| !fits(t)).collect();
        let tasks = (0..dense.len()).filter(|&t| is_routed[t as usize]).collect();
        Some(Self { size, workers_max: pool.workers_max, tasks, is_routed })
    }
}

/// Why a task is routed, in words.
pub(crate) fn reason(dense: &Dense, task: u32) -> String {
    let menu: Vec<u32> = (0..dense.size_count()).filter(|&c| !dense.is_pool(c)).collect();
    let least = |of: &dyn Fn(u32) -> f64| menu.iter().map(|&c| of(c)).fold(f64::INFINITY, f64::min);
    let (needed_mb, life_ms) = (dense.memory_mb_min[task as usize], dense.problem.platform.life_ms_max);
    let largest_mb = menu.iter().map(|&c| dense.size(c).config.memory_mb).max().unwrap_or(0);
    if needed_mb > largest_mb {
        return format!("it needs {needed_mb} MB, the largest size of the menu has {largest_mb} MB");
    }
    let exec_ms = least(&|c| dense.exec_ms(c, task));
    if exec_ms > life_ms {
        return format!("it is predicted to take {exec_ms:.0} ms at best, a worker lives {life_ms:.0} ms");
    }
    let needed_ms = least(&|c| dense.life_needed_ms(c, task));
    if needed_ms > life_ms {
        return format!(
            "it is predicted to take {needed_ms:.0} ms at best with its start and transfers, a worker lives \
             {life_ms:.0} ms"
        );
    }
    let p99_ms = least(&|c| dense.p99_ms(c, task));
    format!(
        "it takes more than {p99_ms:.0} ms in one of a hundred executions at best, over 90 % of a worker's \
         life of {life_ms:.0} ms"
    )
}

/// What is said of the pool in the explanation of a plan; nothing where it is not used.
pub(crate) fn in_words(dense: &Dense) -> Option<String> {
    let pool = dense.pool.as_ref()?;
    let first = *pool.tasks.first()?;
    let of = |t: u32| &dense.problem.workflow.task(t).id;
    let others = match pool.tasks.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "`{}`{others} fit into no worker of the menu and run in the pool of {}: {}.",
        of(first),
        dense.size(pool.size).config,
        reason(dense, first)
    ))
}

impl Assignment {
    /// Binds the tasks of the pool to its workers, where they are not bound to so many already.
    pub fn seat(&mut self, dense: &Dense) {
        let Some(pool) = dense.pool.as_ref().filter(|pool| !pool.tasks.is_empty()) else { return };
        if self.is_seated(pool) {
            return;
        }
        let count = pool.workers_max.min(pool.tasks.len() as u32) as usize;
        let mut order = pool.tasks.clone();
        order.sort_by_key(|&t| self.rank[t as usize]);
        let mut load_ms = vec![0.0_f64; count];
        let mut place = vec![NONE; self.worker.len()];
        let mut is_followed = vec![false; self.worker.len()];
        for t in order {
            let is_free = |p: &&u32| place[**p as usize] != NONE && !is_followed[**p as usize];
            let parent = dense.graph.parents(t).iter().find(is_free).copied();
            let least = (0..count).min_by(|&a, &b| load_ms[a].total_cmp(&load_ms[b])).unwrap_or(0);
            let seat = parent.map_or(least, |p| place[p as usize] as usize);
            if let Some(p) = parent {
                is_followed[p as usize] = true;
            }
            load_ms[seat] += dense.exec_ms(pool.size, t);
            place[t as usize] = seat as u32;
            (self.worker[t as usize], self.size[t as usize]) = (self.workers + seat as u32, pool.size);
        }
        self.workers += count as u32;
    }

    fn is_seated(&self, pool: &Routed) -> bool {
        let mut workers: Vec<u32> = pool.tasks.iter().map(|&t| self.worker[t as usize]).collect();
        workers.sort_unstable();
        workers.dedup();
        workers.len() <= pool.workers_max as usize && workers.last() != Some(&NONE)
    }
}

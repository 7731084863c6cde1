//! The optimum of tiny workflows by trying everything: every way to give tasks to planned workers or to leave
//! them flexible, every size, every order. What the planners are judged by; tests alone use it.

use foresail_schemas::plan::{Objective, PlanSummary, Problem};

use crate::assignment::Assignment;
use crate::dense::{Dense, NONE};
use crate::objective::{Score, score};
use crate::timing::Timing;

#[path = "../tests/planner/drawn.rs"]
pub(crate) mod drawn;

/// Tries everything that is left to decide from `task` on.
struct All<'a> {
    dense: &'a Dense<'a>,
    timing: Timing<'a>,
    objective: Objective,
    bounds: (f64, f64),
    orders: Vec<Vec<u32>>,
    plan: Assignment,
    worker_sizes: Vec<u32>,
    best: Option<(Score, PlanSummary)>,
    tried: u64,
}

impl All<'_> {
    fn decide(&mut self, task: u32) {
        if task == self.dense.len() {
            return self.time();
        }
        let at = task as usize;
        for size in self.dense.useful.clone() {
            if !self.dense.allows(size, task) {
                continue;
            }
            self.plan.size[at] = size;
            self.plan.worker[at] = NONE;
            self.decide(task + 1);
            self.plan.worker[at] = self.worker_sizes.len() as u32;
            self.worker_sizes.push(size);
            self.decide(task + 1);
            self.worker_sizes.pop();
        }
        for worker in 0..self.worker_sizes.len() {
            let size = self.worker_sizes[worker];
            if self.dense.allows(size, task) {
                (self.plan.worker[at], self.plan.size[at]) = (worker as u32, size);
                self.decide(task + 1);
            }
        }
    }

    fn time(&mut self) {
        self.plan.workers = self.worker_sizes.len() as u32;
        for order in &self.orders {
            self.plan.rank.clone_from(order);
            let summary = self.timing.pass(&self.plan);
            let score = score(&self.objective, &summary, self.bounds);
            self.tried += 1;
            if self.best.as_ref().is_none_or(|(best, _)| score.is_better_than(best)) {
                self.best = Some((score, summary));
            }
        }
    }
}

fn permutations(len: usize) -> Vec<Vec<u32>> {
    if len == 0 {
        return vec![Vec::new()];
    }
    let with_last = |shorter: &Vec<u32>| -> Vec<Vec<u32>> {
        let put = |at: usize| {
            let mut longer = shorter.clone();
            longer.insert(at, len as u32 - 1);
            longer
        };
        (0..len).map(put).collect()
    };
    permutations(len - 1).iter().flat_map(with_last).collect()
}

/// The best that any plan can do, and how many were tried.
fn optimum(dense: &Dense, objective: Objective, bounds: (f64, f64)) -> (PlanSummary, u64) {
    let tasks = dense.len() as usize;
    let plan = Assignment::new(vec![NONE; tasks], vec![0; tasks], vec![0; tasks], 0);
    let (timing, orders) = (Timing::new(dense), permutations(tasks));
    let worker_sizes = Vec::new();
    let mut all = All { dense, timing, objective, bounds, orders, plan, worker_sizes, best: None, tried: 0 };
    all.decide(0);
    let (_, summary) = all.best.expect("at least the flexible plan was tried");
    (summary, all.tried)
}

/// A drawn problem with few tasks and two sizes.
fn tiny(seed: u64, tasks: usize) -> Problem {
    let mut problem = drawn::problem_of(seed, tasks..tasks + 1);
    let table = &mut problem.predictions;
    let sizes = table.configs.len();
    let kept = [sizes / 3, sizes - 1];
    let keep = |at: usize| kept.contains(&at);
    let mut at = 0..sizes;
    table.configs.retain(|_| at.next().is_some_and(keep));
    at = 0..sizes;
    table.exec_ms.retain(|_| at.next().is_some_and(keep));
    at = 0..sizes;
    table.transfer.retain(|_| at.next().is_some_and(keep));
    at = 0..sizes;
    table.startup.retain(|_| at.next().is_some_and(keep));
    problem
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anneal;
    use crate::bounds::Floor;
    use crate::search::Search;

    /// Problems per number of tasks in the normal test, and under `FORESAIL_PROOF=1`.
    const PROBLEMS: u64 = 30;
    const PROBLEMS_PROOF: u64 = 300;
    /// Effort of the search that is judged, in seconds.
    const EFFORT_S: f64 = 0.1;

    fn is_reached(found: f64, best: f64) -> bool {
        found <= best * (1.0 + 1e-6)
    }

    #[test]
    fn annealing_finds_the_optimum_of_tiny_workflows() {
        let proof = std::env::var("FORESAIL_PROOF").is_ok_and(|v| v == "1");
        let (count, most) = if proof { (PROBLEMS_PROOF, 6) } else { (PROBLEMS, 5) };
        let (mut hits, mut solved, mut tried, mut worst) = ([0_u32; 2], 0, 0, 1.0_f64);
        for seed in 0..count {
            for tasks in 3..most {
                let problem = tiny(seed * 10 + tasks as u64, tasks);
                let Ok(dense) = Dense::new(&problem) else { continue };
                solved += 1;
                for (objective, hit) in [Objective::Fastest, Objective::Cheapest].into_iter().zip(&mut hits) {
                    let floor = std::rc::Rc::new(Floor::new(&dense));
                    let mut search = Search::under(&dense, objective, &floor);
                    anneal::offer(&mut search, EFFORT_S);
                    let found = search.best().timed.summary;
                    let (best, plans) = optimum(&dense, objective, floor.pair());
                    tried += plans;
                    let in_time_usd = floor.cost_by(&dense, best.makespan_ms);
                    assert!(
                        best.cost_usd >= in_time_usd * (1.0 - 1e-9),
                        "seed {seed}: {best:?} {in_time_usd}"
                    );
                    let (found, best, least) = match objective {
                        Objective::Fastest => (found.makespan_ms, best.makespan_ms, floor.makespan_ms),
                        _ => (found.cost_usd, best.cost_usd, floor.cost_usd),
                    };
                    assert!(best >= least * (1.0 - 1e-9), "seed {seed}: {best} is below the bound {least}");
                    *hit += u32::from(is_reached(found, best));
                    worst = worst.max(found / best);
                }
            }
        }
        let part = |hits: u32| f64::from(hits) / f64::from(solved);
        println!(
            "{solved} workflows, {tried} plans: optimal time {:.1} %, optimal cost {:.1} %, worst {worst:.3}",
            100.0 * part(hits[0]),
            100.0 * part(hits[1])
        );
        assert!(part(hits[0]) >= 0.95 && part(hits[1]) >= 0.95, "{hits:?} of {solved}, worst {worst:.3}");
    }
}

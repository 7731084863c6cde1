//! `faasflow`: tasks that exchange much along the critical path share a worker.
//!
//! Every task begins as a group. Round by round the critical path is found, with the time of an edge = bytes
//! / bandwidth, [`LOCAL_SHARE`] of it inside a group; its edges are walked from the heaviest, and the first
//! whose ends lie in different groups that may be one is merged. It ends when none is. The groups are the
//! workers. What FaaSFlow places on nodes with room for several containers is placed here on workers that
//! run tasks one after another, so its limits become: tasks per group; the capacity of a worker, which is the
//! time that it lives; and its memory, of which the largest task of the group takes its part and outputs
//! that are kept for the group may take the rest.
//!
//! Groupings for several limits and sizes are timed, as many as the workflow allows. On a large workflow a
//! round merges several edges of its path, so that rounds times tasks stay bounded.
//!
//! Source: Li, Liu, Guo, et al.: FaaSFlow: Enable Efficient Workflow Execution for Function-as-a-Service,
//! ASPLOS 2022 (algorithm 1; FaaStore for the memory quota).

use foresail_schemas::plan::{Plan, Problem};

use crate::assignment::Assignment;
use crate::dense::{Dense, LIFE_SHARE, NONE};
use crate::error::PlanFailure;
use crate::planner::Planner;
use crate::rank;
use crate::search::{Search, plan_by};

/// Part of an edge's time that is left inside a group.
const LOCAL_SHARE: f64 = 1.0 / 15.0;
/// Most tasks per group, the most telling limit first.
const GROUP_TASKS_MAX: [u32; 3] = [12, 4, 48];
/// Tasks timed in all candidates together.
const TASKS_TIMED_MAX: u32 = 40_000;
/// Fewest candidates, however large the workflow.
const CANDIDATES_MIN: usize = 1;
/// Tasks that the critical paths of one grouping look at; beyond it a round merges more than one edge.
const TASKS_WALKED_MAX: u64 = 4_000_000;
/// Bytes of a MB as sizes of workers count it.
const MB: f64 = 1024.0 * 1024.0;

/// The planner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FaasFlow;

impl Planner for FaasFlow {
    fn name(&self) -> &'static str {
        "faasflow"
    }

    fn plan(&self, problem: &Problem) -> Result<Plan, PlanFailure> {
        plan_by(self.name(), problem, offer)
    }
}

/// Offers the groupings of sizes and limits, the default size first.
fn offer(search: &mut Search) {
    let dense = search.dense;
    let most = ((TASKS_TIMED_MAX / dense.len().max(1)) as usize).max(CANDIDATES_MIN);
    let default = dense.default_size();
    let others = dense.useful.iter().copied().filter(|&size| size != default);
    let sizes: Vec<u32> = std::iter::once(default).chain(others).collect();
    let pairs = GROUP_TASKS_MAX.iter().flat_map(|&limit| sizes.iter().map(move |&size| (limit, size)));
    for (limit, size) in pairs.take(most) {
        let rank = rank::places(&rank::by_urgency(dense, &rank::upward_ms(dense, size)));
        let worker = grouped(dense, size, limit);
        let label = format!("faasflow: groups of at most {limit} on workers of {}", dense.size(size).config);
        search.offer(label, Assignment::placed(dense, worker, size, rank));
    }
}

/// A group per task.
fn grouped(dense: &Dense, size: u32, tasks_max: u32) -> Vec<u32> {
    let mut groups = Groups::new(dense, size, tasks_max);
    let tasks = u64::from(dense.len());
    let merges_each = (tasks * tasks / TASKS_WALKED_MAX).max(1) as usize;
    loop {
        let mut path = groups.critical_path();
        // Of edges that weigh the same the first on the path goes first: the sort is stable.
        path.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        let merged = path.iter().filter(|edge| groups.merge(edge.from, edge.to)).take(merges_each);
        if merged.count() == 0 {
            return groups.numbered();
        }
    }
}

/// An edge of the critical path, with its time where its ends are apart.
#[derive(Debug, Clone, Copy)]
struct Edge {
    from: u32,
    to: u32,
    ms: f64,
}

/// What a group is and holds; read at its representative alone.
#[derive(Debug, Clone, Copy)]
struct Group {
    tasks: u32,
    /// Time of all its tasks, one after another.
    exec_ms: f64,
    /// Most memory that one of its tasks needs.
    memory_mb: u32,
    /// Outputs that somebody reads, in bytes.
    kept_bytes: f64,
}

/// Disjoint sets of tasks (Tarjan 1975, by path halving).
#[derive(Debug)]
struct Groups<'a> {
    dense: &'a Dense<'a>,
    size: u32,
    tasks_max: u32,
    parent: Vec<u32>,
    group: Vec<Group>,
    /// Time of every edge outside a group, in the order of the parents of every task.
    edges_ms: Vec<f64>,
    edges_from: Vec<u32>,
    reached_ms: Vec<f64>,
    before: Vec<u32>,
}

impl<'a> Groups<'a> {
    fn new(dense: &'a Dense<'a>, size: u32, tasks_max: u32) -> Self {
        let graph = dense.graph;
        let kept = |t: u32| {
            let read = graph.writes(t).iter().filter(|&&o| dense.objects[o as usize].readers > 0);
            read.map(|&o| dense.object_bytes(o) as f64).sum()
        };
        let group = |t: u32| Group {
            tasks: 1,
            exec_ms: dense.exec_ms(size, t),
            memory_mb: dense.memory_mb_min[t as usize],
            kept_bytes: kept(t),
        };
        let ms_per_byte = dense.size(size).transfer.download_ms_per_byte;
        let (mut edges_ms, mut edges_from) = (Vec::new(), vec![0]);
        let mut moved_ms = vec![0.0; dense.len() as usize];
        for t in 0..dense.len() {
            let reads = graph.reads(t).iter();
            let made = reads.filter_map(|&o| Some((graph.objects()[o as usize].producer?, o)));
            made.for_each(|(p, o)| moved_ms[p as usize] += dense.object_bytes(o) as f64 * ms_per_byte);
            edges_ms.extend(graph.parents(t).iter().map(|&p| std::mem::take(&mut moved_ms[p as usize])));
            edges_from.push(edges_ms.len() as u32);
        }
        Self {
            dense,
            size,
            tasks_max,
            parent: (0..dense.len()).collect(),
            group: (0..dense.len()).map(group).collect(),
            edges_ms,
            edges_from,
            reached_ms: vec![0.0; dense.len() as usize],
            before: vec![NONE; dense.len() as usize],
        }
    }

    fn find(&mut self, mut task: u32) -> u32 {
        while self.parent[task as usize] != task {
            let above = self.parent[self.parent[task as usize] as usize];
            self.parent[task as usize] = above;
            task = above;
        }
        task
    }

    /// The edges of the longest way through the workflow, first to last.
    fn critical_path(&mut self) -> Vec<Edge> {
        let graph = self.dense.graph;
        let mut last = NONE;
        for &t in graph.order() {
            let (own, mut from_ms, mut before) = (self.find(t), 0.0, NONE);
            for (at, &p) in graph.parents(t).iter().enumerate() {
                let edge_ms = self.edges_ms[self.edges_from[t as usize] as usize + at];
                let share = if self.find(p) == own { LOCAL_SHARE } else { 1.0 };
                let ms = self.reached_ms[p as usize] + share * edge_ms;
                if before == NONE || ms > from_ms {
                    (from_ms, before) = (ms, p);
                }
            }
            self.reached_ms[t as usize] = from_ms + self.dense.exec_ms(self.size, t);
            self.before[t as usize] = before;
            if last == NONE || self.reached_ms[t as usize] > self.reached_ms[last as usize] {
                last = t;
            }
        }
        let mut path = Vec::new();
        while let Some(&from) = self.before.get(last as usize).filter(|&&from| from != NONE) {
            let at = graph.parents(last).iter().position(|&p| p == from).unwrap_or(0);
            let ms = self.edges_ms[self.edges_from[last as usize] as usize + at];
            path.push(Edge { from, to: last, ms });
            last = from;
        }
        path.reverse();
        path
    }

    /// Makes one group of two where they may be one; says whether it did.
    fn merge(&mut self, from: u32, to: u32) -> bool {
        let (a, b) = (self.find(from), self.find(to));
        if a == b || !self.dense.allows(self.size, from) || !self.dense.allows(self.size, to) {
            return false;
        }
        let (one, other) = (self.group[a as usize], self.group[b as usize]);
        let both = Group {
            tasks: one.tasks + other.tasks,
            exec_ms: one.exec_ms + other.exec_ms,
            memory_mb: one.memory_mb.max(other.memory_mb),
            kept_bytes: one.kept_bytes + other.kept_bytes,
        };
        let config_mb = f64::from(self.dense.size(self.size).config.memory_mb);
        let is_within = both.tasks <= self.tasks_max
            && both.exec_ms <= LIFE_SHARE * self.dense.life_ms(self.size)
            && f64::from(both.memory_mb) + both.kept_bytes / MB <= config_mb;
        if is_within {
            // The larger keeps its name, so that ways to it stay short.
            let (root, leaf) = if one.tasks >= other.tasks { (a, b) } else { (b, a) };
            self.parent[leaf as usize] = root;
            self.group[root as usize] = both;
        }
        is_within
    }

    /// The groups numbered in the order of their first task.
    fn numbered(mut self) -> Vec<u32> {
        let tasks = self.dense.len();
        let (mut number, mut next) = (vec![NONE; tasks as usize], 0);
        let mut of = |t: u32| {
            let root = self.find(t) as usize;
            if number[root] == NONE {
                number[root] = next;
                next += 1;
            }
            number[root]
        };
        (0..tasks).map(&mut of).collect()
    }
}

#[cfg(test)]
mod tests {
    use foresail_schemas::plan::Objective;
    use foresail_schemas::workflow::{Input, Output, Task};

    use super::*;
    use crate::exhaustive::drawn;
    use crate::validate;

    fn with_output(mut task: Task, output: &str, bytes: u64) -> Task {
        task.outputs.push(Output { name: drawn::name(output), bytes: Some(bytes) });
        task
    }

    fn reading(mut task: Task, inputs: &[(&str, &str)]) -> Task {
        let input = |(id, output): &(&str, &str)| Input::task(drawn::name(id), drawn::name(output));
        task.inputs.extend(inputs.iter().map(input));
        task
    }

    /// a gives 100 MB to b and 10 MB to c, b gives 50 MB and c 1 MB to d, d gives 1 kB to e. All take 1 s; a
    /// MB takes 10 ms.
    fn problem() -> Problem {
        let of = |id| drawn::task(id, &[]);
        let mega = 1_000_000;
        let tasks = vec![
            with_output(with_output(of("a"), "b", 100 * mega), "c", 10 * mega),
            with_output(reading(of("b"), &[("a", "b")]), "d", 50 * mega),
            with_output(reading(of("c"), &[("a", "c")]), "d", mega),
            with_output(reading(of("d"), &[("b", "d"), ("c", "d")]), "e", 1_000),
            reading(of("e"), &[("d", "e")]),
        ];
        let mut problem = drawn::measured(drawn::workflow(tasks), drawn::local(), Objective::Fastest);
        let table = &mut problem.predictions;
        table.exec_ms.iter_mut().flatten().for_each(|ms| *ms = 1_000.0);
        table.transfer.iter_mut().for_each(|t| t.download_ms_per_byte = 1e-5);
        problem
    }

    fn check(problem: &Problem, tasks_max: u32, expect: [u32; 5]) {
        let dense = Dense::new(problem).unwrap();
        assert_eq!(grouped(&dense, 0, tasks_max), expect, "at most {tasks_max} tasks");
    }

    #[test]
    fn the_heaviest_edge_of_the_critical_path_is_merged_first_and_limits_hold() {
        let problem = problem();
        check(&problem, 1, [0, 1, 2, 3, 4]);
        // a-b-d-e is critical: a-b (1,000 ms), then b-d (500 ms) would be three, so d-e.
        check(&problem, 2, [0, 0, 1, 2, 2]);
        // a-b, b-d. Now a-b-d takes 3,100 ms, so a-c-d with 3,110 is critical; nothing may join three.
        check(&problem, 3, [0, 0, 1, 0, 2]);
        // As before, then a-c (100 ms), and no fifth.
        check(&problem, 4, [0, 0, 0, 0, 1]);
        check(&problem, 5, [0; 5]);
    }

    #[test]
    fn memory_and_life_of_a_worker_limit_a_group() {
        let mut problem = problem();
        let mut spec = problem.workflow.spec().clone();
        // a and b keep 160 MB; beside the 400 MB of d they do not fit into 442 MB, and c with 1 MB does.
        spec.tasks[3].memory_mb_min = Some(400);
        problem.workflow = spec.check().unwrap();
        check(&problem, 5, [0, 0, 1, 2, 2]);
        problem.predictions.exec_ms.iter_mut().flatten().for_each(|ms| *ms = 300_000.0);
        check(&problem, 5, [0, 0, 1, 2, 2]);
        problem.predictions.exec_ms.iter_mut().flatten().for_each(|ms| *ms = 500_000.0);
        check(&problem, 5, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn groups_become_the_workers_of_a_valid_plan() {
        let problem = problem();
        let plan = FaasFlow.plan(&problem).unwrap();
        validate(&problem, &plan).unwrap();
        let first = &plan.tasks[0].worker;
        assert!(first.is_some() && plan.tasks.iter().all(|t| t.worker == *first), "{:?}", plan.tasks);
    }

    #[test]
    fn the_limits_hold_where_a_round_merges_several_edges() {
        let problem = drawn::problem_of(3, 3_000..3_001);
        let dense = Dense::new(&problem).unwrap();
        let mut tasks = vec![0; dense.len() as usize];
        grouped(&dense, dense.default_size(), 12).into_iter().for_each(|g| tasks[g as usize] += 1);
        let largest = tasks.iter().max().copied();
        assert!(largest.is_some_and(|most| (2..=12).contains(&most)), "{largest:?}");
    }
}

//! Workflows of known shape and of any size, for tests, benches and the quality report.
//!
//! Each user takes what it needs.
//!
//! Times are at one vCPU in ms, sizes in bytes. Everything is a function of the arguments.

#![allow(dead_code)]

use foresail_planner::blind_table;
use foresail_schemas::plan::{Objective, Problem};
use foresail_schemas::platform::Platform;
use foresail_schemas::prediction::Basis;
use foresail_schemas::workflow::{Input, Output, Task, Work, WorkflowSpec};
use foresail_schemas::{ObjectName, Sla, Workflow};

/// A workflow in the making.
#[derive(Default)]
pub struct Builder {
    tasks: Vec<Task>,
}

impl Builder {
    /// Adds a task that reads the outputs of `parents` and says where it stands.
    pub fn add(&mut self, kind: &str, exec_ms: f64, output_bytes: u64, parents: &[usize]) -> usize {
        let name = kind.parse().expect("letters");
        let work = Work::Function { function: name, params: serde_json::Value::Null };
        let id = format!("{kind}-{}", self.tasks.len()).parse().expect("letters and digits");
        let mut task = Task::new(id, kind.parse().expect("letters"), work);
        task.hint.exec_ms = Some(exec_ms);
        task.outputs.push(Output { name: ObjectName::default(), bytes: Some(output_bytes) });
        for &parent in parents {
            let parent = self.tasks[parent].id.clone();
            task.inputs.push(Input::Task { task: parent, output: ObjectName::default() });
        }
        self.tasks.push(task);
        self.tasks.len() - 1
    }

    /// The workflow.
    pub fn build(self) -> Workflow {
        let name = "shape".parse().expect("letters");
        WorkflowSpec { name, description: None, tasks: self.tasks }.check().expect("edges go forward")
    }
}

/// A number in [0, 1) that looks drawn.
pub fn drawn(n: usize) -> f64 {
    let mut x = (n as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((x ^ (x >> 29)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Pairs of `leaves` numbers are added until one is left: `leaves - 1` tasks.
pub fn tree_reduction(leaves: usize, exec_ms: f64) -> Workflow {
    let mut all = Builder::default();
    let mut row: Vec<usize> = (0..leaves / 2).map(|_| all.add("add", exec_ms, 1000, &[])).collect();
    while row.len() > 1 {
        row = row.chunks(2).map(|pair| all.add("add", exec_ms, 1000, pair)).collect();
    }
    all.build()
}

/// C = A B in n x n blocks: n^3 products, n^2 sums.
pub fn gemm(n: usize, exec_ms: f64) -> Workflow {
    let (mut all, block) = (Builder::default(), 8_000_000);
    let mut blocks =
        |kind| -> Vec<usize> { (0..n * n).map(|_| all.add(kind, exec_ms, block, &[])).collect() };
    let (a, b) = (blocks("a"), blocks("b"));
    for i in 0..n {
        for j in 0..n {
            let product = |k: usize| all.add("product", exec_ms * 2.0, block, &[a[i * n + k], b[k * n + j]]);
            let products: Vec<usize> = (0..n).map(product).collect();
            all.add("sum", exec_ms * 0.5, block, &products);
        }
    }
    all.build()
}

/// Tall-skinny SVD: QR per block, QR of the stacked R, small SVD, U = Q U'.
pub fn svd(rows: usize, exec_ms: f64) -> Workflow {
    let (mut all, block) = (Builder::default(), 40_000_000);
    let loads: Vec<usize> = (0..rows).map(|_| all.add("load", exec_ms, 2 * block, &[])).collect();
    let factors: Vec<usize> = loads.iter().map(|&l| all.add("qr", exec_ms * 2.0, block, &[l])).collect();
    let stacked = all.add("stack", exec_ms, block / 4, &factors);
    let small = all.add("svd", exec_ms * 0.5, block / 4, &[stacked]);
    for &q in &factors {
        all.add("u", exec_ms, block, &[q, small]);
    }
    all.build()
}

/// Local QR of each shard, then a tree of QR of two stacked R.
pub fn tsqr(shards: usize, exec_ms: f64) -> Workflow {
    let mut all = Builder::default();
    let mut row: Vec<usize> = (0..shards).map(|_| all.add("qr", exec_ms * 4.0, 8_000_000, &[])).collect();
    while row.len() > 1 {
        row = row.chunks(2).map(|pair| all.add("merge", exec_ms, 8_000_000, pair)).collect();
    }
    all.build()
}

/// `stages` times a fork into `width` tasks of uneven length and a join.
pub fn fork_join(stages: usize, width: usize, exec_ms: f64) -> Workflow {
    let mut all = Builder::default();
    let mut last = all.add("split", exec_ms * 0.2, 1_000_000, &[]);
    for stage in 0..stages {
        let time = |at: usize| exec_ms * (0.2 + 1.8 * drawn(stage * width + at));
        let forks: Vec<usize> = (0..width).map(|at| all.add("fork", time(at), 1_000_000, &[last])).collect();
        last = all.add("join", exec_ms * 0.2, 1_000_000, &forks);
    }
    all.build()
}

/// Layers of `width` tasks that each read three objects of the layer before.
pub fn layered(depth: usize, width: usize, exec_ms: f64) -> Workflow {
    let mut all = Builder::default();
    for layer in 0..depth {
        for at in 0..width {
            let parent = |k: usize| (layer.wrapping_sub(1)) * width + (at * 7 + k * 13) % width;
            let mut parents: Vec<usize> = if layer == 0 { vec![] } else { (0..3).map(parent).collect() };
            parents.sort_unstable();
            parents.dedup();
            let time = exec_ms * (0.1 + 0.9 * drawn(layer * width + at));
            all.add(["f", "g", "h", "i", "j", "k", "l"][at % 7], time, 100_000, &parents);
        }
    }
    all.build()
}

/// AWS Lambda.
pub fn lambda() -> Platform {
    Platform::built_in().into_iter().find(|p| p.name.as_str() == "aws-lambda-x86").expect("it is built in")
}

/// The problem of a workflow whose kinds of task gain unequally from memory: per name a share that no vCPU
/// makes faster and a number of vCPUs that it can use.
pub fn problem(workflow: &Workflow, objective: Objective) -> Problem {
    let platform = lambda();
    let mut predictions = blind_table(workflow, &platform, Sla::MEDIAN);
    predictions.basis.fill(Basis::Exact);
    predictions.epoch = 1;
    for (t, task) in workflow.tasks().iter().enumerate() {
        let kind = task.name.as_str().bytes().fold(7_usize, |sum, b| sum.wrapping_mul(31) + usize::from(b));
        let (serial, vcpus) = (0.5 * drawn(kind), 1.0 + 2.0 * drawn(kind ^ 0x5bd1));
        let one_ms = task.hint.exec_ms.unwrap_or(platform.assumed.exec_ms);
        for (c, row) in predictions.exec_ms.iter_mut().enumerate() {
            let share = predictions.configs[c].cpu_share().min(vcpus);
            row[t] = one_ms * (serial + (1.0 - serial) / share);
        }
    }
    Problem { workflow: workflow.clone(), platform, predictions, objective, seed: 1 }
}

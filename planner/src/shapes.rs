//! Synthetic workflows of known shape: the graphs that serverless engines are compared on.
//!
//! Times are those of one vCPU in ms, sizes in bytes; both are functions of the parameters alone, what looks
//! drawn included. Sources: tree reduction, GEMM and SVD as in WUKONG (Carver et al., SoCC 2020), TSQR as in
//! numpywren (Shankar et al., SoCC 2020).

use std::fmt;
use std::str::FromStr;

use foresail_schemas::workflow::{Input, Output, Task, Work, WorkflowSpec};
use foresail_schemas::{ObjectName, TaskName, Workflow};

/// Most tasks of a shape.
pub const TASKS_MAX: usize = 1_000_000;

/// A shape with its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `tree:N`: N numbers are added pairwise until one is left, N - 1 tasks.
    Tree(usize),
    /// `gemm:N`: C = A B in N x N blocks, N^3 products and N^2 sums.
    Gemm(usize),
    /// `svd:N`: a tall-skinny SVD of N row blocks.
    Svd(usize),
    /// `tsqr:N`: a QR of each of N shards, then a tree of QR of two stacked R.
    Tsqr(usize),
    /// `fork-join:SxW`: S times a fork into W tasks of uneven length and a join.
    ForkJoin(usize, usize),
    /// `layered:LxW`: L layers of W tasks that each read up to three objects of the layer before.
    Layered(usize, usize),
}

/// The shapes with the parameters they have where none are given.
pub const DEFAULTS: [Shape; 6] = [
    Shape::Tree(1024),
    Shape::Gemm(5),
    Shape::Svd(20),
    Shape::Tsqr(64),
    Shape::ForkJoin(3, 40),
    Shape::Layered(10, 50),
];

/// A text is no shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a shape: use tree:N, gemm:N, svd:N, tsqr:N, fork-join:SxW or layered:LxW, with numbers \
     from 1 (tree from 2) and at most {TASKS_MAX} tasks"
)]
pub struct ShapeError(String);

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Tree(_) => "tree",
            Self::Gemm(_) => "gemm",
            Self::Svd(_) => "svd",
            Self::Tsqr(_) => "tsqr",
            Self::ForkJoin(..) => "fork-join",
            Self::Layered(..) => "layered",
        }
    }

    /// Tasks; nothing where there are too many to count.
    fn tasks(self) -> Option<usize> {
        match self {
            Self::Tree(n) => n.checked_sub(1),
            Self::Gemm(n) => n.checked_pow(3)?.checked_add(n.checked_pow(2)?.checked_mul(3)?),
            Self::Svd(n) => n.checked_mul(3)?.checked_add(2),
            Self::Tsqr(n) => n.checked_mul(2)?.checked_sub(1),
            Self::ForkJoin(stages, width) => stages.checked_mul(width.checked_add(1)?)?.checked_add(1),
            Self::Layered(depth, width) => depth.checked_mul(width),
        }
    }

    /// The workflow, named like the shape, with times that suit it.
    #[must_use]
    pub fn workflow(self) -> Workflow {
        self.workflow_of(match self {
            Self::Tree(_) => 1_000.0,
            Self::Gemm(_) | Self::Tsqr(_) => 10_000.0,
            Self::Svd(_) => 20_000.0,
            Self::ForkJoin(..) => 30_000.0,
            Self::Layered(..) => 60_000.0,
        })
    }

    /// The workflow, named like the shape; the times of its tasks are in proportion to `exec_ms`.
    #[must_use]
    pub fn workflow_of(self, exec_ms: f64) -> Workflow {
        let mut all = Builder::default();
        match self {
            Self::Tree(leaves) => all.merge(vec![None; leaves], "add", exec_ms, 1_000),
            Self::Gemm(n) => gemm(&mut all, n, exec_ms),
            Self::Svd(rows) => svd(&mut all, rows, exec_ms),
            Self::Tsqr(shards) => tsqr(&mut all, shards, exec_ms),
            Self::ForkJoin(stages, width) => fork_join(&mut all, stages, width, exec_ms),
            Self::Layered(depth, width) => layered(&mut all, depth, width, exec_ms),
        }
        let name = self.to_string().parse().expect("the names of shapes are legal names");
        let spec = WorkflowSpec { name, description: None, tasks: all.tasks, code: Default::default() };
        spec.check().expect("edges of shapes go forward, and there is at least one task")
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Tree(n) | Self::Gemm(n) | Self::Svd(n) | Self::Tsqr(n) => write!(f, "{}:{n}", self.name()),
            Self::ForkJoin(a, b) | Self::Layered(a, b) => write!(f, "{}:{a}x{b}", self.name()),
        }
    }
}

impl FromStr for Shape {
    type Err = ShapeError;

    fn from_str(text: &str) -> Result<Self, ShapeError> {
        let wrong = || ShapeError(text.to_owned());
        let (name, sizes) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
        let default = DEFAULTS.into_iter().find(|shape| shape.name() == name).ok_or_else(wrong)?;
        let Some(sizes) = sizes else { return Ok(default) };
        let number = |text: &str| text.parse::<usize>().ok().filter(|n| *n >= 1).ok_or_else(wrong);
        let pair = || {
            let (a, b) = sizes.split_once('x').ok_or_else(wrong)?;
            Ok::<_, ShapeError>((number(a)?, number(b)?))
        };
        let shape = match default {
            Self::Tree(_) => Self::Tree(number(sizes)?),
            Self::Gemm(_) => Self::Gemm(number(sizes)?),
            Self::Svd(_) => Self::Svd(number(sizes)?),
            Self::Tsqr(_) => Self::Tsqr(number(sizes)?),
            Self::ForkJoin(..) => pair().map(|(a, b)| Self::ForkJoin(a, b))?,
            Self::Layered(..) => pair().map(|(a, b)| Self::Layered(a, b))?,
        };
        shape.tasks().filter(|tasks| (1..=TASKS_MAX).contains(tasks)).map(|_| shape).ok_or_else(wrong)
    }
}

/// A workflow in the making.
#[derive(Default)]
struct Builder {
    tasks: Vec<Task>,
}

impl Builder {
    /// Adds a task that reads the outputs of `parents` and says where it stands.
    fn add(&mut self, kind: &str, exec_ms: f64, output_bytes: u64, parents: &[usize]) -> usize {
        let name = TaskName::new(kind).expect("kinds of task are letters");
        let work = Work::Function { function: name.clone(), params: Default::default() };
        let id = format!("{kind}-{}", self.tasks.len()).parse().expect("letters and digits are a legal id");
        let mut task = Task::new(id, name, work);
        task.hint.exec_ms = Some(exec_ms);
        task.outputs.push(Output { name: ObjectName::default(), bytes: Some(output_bytes) });
        for &parent in parents {
            let parent = self.tasks[parent].id.clone();
            task.inputs.push(Input::task(parent, ObjectName::default()));
        }
        self.tasks.push(task);
        self.tasks.len() - 1
    }

    /// Merges pairs of `row` until one is left; one without another waits for the next round. What is not
    /// made by a task is a number that is there.
    fn merge(&mut self, mut row: Vec<Option<usize>>, kind: &str, exec_ms: f64, output_bytes: u64) {
        while row.len() > 1 {
            let merged = row.chunks(2).map(|pair| match pair {
                [one] => *one,
                both => {
                    let parents: Vec<usize> = both.iter().copied().flatten().collect();
                    Some(self.add(kind, exec_ms, output_bytes, &parents))
                }
            });
            row = merged.collect();
        }
    }
}

/// A number in [0, 1) that looks drawn.
#[must_use]
pub fn drawn(n: u64) -> f64 {
    let mut x = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((x ^ (x >> 29)) >> 11) as f64 / (1_u64 << 53) as f64
}

fn gemm(all: &mut Builder, n: usize, exec_ms: f64) {
    let block = 8_000_000;
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
}

fn svd(all: &mut Builder, rows: usize, exec_ms: f64) {
    let block = 40_000_000;
    let loads: Vec<usize> = (0..rows).map(|_| all.add("load", exec_ms, 2 * block, &[])).collect();
    let factors: Vec<usize> = loads.iter().map(|&l| all.add("qr", exec_ms * 2.0, block, &[l])).collect();
    let stacked = all.add("stack", exec_ms, block / 4, &factors);
    let small = all.add("svd", exec_ms * 0.5, block / 4, &[stacked]);
    for &q in &factors {
        all.add("u", exec_ms, block, &[q, small]);
    }
}

fn tsqr(all: &mut Builder, shards: usize, exec_ms: f64) {
    let row = (0..shards).map(|_| Some(all.add("qr", exec_ms * 4.0, 8_000_000, &[]))).collect();
    all.merge(row, "merge", exec_ms, 8_000_000);
}

fn fork_join(all: &mut Builder, stages: usize, width: usize, exec_ms: f64) {
    let mut last = all.add("split", exec_ms * 0.2, 1_000_000, &[]);
    for stage in 0..stages {
        let time = |at: usize| exec_ms * (0.2 + 1.8 * drawn((stage * width + at) as u64));
        let forks: Vec<usize> = (0..width).map(|at| all.add("fork", time(at), 1_000_000, &[last])).collect();
        last = all.add("join", exec_ms * 0.2, 1_000_000, &forks);
    }
}

fn layered(all: &mut Builder, depth: usize, width: usize, exec_ms: f64) {
    for layer in 0..depth {
        for at in 0..width {
            let parent = |k: usize| (layer.wrapping_sub(1)) * width + (at * 7 + k * 13) % width;
            let mut parents: Vec<usize> = if layer == 0 { vec![] } else { (0..3).map(parent).collect() };
            parents.sort_unstable();
            parents.dedup();
            let time = exec_ms * (0.1 + 0.9 * drawn((layer * width + at) as u64));
            all.add(["f", "g", "h", "i", "j", "k", "l"][at % 7], time, 100_000, &parents);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_the_tasks_that_their_parameters_say() {
        for (text, tasks) in [
            ("tree:1024", 1023),
            ("tree", 1023),
            ("tree:7", 6),
            ("tsqr:5", 9),
            ("gemm:3", 27 + 27),
            ("svd:20", 62),
            ("tsqr:64", 127),
            ("fork-join:3x40", 124),
            ("layered:10x50", 500),
            ("layered:1x1", 1),
        ] {
            let shape: Shape = text.parse().unwrap();
            let workflow = shape.workflow();
            assert_eq!(workflow.tasks().len(), tasks, "{text}");
            assert_eq!(workflow.name().as_str(), shape.to_string(), "{text}");
            assert_eq!(shape.to_string().parse(), Ok(shape));
        }
        for shape in DEFAULTS {
            assert_eq!(shape.tasks(), Some(shape.workflow().tasks().len()), "{shape}");
        }
    }

    #[test]
    fn what_is_no_shape_is_refused() {
        for bad in ["", "star", "tree:0", "tree:1", "gemm:x", "fork-join:3", "layered:0x5", "gemm:1000000"] {
            assert!(bad.parse::<Shape>().is_err(), "{bad:?}");
        }
    }
}

//! Linear algebra in blocks: matrix product and tall-skinny SVD as in WUKONG (SoCC'20), QR by a tree as in
//! numpywren (SoCC'20), compressed SVD after Halko, Martinsson and Tropp (SIAM Review 2011).
//!
//! A block is `rows` and `columns` as little-endian u32 and then its numbers as little-endian f64, column by
//! column. Random blocks depend on their seed alone. The factorisations are nalgebra's. Sizes are far below
//! the published ones, so that a run fits a small machine; the number of tasks is not.

use bytes::Bytes;
use foresail_schemas::Workflow;
use foresail_worker::{Registry, TaskError, TaskInput, TaskOutput};
use nalgebra::DMatrix;
use serde::{Deserialize, Serialize};

use crate::builder::{BuildError, TaskHandle, WorkflowBuilder};

/// Rows and columns of a block of [`gemm`] and [`svd2`]; WUKONG's smallest has 1,000.
pub const BLOCK_SIDE: usize = 256;
/// Rows of a block of [`svd1`] and [`tsqr`]; published are 10,000 and 4,096.
pub const BLOCK_ROWS: usize = 1_024;
/// Columns of a block of [`svd1`] and [`tsqr`].
pub const BLOCK_COLUMNS: usize = 64;
/// Rank of the compressed SVD, as published.
pub const RANK: usize = 5;

type Matrix = DMatrix<f64>;

/// Parameters of `matrix.random`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomParams {
    /// Rows of the block.
    pub rows: usize,
    /// Columns of the block.
    pub columns: usize,
    /// What its numbers are drawn with.
    pub seed: u64,
}

/// Adds the functions that these workflows run.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry
        .register("matrix.random", |input| block(&random(input.params_as()?)))
        .register("matrix.multiply", |input| {
            let [a, b] = two(&input)?;
            block(&(fits(&a, &b)? * b))
        })
        .register("matrix.multiply-sum", multiply_sum)
        .register("matrix.transposed-multiply-sum", transposed_multiply_sum)
        .register("matrix.sum", |input| block(&sum(all(&input)?)?))
        .register("matrix.qr", |input| factors(stacked(all(&input)?)?))
        .register("matrix.qr-split", qr_split)
        .register("matrix.r", |input| {
            let matrix = stacked(all(&input)?)?;
            block(&tall(matrix)?.qr().r())
        })
        .register("matrix.svd", |input| svd(beside(all(&input)?)?))
}

/// C = A B in blocks: random blocks, n^3 products, n^2 sums.
pub(super) fn gemm(side: u64) -> Result<Workflow, BuildError> {
    let mut flow =
        WorkflowBuilder::new(format!("gemm@{side}")).description("Product of two matrices in blocks");
    let n = side as usize;
    let a = grid(&mut flow, "a", n, 1);
    let b = grid(&mut flow, "b", n, 1 + (n * n) as u64);
    for i in 0..n {
        for j in 0..n {
            let mut products = Vec::with_capacity(n);
            for k in 0..n {
                let task = flow.task(format!("multiply-{i}-{j}-{k}")).named("multiply");
                let task =
                    task.function("matrix.multiply", ()).output_of("out", bytes_of(BLOCK_SIDE, BLOCK_SIDE));
                products.push(task.reads(&a[i * n + k]).reads(&b[k * n + j]).handle());
            }
            let task = flow.task(format!("sum-{i}-{j}")).named("sum").function("matrix.sum", ());
            reads(task.output_of("out", bytes_of(BLOCK_SIDE, BLOCK_SIDE)), &products);
        }
    }
    flow.build()
}

/// SVD of a tall matrix: QR per block of rows, QR of the stacked R, SVD of what is left, U from the Qs.
pub(super) fn svd1(blocks: u64) -> Result<Workflow, BuildError> {
    let mut flow = WorkflowBuilder::new(format!("svd1@{blocks}"))
        .description("Singular values and vectors of a tall matrix in blocks of rows");
    let (rows, columns) = (BLOCK_ROWS, BLOCK_COLUMNS);
    let (tall, square) = (bytes_of(rows, columns), bytes_of(columns, columns));
    let mut local = Vec::new();
    for i in 0..blocks {
        let random = RandomParams { rows, columns, seed: i + 1 };
        let task = flow.task(format!("random-{i}")).named("random").function("matrix.random", random);
        let part = task.output_of("out", tall).handle();
        let task = flow.task(format!("qr-{i}")).named("qr").function("matrix.qr", ()).reads(&part);
        local.push(task.output_of("q", tall).output_of("r", square).handle());
    }
    let mut stack = flow.task("qr-stacked").function("matrix.qr-split", ());
    for part in &local {
        stack = stack.reads_output(part, "r");
    }
    for i in 0..blocks {
        stack = stack.output_of(format!("q-{i}"), square);
    }
    let stack = stack.output_of("r", square).handle();
    let task = flow.task("svd").function("matrix.svd", ()).reads_output(&stack, "r");
    let svd =
        task.output_of("u", square).output_of("s", bytes_of(columns, 1)).output_of("vt", square).handle();
    for (i, part) in local.iter().enumerate() {
        let small = flow.task(format!("rotate-{i}")).named("rotate").function("matrix.multiply", ());
        let small = small.reads_output(&stack, format!("q-{i}")).reads_output(&svd, "u");
        let small = small.output_of("out", square).handle();
        let task = flow.task(format!("u-{i}")).named("u").function("matrix.multiply", ());
        task.reads_output(part, "q").reads(&small).output_of("out", tall);
    }
    flow.build()
}

/// Compressed SVD: random projection, one power iteration, QR by a tree, SVD of the small rest.
pub(super) fn svd2(side: u64) -> Result<Workflow, BuildError> {
    let mut flow = WorkflowBuilder::new(format!("svd2@{side}"))
        .description("The largest singular values of a square matrix in blocks");
    let n = side as usize;
    let a = grid(&mut flow, "a", n, 1);
    let thin = bytes_of(BLOCK_SIDE, 2 * RANK);
    let mut basis = Vec::new();
    for j in 0..n {
        let random = RandomParams { rows: BLOCK_SIDE, columns: 2 * RANK, seed: 1_000_000 + j as u64 };
        let task = flow.task(format!("project-{j}")).named("project").function("matrix.random", random);
        basis.push(task.output_of("out", thin).handle());
    }
    // Y = A Omega, Z = A' Y, Y = A Z: a power iteration separates the singular values.
    for (step, function) in ["multiply-sum", "transposed-multiply-sum", "multiply-sum"].iter().enumerate() {
        let mut next = Vec::new();
        for i in 0..n {
            let name = format!("power-{}", step + 1);
            let mut task = flow.task(format!("{name}-{i}")).named(name);
            task = task.function(format!("matrix.{function}"), ()).output_of("out", thin);
            for (j, part) in basis.iter().enumerate() {
                let at = if step == 1 { j * n + i } else { i * n + j };
                task = task.reads(&a[at]).reads(part);
            }
            next.push(task.handle());
        }
        basis = next;
    }
    let task = flow.task("orthogonal").function("matrix.qr-split", ());
    let mut task = reads_all(task, &basis);
    for i in 0..n {
        task = task.output_of(format!("q-{i}"), thin);
    }
    let orthogonal = task.output_of("r", bytes_of(2 * RANK, 2 * RANK)).handle();
    let mut rest = Vec::new();
    for j in 0..n {
        let task = flow.task(format!("rest-{j}")).named("rest");
        let mut task = task.function("matrix.transposed-multiply-sum", ()).output_of("out", thin);
        for i in 0..n {
            task = task.reads_output(&orthogonal, format!("q-{i}")).reads(&a[i * n + j]);
        }
        rest.push(task.handle());
    }
    let task = flow.task("svd").function("matrix.svd", ());
    reads_all(task, &rest).outputs(["u", "s", "vt"]);
    flow.build()
}

/// R of a tall matrix: QR per block of rows, then of two stacked R at a time.
pub(super) fn tsqr(blocks: u64) -> Result<Workflow, BuildError> {
    let mut flow = WorkflowBuilder::new(format!("tsqr@{blocks}"))
        .description("The triangular factor of a tall matrix by a tree");
    let (rows, columns) = (BLOCK_ROWS, BLOCK_COLUMNS);
    let square = bytes_of(columns, columns);
    let mut level = Vec::new();
    for i in 0..blocks {
        let random = RandomParams { rows, columns, seed: i + 1 };
        let task = flow.task(format!("random-{i}")).named("random").function("matrix.random", random);
        let part = task.output_of("out", bytes_of(rows, columns)).handle();
        let task = flow.task(format!("r-0-{i}")).named("local-r").function("matrix.r", ());
        level.push(task.reads(&part).output_of("out", square).handle());
    }
    let mut depth = 0;
    while level.len() > 1 {
        depth += 1;
        let mut next = Vec::new();
        for (i, pair) in level.chunks(2).enumerate() {
            if pair.len() == 1 {
                next.extend_from_slice(pair);
                continue;
            }
            let task = flow.task(format!("r-{depth}-{i}")).named("merged-r").function("matrix.r", ());
            next.push(reads(task.output_of("out", square), pair));
        }
        level = next;
    }
    flow.build()
}

fn grid(flow: &mut WorkflowBuilder, name: &str, side: usize, seed: u64) -> Vec<TaskHandle> {
    let mut blocks = Vec::with_capacity(side * side);
    for at in 0..side * side {
        let params = RandomParams { rows: BLOCK_SIDE, columns: BLOCK_SIDE, seed: seed + at as u64 };
        let task = flow.task(format!("{name}-{}-{}", at / side, at % side)).named("random");
        let task = task.function("matrix.random", params).output_of("out", bytes_of(BLOCK_SIDE, BLOCK_SIDE));
        blocks.push(task.handle());
    }
    blocks
}

fn reads_all<'a>(
    task: crate::builder::TaskBuilder<'a>,
    parents: &[TaskHandle],
) -> crate::builder::TaskBuilder<'a> {
    parents.iter().fold(task, |task, parent| task.reads(parent))
}

fn reads(task: crate::builder::TaskBuilder<'_>, parents: &[TaskHandle]) -> TaskHandle {
    reads_all(task, parents).handle()
}

fn bytes_of(rows: usize, columns: usize) -> u64 {
    8 + 8 * (rows * columns) as u64
}

/// Uniform numbers in [-0.5, 0.5), by SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn random(RandomParams { rows, columns, seed }: RandomParams) -> Matrix {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
    };
    let numbers = (0..rows * columns).map(|_| next()).collect();
    Matrix::from_vec(rows, columns, numbers)
}

/// The block as bytes.
#[must_use]
pub fn encode(matrix: &DMatrix<f64>) -> Bytes {
    let mut bytes = Vec::with_capacity(bytes_of(matrix.nrows(), matrix.ncols()) as usize);
    bytes.extend_from_slice(&(matrix.nrows() as u32).to_le_bytes());
    bytes.extend_from_slice(&(matrix.ncols() as u32).to_le_bytes());
    matrix.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
    bytes.into()
}

/// The block that bytes are.
///
/// # Errors
/// A sentence when they are none.
pub fn decode(bytes: &[u8]) -> Result<DMatrix<f64>, String> {
    let size = |at: usize| {
        let word = bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes(word.try_into().ok()?) as usize)
    };
    let wrong = || format!("{} bytes are no block of a matrix", bytes.len());
    let (rows, columns) = size(0).zip(size(4)).ok_or_else(wrong)?;
    if bytes.len() as u64 != bytes_of(rows, columns) {
        return Err(wrong());
    }
    let numbers = bytes[8..].chunks_exact(8).map(|c| c.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)));
    Ok(Matrix::from_vec(rows, columns, numbers.map(f64::from_bits).collect()))
}

fn block(matrix: &Matrix) -> Result<TaskOutput, TaskError> {
    Ok(encode(matrix).into())
}

fn all(input: &TaskInput) -> Result<Vec<Matrix>, TaskError> {
    let named = input.inputs.iter().zip(&input.input_names);
    named
        .map(|(bytes, name)| decode(bytes).map_err(|e| TaskError::new(format!("input `{name}`: {e}"))))
        .collect()
}

fn two(input: &TaskInput) -> Result<[Matrix; 2], TaskError> {
    let count = input.inputs.len();
    let wrong = |_| TaskError::new(format!("a product has two factors, not {count}"));
    all(input)?.try_into().map_err(wrong)
}

/// `a`, where its product with `b` is defined.
fn fits(a: &Matrix, b: &Matrix) -> Result<Matrix, TaskError> {
    if a.ncols() != b.nrows() {
        return Err(TaskError::new(format!("{:?} and {:?} cannot be multiplied", a.shape(), b.shape())));
    }
    Ok(a.clone())
}

fn sum(matrices: Vec<Matrix>) -> Result<Matrix, TaskError> {
    let mut matrices = matrices.into_iter();
    let first = matrices.next().ok_or_else(|| TaskError::new("nothing to add"))?;
    matrices.try_fold(first, |sum, next| match sum.shape() == next.shape() {
        true => Ok(sum + next),
        false => Err(TaskError::new(format!("{:?} and {:?} cannot be added", sum.shape(), next.shape()))),
    })
}

/// The sum of the products of its inputs, two by two.
fn multiply_sum(input: TaskInput) -> Result<TaskOutput, TaskError> {
    products(&input, fits)
}

/// The same with every first factor transposed.
fn transposed_multiply_sum(input: TaskInput) -> Result<TaskOutput, TaskError> {
    products(&input, |a, b| fits(&a.transpose(), b))
}

fn products(
    input: &TaskInput,
    left: impl Fn(&Matrix, &Matrix) -> Result<Matrix, TaskError>,
) -> Result<TaskOutput, TaskError> {
    let factors = all(input)?;
    let products: Result<Vec<Matrix>, TaskError> =
        factors.chunks_exact(2).map(|pair| Ok(left(&pair[0], &pair[1])? * &pair[1])).collect();
    block(&sum(products?)?)
}

fn stacked(matrices: Vec<Matrix>) -> Result<Matrix, TaskError> {
    let columns = matrices.first().map_or(0, Matrix::ncols);
    if columns == 0 || matrices.iter().any(|m| m.ncols() != columns) {
        return Err(TaskError::new("blocks of different widths cannot be stacked"));
    }
    let mut whole = Matrix::zeros(matrices.iter().map(Matrix::nrows).sum(), columns);
    let mut row = 0;
    for part in &matrices {
        whole.rows_mut(row, part.nrows()).copy_from(part);
        row += part.nrows();
    }
    Ok(whole)
}

fn beside(matrices: Vec<Matrix>) -> Result<Matrix, TaskError> {
    Ok(stacked(matrices.iter().map(Matrix::transpose).collect())?.transpose())
}

fn tall(matrix: Matrix) -> Result<Matrix, TaskError> {
    match matrix.nrows() >= matrix.ncols() {
        true => Ok(matrix),
        false => Err(TaskError::new(format!("{:?} has fewer rows than columns", matrix.shape()))),
    }
}

fn factors(matrix: Matrix) -> Result<TaskOutput, TaskError> {
    let qr = tall(matrix)?.qr();
    Ok(vec![encode(&qr.q()), encode(&qr.r())].into())
}

/// QR of the stacked inputs; Q is cut again as the inputs were.
fn qr_split(input: TaskInput) -> Result<TaskOutput, TaskError> {
    let parts = all(&input)?;
    let rows: Vec<usize> = parts.iter().map(Matrix::nrows).collect();
    let qr = tall(stacked(parts)?)?.qr();
    let q = qr.q();
    let mut outputs = Vec::with_capacity(rows.len() + 1);
    let mut row = 0;
    for count in rows {
        outputs.push(encode(&q.rows(row, count).into_owned()));
        row += count;
    }
    outputs.push(encode(&qr.r()));
    Ok(outputs.into())
}

/// U, the singular values as a column, V transposed.
fn svd(matrix: Matrix) -> Result<TaskOutput, TaskError> {
    let svd = matrix.svd(true, true);
    let (Some(u), Some(vt)) = (&svd.u, &svd.v_t) else {
        return Err(TaskError::new("the singular vectors were not found"));
    };
    let values = Matrix::from_column_slice(svd.singular_values.len(), 1, svd.singular_values.as_slice());
    Ok(vec![encode(u), encode(&values), encode(vt)].into())
}

#[cfg(test)]
mod tests;

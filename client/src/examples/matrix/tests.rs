//! The workflows carried out in this process, against the same computed as a whole.

use std::collections::BTreeMap;

use super::*;
use crate::examples::reference;
use crate::functions::registry;

type Outputs = BTreeMap<(String, String), Bytes>;

fn outputs(workflow: &Workflow) -> Outputs {
    reference::all_outputs(workflow, &registry()).unwrap()
}

fn matrix(outputs: &Outputs, task: &str, name: &str) -> Matrix {
    decode(&outputs[&(task.to_owned(), name.to_owned())]).unwrap()
}

fn grid_of(outputs: &Outputs, name: &str, side: usize) -> Matrix {
    let row = |i| (0..side).map(|j| matrix(outputs, &format!("{name}-{i}-{j}"), "out")).collect();
    stacked((0..side).map(|i| beside(row(i)).unwrap()).collect()).unwrap()
}

fn assert_close(a: &Matrix, b: &Matrix) {
    let error = (a - b).norm() / b.norm();
    assert!(error < 1e-10, "relative error {error}");
}

#[test]
fn a_block_is_read_as_it_was_written_and_damage_is_found() {
    let block = random(RandomParams { rows: 3, columns: 2, seed: 1 });
    let bytes = encode(&block);
    assert_eq!(decode(&bytes).unwrap(), block);
    assert!(decode(&bytes[..bytes.len() - 1]).is_err() && decode(&[1, 2]).is_err());
}

#[test]
fn the_product_in_blocks_is_the_product() {
    let done = outputs(&gemm(2).unwrap());
    let (a, b, c) = (grid_of(&done, "a", 2), grid_of(&done, "b", 2), grid_of(&done, "sum", 2));
    assert_close(&c, &(a * b));
}

#[test]
fn the_factors_of_a_tall_matrix_give_it_back() {
    let done = outputs(&svd1(3).unwrap());
    let parts = |name: &str| stacked((0..3).map(|i| matrix(&done, &format!("{name}-{i}"), "out")).collect());
    let (u, s, vt) = (parts("u").unwrap(), matrix(&done, "svd", "s"), matrix(&done, "svd", "vt"));
    let whole = &u * Matrix::from_diagonal(&s.column(0)) * vt;
    assert_close(&whole, &parts("random").unwrap());
    assert_close(&(u.transpose() * &u), &Matrix::identity(BLOCK_COLUMNS, BLOCK_COLUMNS));
}

#[test]
fn the_triangular_factor_of_the_tree_is_that_of_the_whole() {
    let done = outputs(&tsqr(5).unwrap());
    let a = stacked((0..5).map(|i| matrix(&done, &format!("random-{i}"), "out")).collect()).unwrap();
    let r = matrix(&done, "r-3-0", "out");
    assert_close(&(r.transpose() * &r), &(a.transpose() * &a));
}

#[test]
fn the_compressed_values_are_no_larger_than_the_exact_ones_and_near_them() {
    let done = outputs(&svd2(2).unwrap());
    let exact = grid_of(&done, "a", 2).singular_values();
    let found = matrix(&done, "svd", "s");
    for k in 0..RANK {
        let ratio = found[(k, 0)] / exact[k];
        assert!((0.75..=1.0 + 1e-9).contains(&ratio), "value {k}: {ratio}");
    }
}

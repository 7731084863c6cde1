//! Upward ranks: the longest way from the start of a task to the end of the workflow.
//!
//! Source: HEFT (Topcuoglu, Hariri, Wu, TPDS 2002), with the times of one size and the transfers of that
//! size.

use crate::dense::Dense;

/// Per task: time from its start to the end of the workflow, every task on its own worker of `size`.
pub(crate) fn upward_ms(dense: &Dense, size: u32) -> Vec<f64> {
    let mut upward_ms = vec![0.0; dense.len() as usize];
    for &t in dense.graph.order().iter().rev() {
        let own_ms = dense.exec_ms(dense.size_for(size, t), t) + dense.upload_ms(size, t);
        let below = dense.graph.children(t).iter().map(|&c| upward_ms[c as usize] + way_ms(dense, c));
        let below_ms = below.fold(0.0, f64::max);
        let stored = dense.uploads[t as usize];
        let transfer = &dense.size(size).transfer;
        let moved_ms = match below_ms > 0.0 && stored.objects > 0 {
            true => transfer.download_latency_ms + stored.bytes as f64 * transfer.download_ms_per_byte,
            false => 0.0,
        };
        upward_ms[t as usize] = own_ms + moved_ms + below_ms;
    }
    upward_ms
}

/// As [`upward_ms`], with the mean over the useful sizes of every time.
pub(crate) fn mean_upward_ms(dense: &Dense) -> Vec<f64> {
    let mut mean_ms = vec![0.0; dense.len() as usize];
    for &size in &dense.useful {
        let ms = upward_ms(dense, size);
        mean_ms.iter_mut().zip(ms).for_each(|(sum, ms)| *sum += ms / dense.useful.len() as f64);
    }
    mean_ms
}

/// Ascending tasks by rank, those of one rank ascending.
pub(crate) fn by_rank(tasks: impl Iterator<Item = u32>, rank: &[u32]) -> Vec<u32> {
    let mut tasks: Vec<u32> = tasks.collect();
    let mut at = vec![0_u32; rank.len() + 1];
    for &t in &tasks {
        match at.get_mut(rank[t as usize] as usize + 1) {
            Some(count) => *count += 1,
            // Ranks that do not count tasks may be any numbers.
            None => {
                tasks.sort_by_key(|&t| rank[t as usize]);
                return tasks;
            }
        }
    }
    for next in 1..at.len() {
        at[next] += at[next - 1];
    }
    let mut sorted = vec![0; tasks.len()];
    for t in tasks {
        let at = &mut at[rank[t as usize] as usize];
        sorted[*at as usize] = t;
        *at += 1;
    }
    sorted
}

/// The tasks, the longest way to the end first; a parent always stands before its children.
pub(crate) fn by_urgency(dense: &Dense, upward_ms: &[f64]) -> Vec<u32> {
    let mut place = vec![0_u32; upward_ms.len()];
    for (at, &t) in dense.graph.order().iter().enumerate() {
        place[t as usize] = at as u32;
    }
    let mut tasks: Vec<u32> = dense.graph.order().to_vec();
    tasks.sort_by(|&a, &b| {
        let (a, b) = (a as usize, b as usize);
        upward_ms[b].total_cmp(&upward_ms[a]).then(place[a].cmp(&place[b]))
    });
    tasks
}

/// The place of every task in `order`.
pub(crate) fn places(order: &[u32]) -> Vec<u32> {
    let mut rank = vec![0; order.len()];
    for (at, &t) in order.iter().enumerate() {
        rank[t as usize] = at as u32;
    }
    rank
}

/// How long a task waits at least, after its last parent, for what its worker is told or asks: not at all
/// where it has one parent and runs where that did, else most likely for the answer of its lease.
pub(crate) fn way_ms(dense: &Dense, task: u32) -> f64 {
    if dense.graph.parents(task).len() > 1 { dense.dispatch_ms } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_sorted_by_rank_whatever_numbers_ranks_are() {
        for (rank, expected) in [
            ([3, 0, 2, 1], [1, 3, 2, 0]),
            ([1, 0, 1, 0], [1, 3, 0, 2]),
            ([70, u32::MAX, 70, 9], [3, 0, 2, 1]),
        ] {
            assert_eq!(by_rank(0..4, &rank), expected, "{rank:?}");
        }
        assert_eq!(by_rank([0, 2].into_iter(), &[3, 0, 2]), [2, 0]);
    }
}

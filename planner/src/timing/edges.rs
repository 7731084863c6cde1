//! The in-edge sets of a run in short: what is missing per task, since when it is ready, and whose commit
//! made it so.

use foresail_schemas::graph::Graph;

use crate::dense::NONE;

/// Who takes a child that became ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The worker that finished its last parent: it is planned there.
    Mine,
    /// Another worker, which lives and hears of it.
    Hinted,
    /// Another worker, which must be started.
    Absent,
    /// Any worker of its size.
    Flexible,
}

/// The in-edge sets.
#[derive(Debug)]
pub(crate) struct Edges {
    missing: Vec<u32>,
    ready_ms: Vec<f64>,
    filled_by: Vec<u32>,
}

impl Edges {
    pub fn new(graph: &Graph) -> Self {
        let missing = (0..graph.len() as u32).map(|t| graph.parents(t).len() as u32).collect();
        Self { missing, ready_ms: vec![f64::INFINITY; graph.len()], filled_by: vec![NONE; graph.len()] }
    }

    pub fn make_ready(&mut self, task: u32, filled_by: u32, now_ms: f64) {
        self.ready_ms[task as usize] = now_ms;
        self.filled_by[task as usize] = filled_by;
    }

    /// Marks an edge; true when it was the last that was missing.
    pub fn arrive(&mut self, child: u32, parent: u32, now_ms: f64) -> bool {
        let missing = &mut self.missing[child as usize];
        *missing -= 1;
        let fills = *missing == 0;
        if fills {
            self.make_ready(child, parent, now_ms);
        }
        fills
    }

    pub fn is_ready(&self, task: u32) -> bool {
        self.ready_ms[task as usize].is_finite()
    }

    pub fn ready_ms(&self, task: u32) -> f64 {
        self.ready_ms[task as usize]
    }

    /// The parent that came last.
    pub fn filled_by(&self, task: u32) -> u32 {
        self.filled_by[task as usize]
    }
}

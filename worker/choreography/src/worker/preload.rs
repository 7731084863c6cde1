//! Pre-load: inputs of tasks that have not begun are fetched as soon as they exist, while others run.
//!
//! What has a result already is asked for in the request of the join and fetched when that is answered, in
//! order of the tasks' ranks; of later results the machine hears by hints. Fetching is the host's: it moves
//! one object at a time and nothing twice, and an attempt that begins meanwhile waits for what is on its way.

use std::collections::{BTreeMap, BTreeSet};

use foresail_schemas::graph::Graph;
use foresail_schemas::run::{Commit, Operation};

use super::{Phase, Worker};
use crate::plan_view::PlanView;
use crate::protocol::Action;

/// What is fetched beforehand, for whom.
#[derive(Debug, Clone, Default)]
pub(super) struct PreLoads {
    /// Tasks of this worker with pre-load, by rank.
    tasks: Vec<u32>,
    /// Those that read each parent, by rank.
    readers: BTreeMap<u32, Vec<u32>>,
    /// Parents whose result is known.
    known: BTreeSet<u32>,
    /// Results heard of before the join was answered, at most one per parent.
    early: BTreeMap<u32, Commit>,
}

impl PreLoads {
    pub fn of(graph: &Graph, plan: &PlanView, mine: &[u32]) -> Self {
        let mut tasks: Vec<u32> = mine.iter().copied().filter(|&t| plan.is_preloaded(t)).collect();
        tasks.sort_by_key(|&task| (plan.rank(task), task));
        // In a short life this is the most of the work: sorted once instead of looked up for every input.
        let pairs = (0_u32..).zip(&tasks);
        let pairs = pairs.flat_map(|(at, &task)| read_parents(graph, task).map(move |p| (p, at, task)));
        let mut pairs: Vec<(u32, u32, u32)> = pairs.collect();
        pairs.sort_unstable();
        pairs.dedup();
        let rows = pairs.chunk_by(|a, b| a.0 == b.0);
        let readers = rows.map(|row| (row[0].0, row.iter().map(|&(_, _, task)| task).collect())).collect();
        Self { tasks, readers, ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

/// The parents whose outputs a task reads, in the order of its inputs.
fn read_parents(graph: &Graph, task: u32) -> impl Iterator<Item = u32> {
    graph.reads(task).iter().filter_map(|&object| graph.objects()[object as usize].producer)
}

fn reads_from_outside(graph: &Graph, task: u32) -> bool {
    graph.reads(task).iter().any(|&object| graph.objects()[object as usize].producer.is_none())
}

impl Worker {
    /// Asks which parents of tasks with pre-load have a result.
    pub(super) fn ask_for_commits(&mut self) {
        if !self.preloads.is_empty() {
            let tasks = self.preloads.readers.keys().copied().collect();
            self.outbox.push(Operation::Commits { tasks });
        }
    }

    /// What can be fetched at once, in order of rank.
    pub(super) fn commits_known(
        &mut self,
        tasks: &[u32],
        commits: Vec<Option<Commit>>,
        out: &mut Vec<Action>,
    ) {
        if self.phase != Phase::Working {
            return;
        }
        let mut known = std::mem::take(&mut self.preloads.early);
        let found = tasks.iter().copied().zip(commits);
        known.extend(found.filter_map(|(task, commit)| Some((task, commit?))));
        self.preloads.known.extend(known.keys());
        known.retain(|_, commit| commit.instance != self.settings.instance);
        for &task in &self.preloads.tasks {
            if !self.mine.contains(&task) || self.runs(task) {
                continue;
            }
            let mut seen = BTreeSet::new();
            let parents: Vec<(u32, Commit)> = read_parents(&self.graph, task)
                .filter(|&parent| seen.insert(parent))
                .filter_map(|parent| Some((parent, known.get(&parent)?.clone())))
                .collect();
            if !parents.is_empty() || reads_from_outside(&self.graph, task) {
                out.push(Action::PreLoad { task, parents });
            }
        }
    }

    /// A parent got its result. One that was made here is in memory already.
    pub(super) fn committed(&mut self, parent: u32, commit: Commit, out: &mut Vec<Action>) {
        let Some(readers) = self.preloads.readers.get(&parent) else { return };
        match self.phase {
            Phase::Joining => {
                self.preloads.early.insert(parent, commit);
            }
            Phase::Working if self.preloads.known.insert(parent) => {
                if commit.instance == self.settings.instance {
                    return;
                }
                for &task in readers {
                    if self.mine.contains(&task) && !self.runs(task) {
                        out.push(Action::PreLoad { task, parents: vec![(parent, commit.clone())] });
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether a parent is known to have a result.
    pub(super) fn is_known_committed(&self, task: u32) -> bool {
        self.preloads.known.contains(&task)
    }
}

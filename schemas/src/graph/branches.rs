//! Which tasks decide, which wait for a decision, and which edges a child can do without.

use std::collections::{HashMap, HashSet};

use crate::decision::{Condition, Wanted};
use crate::id::TaskId;
use crate::workflow::{Input, Task};

/// What the graph knows of decisions; empty where no task decides.
#[derive(Debug, Clone, Default)]
pub(super) struct Branches {
    pub deciders: HashSet<u32>,
    /// By task: who decides whether it runs, and what is wanted.
    pub conditions: HashMap<u32, (u32, Wanted)>,
    /// Edges from a parent to a child that only has optional inputs from it.
    pub optional: HashSet<(u32, u32)>,
}

impl Branches {
    /// Of tasks whose references are known to lead somewhere.
    pub fn of(tasks: &[Task], index: &HashMap<TaskId, u32>) -> Self {
        let mut branches = Self::default();
        for (at, task) in (0..).zip(tasks) {
            if task.decision.is_some() {
                branches.deciders.insert(at);
            }
            if let Some(Condition { task: decider, wanted }) = &task.when {
                branches.conditions.insert(at, (index[decider], wanted.clone()));
            }
            branches.add_optional(at, task, index);
        }
        branches
    }

    fn add_optional(&mut self, at: u32, task: &Task, index: &HashMap<TaskId, u32>) {
        let has_optional = |input: &Input| matches!(input, Input::Task { optional: true, .. });
        if !task.inputs.iter().any(has_optional) {
            return;
        }
        let parents = |wanted: bool| {
            task.inputs.iter().filter_map(move |input| match input {
                Input::Task { task: parent, optional, .. } if *optional == wanted => Some(parent),
                _ => None,
            })
        };
        self.optional.extend(parents(true).map(|parent| (index[parent], at)));
        let needed = parents(false).chain(&task.after).chain(task.when.as_ref().map(|when| &when.task));
        for parent in needed {
            self.optional.remove(&(index[parent], at));
        }
    }
}

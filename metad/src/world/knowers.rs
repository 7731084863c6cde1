//! Which workflows know a task, by its name: whom to ask for a prior.
//!
//! A copy shares all but the path to what is changed in it. The workflows of a name are at most
//! [`KNOWERS_MAX`], so that neither a question nor a new workflow looks at more of them, however many have
//! the name: those with the most records when the last of them came.

use std::sync::Arc;

use foresail_schemas::TaskName;
use rpds::HashTrieMapSync;

/// Most workflows that are listed for one task name.
pub const KNOWERS_MAX: usize = 64;

/// Numbers of workflows by task name.
#[derive(Debug, Clone, Default)]
pub struct Knowers(HashTrieMapSync<TaskName, Arc<[u32]>>);

impl Knowers {
    /// Notes that a workflow has learnt a task. Where the list of the name is full, it takes the place of the
    /// one with the fewest records, if it has more.
    pub fn note(&mut self, task: &TaskName, workflow: u32, records: impl Fn(u32) -> u64) {
        let mut listed = self.of(task).to_vec();
        if listed.contains(&workflow) {
            return;
        }
        if listed.len() < KNOWERS_MAX {
            listed.push(workflow);
        } else {
            let fewest = listed.iter_mut().min_by_key(|number| records(**number));
            match fewest {
                Some(fewest) if records(*fewest) < records(workflow) => *fewest = workflow,
                _ => return,
            }
        }
        self.0.insert_mut(task.clone(), listed.into());
    }

    /// The workflows that are listed for a task.
    pub fn of(&self, task: &TaskName) -> &[u32] {
        self.0.get(task).map_or(&[], |listed| listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_all_have_lists_those_with_the_most_records() {
        let (mut knowers, task) = (Knowers::default(), TaskName::new("count").unwrap());
        let last = 3 * KNOWERS_MAX as u32;
        for workflow in 0..last {
            // 7 has no divisor in common with the range: every number of records comes once.
            knowers.note(&task, workflow, |number| u64::from(number * 7 % last));
        }
        let mut listed: Vec<u32> = knowers.of(&task).iter().map(|number| number * 7 % last).collect();
        listed.sort_unstable();
        assert_eq!(listed, (last - KNOWERS_MAX as u32..last).collect::<Vec<_>>());
        knowers.note(&task, 1, |_| 0);
        assert_eq!(knowers.of(&task).len(), KNOWERS_MAX);
        assert!(knowers.of(&TaskName::new("other").unwrap()).is_empty());
    }
}

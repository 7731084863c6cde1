//! Outputs that a worker keeps in memory instead of storing them.

use foresail_choreography::Event;
use foresail_schemas::run::Location;

use super::World;

impl World<'_> {
    pub(super) fn may_hold(&mut self, id: usize, task: u32, bytes_min: Option<u64>) {
        match bytes_min {
            Some(bytes_min) => drop(self.holds.insert((id, task), bytes_min)),
            None => drop(self.holds.remove(&(id, task))),
        }
    }

    /// Keeps what is large enough; false where it has to be stored.
    pub(super) fn hold(&mut self, id: usize, task: u32, attempt: u32) -> bool {
        let Some(bytes_min) = self.holds.remove(&(id, task)) else { return false };
        let bytes: u64 = self.graph.writes(task).iter().map(|&o| self.dense.object_bytes(o)).sum();
        let node = &self.nodes[id];
        if bytes < bytes_min || node.machine.is_none() || self.stopped.contains(&(id, task)) {
            return false;
        }
        let (now_ms, size, container) = (self.agenda.now_ms, node.size, node.container);
        self.moved.made(self.dense, container, task, now_ms);
        self.end_ms[task as usize] = now_ms;
        self.held.insert((id, task));
        let executed = self.executed(size, task, Location::Unstored(String::new()));
        self.deliver(id, Event::Held { task, attempt, executed });
        true
    }
}

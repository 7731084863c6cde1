//! One worker that dies without a word while it runs a task, and when that is noticed.

use std::collections::BTreeSet;

use foresail_schemas::WorkerId;
use foresail_schemas::run::Operation;
use rand::RngExt;

use super::{Happening, World};

/// The death of the first worker.
#[derive(Default)]
pub(super) struct Death {
    machine: Option<u64>,
    /// Its last heartbeat, or its last lease.
    heard_ms: f64,
    /// What it ran when it died.
    tasks: Vec<u32>,
    noticed_ms: Option<f64>,
}

impl World {
    /// The first worker that runs a task dies while it does.
    pub fn with_a_death(mut self) -> Self {
        self.death = Some(Death::default());
        self
    }

    /// How long after the end of its leases somebody took care of the tasks of the dead worker, in ms;
    /// nothing where it had none when it died.
    pub fn noticed_after_ms(&self) -> Option<f64> {
        let death = self.death.as_ref().filter(|death| !death.tasks.is_empty())?;
        let lease_ends_ms = death.heard_ms + self.options.lease_ms;
        Some(death.noticed_ms.map_or(f64::INFINITY, |at_ms| at_ms - lease_ends_ms))
    }

    /// The longest time that this may take: two heartbeats and a second.
    pub fn notice_ms_max(&self) -> f64 {
        2.0 * self.options.heartbeat_ms + 1_000.0
    }

    pub(super) fn doom(&mut self, id: u64) {
        if self.death.as_ref().is_none_or(|death| death.machine.is_some()) {
            return;
        }
        self.death = Some(Death { machine: Some(id), heard_ms: self.now_ms, ..Death::default() });
        let delay_ms = self.rng.random_range(0.0..4_000.0);
        self.later(delay_ms, Happening::Die { machine: id });
    }

    pub(super) fn die(&mut self, machine: u64) {
        let Some(running) = self.machines.remove(&machine) else { return };
        self.note(&format!("{machine} dies"));
        let lost = |task: &u32| self.ledger.commit(*task).is_none();
        let had = running.begun.into_keys().chain(running.held).collect::<BTreeSet<u32>>();
        let tasks = had.into_iter().filter(lost).collect();
        if let Some(death) = &mut self.death {
            death.tasks = tasks;
        }
    }

    pub(super) fn hear_of_doomed(&mut self, machine: u64, operation: &Operation) {
        let keeps_leases = matches!(operation, Operation::Renew { .. } | Operation::Lease { .. });
        let now_ms = self.now_ms;
        if let Some(death) = self.death.as_mut().filter(|d| keeps_leases && d.machine == Some(machine)) {
            death.heard_ms = now_ms;
        }
    }

    /// A copy of the task was first: nobody has to take care of it.
    pub(super) fn forgive(&mut self, task: u32) {
        if let Some(death) = self.death.as_mut().filter(|death| death.noticed_ms.is_none()) {
            death.tasks.retain(|lost| *lost != task);
        }
    }

    /// Somebody takes care of these tasks, or starts this planned worker.
    pub(super) fn notice(&mut self, tasks: &[u32], worker: Option<&WorkerId>) {
        self.note_begun(tasks);
        let now_ms = self.now_ms;
        let is_its = |task: &u32| {
            let planned = self.plan.tasks[*task as usize].worker.as_ref();
            tasks.contains(task) || (worker.is_some() && planned == worker)
        };
        if let Some(death) = &mut self.death
            && death.tasks.iter().any(is_its)
        {
            death.noticed_ms.get_or_insert(now_ms);
        }
    }
}

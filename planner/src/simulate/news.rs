//! News of a simulated run: who listens, and who hears of what.

use std::collections::HashMap;

use foresail_choreography::{CommitHints, Event, PlanView};
use foresail_schemas::graph::Graph;
use foresail_schemas::run::{Change, Commit, RunEvent};

use super::agenda::Happening;
use super::{WATCHDOG, World};
use crate::link::Mixed;

/// A machine that hears of what becomes ready.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listener {
    pub id: usize,
    commits: CommitHints,
}

/// Who hears of a task that it does not own, beside nobody.
#[derive(Debug, Default)]
pub(super) struct Audience {
    /// Planned workers that fetch its outputs beforehand.
    of_commit: Vec<u32>,
    /// Planned workers that may run it too.
    of_ready: Vec<u32>,
}

impl World<'_> {
    pub(super) fn listen(&mut self, id: usize, commits: CommitHints) {
        if let Some(worker) = self.nodes[id].listens_as {
            let listeners = &mut self.listeners[worker as usize];
            listeners.retain(|listener| listener.id != id);
            listeners.push(Listener { id, commits });
        }
    }

    /// The result of this machine is the task's.
    pub(super) fn stands(&mut self, id: usize, task: u32, commit: &Commit) {
        let container = self.nodes[id].container;
        self.moved.made(self.dense, container, task, self.agenda.now_ms);
        if commit.attempt == 0
            && let Some(&(start_ms, end_ms)) = self.copies.get(&(id, task))
        {
            (self.start_ms[task as usize], self.end_ms[task as usize]) = (start_ms, end_ms);
        }
        if let Some(audience) = self.audiences.get(&task) {
            let listeners = audience.of_commit.iter().flat_map(|&w| &self.listeners[w as usize]);
            let told = listeners.filter(|l| l.commits == CommitHints::Pass && l.id != id);
            let told: Vec<usize> = told.map(|listener| listener.id).collect();
            for id in told {
                let hint = Event::Hint {
                    ready: Vec::new(),
                    committed: vec![(task, commit.clone())],
                    skipped: Vec::new(),
                };
                self.hint_later(id, hint);
            }
        }
    }

    /// Passes events on, to those who would not ignore them.
    pub(super) fn tell(&mut self, events: &[RunEvent]) {
        for event in events {
            match event.change {
                Change::TaskReady { task } => {
                    let others = self.audiences.get(&task).map(|audience| audience.of_ready.as_slice());
                    let workers = self.view.worker_index(task).into_iter();
                    let workers = workers.chain(others.unwrap_or_default().iter().copied());
                    let told = workers.flat_map(|worker| &self.listeners[worker as usize]);
                    let told: Vec<usize> = told.map(|listener| listener.id).collect();
                    for id in told {
                        let hint =
                            Event::Hint { ready: vec![task], committed: Vec::new(), skipped: Vec::new() };
                        self.hint_later(id, hint);
                    }
                }
                Change::TasksSkipped { ref tasks, .. } => self.tell_skipped(tasks),
                Change::RunFinished { status, .. } => {
                    self.summary.makespan_ms = self.agenda.now_ms;
                    let mut all: Vec<usize> = self.listeners.iter().flatten().map(|l| l.id).collect();
                    all.push(WATCHDOG);
                    all.sort_unstable();
                    for id in all {
                        self.hint_later(id, Event::RunEnded { status });
                    }
                }
                _ => {}
            }
        }
    }

    /// What is told to those who listen takes its way, and as long as the surroundings take to tell it.
    pub(super) fn hint_later(&mut self, id: usize, event: Event) {
        let heard_ms = self.surroundings.told(self.agenda.now_ms) + self.dense.dispatch_ms / 2.0;
        self.agenda.follow(heard_ms, Happening::Hear(id, Box::new(event)));
    }
}

/// Who hears of whose tasks because of an optimisation.
pub(super) fn audiences(graph: &Graph, view: &PlanView) -> HashMap<u32, Audience, Mixed> {
    let mut audiences: HashMap<u32, Audience, Mixed> = HashMap::default();
    // Worker by worker, so that nobody is added twice but in a row.
    for worker in 0..view.worker_count() as u32 {
        for &task in view.tasks_of(worker) {
            for &parent in graph.parents(task) {
                if view.is_preloaded(task) {
                    audiences.entry(parent).or_default().of_commit.push(worker);
                }
                if view.may_be_copied(parent) && view.worker_index(parent) != Some(worker) {
                    audiences.entry(parent).or_default().of_ready.push(worker);
                }
            }
        }
    }
    for audience in audiences.values_mut() {
        audience.of_commit.dedup();
        audience.of_ready.dedup();
    }
    audiences
}

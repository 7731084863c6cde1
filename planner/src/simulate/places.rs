//! The host of a simulated run: who starts when, in which container, and what that costs.

use std::sync::Arc;

use foresail_choreography::{Invoke, Worker, WorkerSettings};
use foresail_schemas::config::ResourceConfig;
use foresail_schemas::id::InstanceId;
use foresail_schemas::metric::StartState;
use foresail_schemas::run::{RunStatus, WorkerUsage};

use super::agenda::Happening;
use super::{Left, Machine, World};
use crate::host::Place;

/// Who waits for a place.
#[derive(Debug)]
pub(super) enum Waiting {
    Work(Invoke),
    PreWarm(ResourceConfig),
}

/// By what an invocation that waits already is known again: the planned worker, or the first of the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Asked {
    Worker(u32),
    Task(Option<u32>),
}

impl World<'_> {
    pub(super) fn invoke(&mut self, invoke: Invoke) {
        if self.host.has_place(self.size_of(&invoke.config)) {
            return self.start(invoke);
        }
        let asked = match &invoke.worker {
            Some(worker) => Asked::Worker(self.view.index(worker).unwrap_or(u32::MAX)),
            None => Asked::Task(invoke.tasks.first().copied()),
        };
        let waiting = self.queued.get(&asked).and_then(|&place| self.host.waiting_mut(place));
        match waiting {
            Some(Waiting::Work(same)) if same.worker.is_some() || same.tasks == invoke.tasks => {
                let news = invoke.tasks.into_iter().filter(|t| !same.tasks.contains(t));
                let news: Vec<u32> = news.collect();
                same.tasks.extend(news);
            }
            _ => {
                let place = self.host.wait(Waiting::Work(invoke));
                self.queued.insert(asked, place);
            }
        }
    }

    pub(super) fn prewarm(&mut self, config: ResourceConfig) {
        if self.host.has_place(self.size_of(&config)) {
            return self.start_empty(config);
        }
        self.host.wait(Waiting::PreWarm(config));
    }

    /// The client starts nothing for a run that is over.
    pub(super) fn prewarm_of_client(&mut self, config: ResourceConfig) {
        if self.ledger.status() == RunStatus::Running {
            self.prewarm(config);
        }
    }

    fn size_of(&self, config: &ResourceConfig) -> u32 {
        let sizes = self.dense.sizes.iter();
        sizes.take_while(|s| s.config.key() != config.key()).count() as u32
    }

    fn take_place(&mut self, config: ResourceConfig) -> (u32, Place, f64) {
        let size = self.size_of(&config);
        let place = self.host.start(size, self.agenda.now_ms);
        self.summary.invocations += 1;
        self.summary.cold_starts += u64::from(place.is_cold);
        self.dense.count_start(&mut self.used, size, place.is_cold);
        (size, place, self.dense.startup_ms(size, place.is_cold))
    }

    /// An invocation that ends as soon as the worker is up.
    fn start_empty(&mut self, config: ResourceConfig) {
        let start_ms = self.agenda.now_ms;
        let (size, Place { container, .. }, startup_ms) = self.take_place(config);
        self.agenda.later(startup_ms, Happening::Warm { size, container, start_ms });
    }

    fn start(&mut self, invoke: Invoke) {
        let Invoke { worker, config, tasks } = invoke;
        let (size, place, startup_ms) = self.take_place(config);
        let number = self.summary.invocations;
        let (now_ms, mut begins_ms) = (self.agenda.now_ms, self.agenda.now_ms);
        if place.is_cold {
            begins_ms = self.surroundings.grown(size as usize, now_ms);
        }
        let settings = WorkerSettings {
            instance: InstanceId::new(format!("i{number}")).expect("a letter and digits are a legal name"),
            worker,
            config,
            start: if place.is_cold { StartState::Cold } else { StartState::Warm },
            options: self.options,
            lanes: self.dense.lanes,
            backlog_ms: 0.0,
            // Plans count on the store: what stays in memory is gained beside them.
            keep_bytes_min: None,
            life_ends_ms: begins_ms + self.dense.life_ms(size),
        };
        let listens_as = settings.worker.as_ref().and_then(|worker| self.view.index(worker));
        let machine = Worker::new(settings, self.graph.clone(), Arc::clone(&self.view), &tasks);
        let id = self.add(Machine::Worker(Box::new(machine)), size, place.container);
        (self.nodes[id].listens_as, self.nodes[id].start_ms) = (listens_as, begins_ms);
        self.agenda.at(begins_ms + startup_ms, Happening::Begin(id));
    }

    /// What a machine used so far.
    pub(super) fn usage(&self, id: usize) -> WorkerUsage {
        let node = &self.nodes[id];
        node.links.usage(self.agenda.now_ms - node.start_ms)
    }

    /// A worker has left.
    pub(super) fn gone(&mut self, id: usize) {
        let usage = self.usage(id);
        let node = &mut self.nodes[id];
        let left = Left { usage, attempts: node.attempts, is_planned: node.listens_as.is_some() };
        self.surroundings.left(&left, self.agenda.now_ms);
        node.machine = None;
        let (size, container) = (node.size, node.container);
        self.moved.leave(self.dense, &node.links, container, self.agenda.now_ms);
        if let Some(worker) = node.listens_as {
            self.listeners[worker as usize].retain(|listener| listener.id != id);
        }
        self.end(size, container, &usage);
    }

    /// A container is free again; whoever waited longest for a place gets it.
    pub(super) fn end(&mut self, size: u32, container: u32, usage: &WorkerUsage) {
        let config = &self.dense.size(size).config;
        self.summary.cost_usd += self.dense.rates.worker_usd(config, usage);
        self.used[size as usize].usage.add(usage);
        self.summary.gb_seconds += config.gb() * usage.billed_ms / 1000.0;
        match self.host.end(size, container, self.agenda.now_ms) {
            Some(Waiting::Work(invoke)) => self.start(invoke),
            Some(Waiting::PreWarm(config)) => self.start_empty(config),
            None => {}
        }
    }
}

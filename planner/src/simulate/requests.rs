//! Requests to the run's state, and what comes before a worker's first: being asked for, being started,
//! learning what is to be done. Each takes as long as the surroundings say.

use std::sync::Arc;

use foresail_choreography::{Event, Invoke};
use foresail_schemas::run::{Operation, OperationAnswer, OperationResult};

use super::agenda::Happening;
use super::{Machine, World};

/// A request that waits for its turn at the run's state.
#[derive(Debug)]
pub(super) struct Waiting {
    id: usize,
    request: u64,
    operations: Arc<[Operation]>,
    /// Whether nobody waits for the answer any more when it comes.
    is_given_up: bool,
}

impl World<'_> {
    /// Machine `by` asks the host for a worker.
    pub(super) fn ask_host(&mut self, by: usize, invoke: Invoke) {
        let now_ms = self.agenda.now_ms;
        let taken_ms = self.surroundings.invoked(by, now_ms);
        if taken_ms > now_ms {
            self.agenda.at(taken_ms, Happening::Invoke(Box::new(invoke)));
        } else {
            self.invoke(invoke);
        }
    }

    /// A worker is up and reads what it needs to know of the run.
    pub(super) fn read_documents(&mut self, id: usize) {
        let now_ms = self.agenda.now_ms;
        let known_ms = self.surroundings.begun(self.nodes[id].listens_as.is_some(), now_ms);
        if known_ms > now_ms {
            self.agenda.at(known_ms, Happening::Up(id));
        } else {
            self.up(id);
        }
    }

    /// A worker runs its first instruction of the run.
    pub(super) fn up(&mut self, id: usize) {
        let mut out = Vec::new();
        if let Some(Machine::Worker(worker)) = &mut self.nodes[id].machine {
            worker.start(self.agenda.now_ms, &mut out);
        }
        self.act(id, out);
    }

    /// A request arrives.
    pub(super) fn request(&mut self, id: usize, request: u64, operations: Arc<[Operation]>) {
        let now_ms = self.agenda.now_ms;
        let served = self.surroundings.asked(&operations, now_ms);
        if let Some(given_up_ms) = served.given_up_ms {
            self.tell_later(given_up_ms - now_ms, id, Event::Unanswered { request });
        }
        let waiting = Waiting { id, request, operations, is_given_up: served.given_up_ms.is_some() };
        if served.at_ms > now_ms {
            self.agenda.follow(served.at_ms, Happening::Served(Box::new(waiting)));
        } else {
            self.serve(&waiting);
        }
    }

    /// A request is carried out.
    pub(super) fn serve(&mut self, waiting: &Waiting) {
        let Waiting { id, request, operations, is_given_up } = waiting;
        let now_ms = self.agenda.now_ms;
        let mut results = Vec::with_capacity(operations.len());
        let mut happened = Vec::new();
        for operation in operations.iter() {
            let (result, events) = self.ledger.apply(operation, now_ms);
            if let (Operation::Commit { task, commit, .. }, OperationResult::Won { .. }) =
                (operation, &result)
            {
                self.stands(*id, *task, commit);
            }
            self.tell(&events);
            happened.extend(events);
            results.push(result);
        }
        let (status, plan_epoch) = (self.ledger.status(), self.ledger.plan_epoch());
        let answer = OperationAnswer { status, plan_epoch, results };
        let sent_ms = self.surroundings.answered(&answer, &happened, now_ms);
        if !is_given_up {
            let event = Event::Answered { request: *request, answer };
            let heard_ms = sent_ms + self.dense.dispatch_ms / 2.0;
            self.agenda.follow(heard_ms, Happening::Hear(*id, Box::new(event)));
        }
    }
}

//! A run as a set of states and steps: the real machines, and every message between them as a thing that may
//! be delivered now, later, twice or not at all.
//!
//! A state is whole: the ledger, the machines, what is under way, the time, the faults that may still come.
//! Time is in ms and passes only where nothing else can happen, up to the next timer, or as a fault, past
//! every lease. What a task computes takes no time and ends whenever its end is delivered.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Debug;
use std::hash::Hasher;
use std::sync::Arc;

use foresail_choreography::{Event, Invoke, PlanView, Watchdog, Worker};
use foresail_schemas::decision::Decision;
use foresail_schemas::graph::Graph;
use foresail_schemas::id::InstanceId;
use foresail_schemas::run::{Operation, RunOptions, RunStatus};
use foresail_schemas::{Plan, Workflow};

mod explore;
mod graphs;
mod hosts;
mod steps;
mod store;

pub use explore::explore;
pub use graphs::{branch, fan_out, plan, workflow};
pub use store::Mutant;

use store::Store;

/// How often each fault may come in one run, and how many in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    pub total: u8,
    /// A worker disappears.
    pub crash: u8,
    /// A request or an invocation is lost, or the answer to a request.
    pub lose: u8,
    /// A request or an invocation arrives twice.
    pub double: u8,
    /// A hint is lost.
    pub deafen: u8,
    /// Everything under way takes longer than a lease lasts and than it takes to notice that.
    pub late: u8,
    /// The plan is replaced.
    pub replan: u8,
}

impl Faults {
    /// Each at most once, `total` in all.
    pub fn each_once(total: u8) -> Self {
        Self { total, crash: 1, lose: 1, double: 1, deafen: 1, late: 1, replan: 1 }
    }
}

/// What is explored.
pub struct Scenario {
    pub name: &'static str,
    pub workflow: Workflow,
    /// In force by turns: the first under epoch 1, the second under epoch 2.
    pub plans: [Plan; 2],
    pub faults: Faults,
    /// What deciding tasks decide, by turns of the workers: two attempts do not agree.
    pub decisions: [Decision; 2],
    pub mutant: Option<Mutant>,
}

/// The scenario as the machines take it.
struct Model {
    graph: Arc<Graph>,
    plans: [Plan; 2],
    views: [Arc<PlanView>; 2],
    options: RunOptions,
    decisions: [Decision; 2],
    mutant: Option<Mutant>,
}

/// A part of a state, and the number by which an equal one is known again.
struct Sealed<T> {
    value: T,
    print: u64,
}

type Part<T> = Arc<Sealed<T>>;

fn seal<T: Debug>(value: T) -> Part<T> {
    let mut hasher = DefaultHasher::new();
    hasher.write(format!("{value:?}").as_bytes());
    Arc::new(Sealed { value, print: hasher.finish() })
}

/// Something under way.
#[derive(Debug, Clone)]
enum Mail {
    /// A worker starts.
    Start { invoke: Invoke },
    /// To the store. Nobody waits for the answer to the second arrival of a request.
    Request { machine: u32, request: u64, operations: Arc<[Operation]>, is_second: bool },
    /// To a machine.
    Tell { machine: u32, event: Event },
    /// The end of what a machine does for a task.
    Work { machine: u32, task: u32, attempt: u32, kind: WorkKind },
    /// The plan in force, to a machine that asked for it.
    Plan { machine: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WorkKind {
    /// Runs it and stores the outputs, or stores what was held.
    ToStore,
    /// Runs it and holds the outputs.
    ToMemory,
}

#[derive(Debug, Clone)]
enum Machine {
    Worker(Box<Worker>),
    Watchdog(Box<Watchdog>),
}

#[derive(Debug, Clone)]
struct Body {
    machine: Machine,
    instance: Option<InstanceId>,
    listens: bool,
    wake_ms: Option<f64>,
}

/// A state of a run.
#[derive(Clone)]
struct State {
    now_ms: f64,
    faults: Faults,
    store: Part<Store>,
    machines: BTreeMap<u32, Part<Body>>,
    mail: Vec<Part<Mail>>,
    started: u32,
}

impl State {
    /// The number by which an equal state is known again: two different states share one with a
    /// probability of less than one in a million.
    fn print(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.now_ms.to_bits());
        let Faults { total, crash, lose, double, deafen, late, replan } = self.faults;
        hasher.write(&[total, crash, lose, double, deafen, late, replan]);
        hasher.write_u32(self.started);
        hasher.write_u64(self.store.print);
        for (id, body) in &self.machines {
            hasher.write_u32(*id);
            hasher.write_u64(body.print);
        }
        let mut mail: Vec<u64> = self.mail.iter().map(|mail| mail.print).collect();
        mail.sort_unstable();
        mail.into_iter().for_each(|print| hasher.write_u64(print));
        hasher.finish()
    }

    fn is_over(&self) -> bool {
        self.mail.is_empty() && self.machines.is_empty()
    }

    fn status(&self) -> RunStatus {
        self.store.value.ledger.status()
    }
}

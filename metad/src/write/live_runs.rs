//! The runs as the writer knows them: a ledger for each that has not ended, and a few of those that have.
//!
//! A finished run that is asked for again (a worker that reports late, a repeated request) is brought back by
//! replaying its events, so that memory is bounded by the runs under way.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use foresail_choreography::Ledger;
use foresail_schemas::run::{RunEvent, RunStatus, RunSummary};
use foresail_schemas::{ErrorCode, Problem, RunId, Workflow};

use super::Group;
use super::resume::Taken;
use crate::board::{Board, Boards, RunClock};
use crate::meter::add;
use crate::shared::Shared;
use crate::store::run_events::EventText;
use crate::store::runs::RunHeader;
use crate::store::{ReadView, StoreError, StoreReader, WriteGroup};

/// Finished runs whose ledgers stay in memory.
const FINISHED_LIVE_MAX: usize = 32;
/// Events that are read at once when a run is replayed.
const REPLAY_EVENTS: usize = 4096;
/// Most finished runs that retention drops in one group.
const RUN_DROPS_PER_GROUP_MAX: usize = 4;

/// A run with its ledger.
pub struct LiveRun {
    /// Its number.
    pub number: u64,
    /// Its header.
    pub header: RunHeader,
    /// Its workflow.
    pub workflow: Workflow,
    /// Its state.
    pub ledger: Ledger,
    /// Its time.
    pub clock: RunClock,
    /// Where others read of it.
    pub board: Arc<Board>,
    /// Events of the group that is being applied.
    pub staged: Vec<RunEvent>,
    /// The same as text, once they are part of the transaction.
    written: Vec<Arc<EventText>>,
}

impl LiveRun {
    /// The run as it stands.
    #[must_use]
    pub fn summary(&self) -> RunSummary {
        summary(&self.header, &self.ledger, self.clock.now_ms())
    }
}

/// A run in short, from its header and its ledger.
#[must_use]
pub fn summary(header: &RunHeader, ledger: &Ledger, now_ms: f64) -> RunSummary {
    let state = ledger.summary(now_ms);
    RunSummary {
        run: header.run.clone(),
        workflow: header.workflow.clone(),
        status: ledger.status(),
        failure: state.failure,
        created_at: header.created_at,
        planner: header.planner.clone(),
        plan_epoch: ledger.plan_epoch(),
        tasks: header.tasks,
        committed: state.committed,
        skipped: state.skipped,
        running: state.running,
        retries: state.retries,
        elapsed_ms: state.elapsed_ms,
        predicted: header.predicted,
        usage: state.usage,
        last_event: ledger.last_seq(),
        stalled_ms: None,
    }
}

/// All runs.
#[derive(Default)]
pub struct Runs {
    pub(super) live: HashMap<RunId, LiveRun>,
    /// Runs with something to write or to show in this group.
    pub(super) touched: BTreeSet<RunId>,
    /// Runs that are new in this group.
    pub(super) created: Vec<RunId>,
    /// Numbers and ids of the finished ones, oldest first.
    finished: BTreeSet<(u64, RunId)>,
    /// Finished ones with a ledger in memory, in the order they were finished or brought back.
    finished_live: VecDeque<RunId>,
    /// Finished ones that retention dropped in this group.
    dropped: Vec<RunId>,
    pub(super) last_number: u64,
}

impl Runs {
    /// The runs found in the store: `live` with their ledgers, `finished` without.
    #[must_use]
    pub fn new(live: Vec<LiveRun>, finished: BTreeSet<(u64, RunId)>, last_number: u64) -> Self {
        let live = live.into_iter().map(|run| (run.header.run.clone(), run)).collect();
        Self { live, finished, last_number, ..Self::default() }
    }

    /// Runs that have not ended.
    pub(super) fn running(&self) -> usize {
        self.live.values().filter(|run| run.ledger.status() == RunStatus::Running).count()
    }

    /// The run with its ledger, brought back from the store where that is needed.
    pub(super) fn get(
        &mut self,
        run: &RunId,
        group: &Group,
        shared: &Shared,
    ) -> Result<Result<&mut LiveRun, Problem>, StoreError> {
        if !self.live.contains_key(run) {
            let Some(board) = shared.boards.load().get(run).cloned() else {
                return Ok(Err(not_found(run)));
            };
            match load(group, &shared.store, &board)? {
                Some(loaded) => self.live.insert(run.clone(), loaded),
                None => return Ok(Err(not_found(run))),
            };
            if !self.finished_live.contains(run) {
                self.finished_live.push_back(run.clone());
            }
        }
        Ok(self.live.get_mut(run).ok_or_else(|| not_found(run)))
    }

    /// Writes the events and, where runs ended, their summaries; lets go of the oldest finished runs.
    pub(super) fn write(&mut self, group: &mut Group, shared: &Shared) -> Result<(), StoreError> {
        for id in &self.touched {
            let Some(run) = self.live.get_mut(id) else { continue };
            if run.staged.is_empty() {
                continue;
            }
            run.written = run.staged.drain(..).map(|event| Arc::new(text(&event))).collect();
            add(&shared.meter.events, run.written.len() as u64);
            group.writes()?.put_events(run.number, &run.written)?;
            if run.ledger.status() != RunStatus::Running {
                group.writes()?.put_run_end(run.number, &run.summary())?;
                if self.finished.insert((run.number, id.clone())) {
                    self.finished_live.push_back(id.clone());
                }
            }
        }
        for _ in 0..RUN_DROPS_PER_GROUP_MAX {
            if self.finished.len() as u64 <= shared.settings.finished_runs_max {
                break;
            }
            let Some((number, run)) = self.finished.pop_first() else { break };
            group.writes()?.drop_run(number, &run)?;
            // Its id may soon be that of another run.
            self.finished_live.retain(|other| *other != run);
            self.dropped.push(run);
        }
        Ok(())
    }

    /// Shows what has become durable.
    pub(super) fn publish(&mut self, shared: &Shared) {
        if !self.created.is_empty() || !self.dropped.is_empty() {
            let mut boards = Boards::clone(&shared.boards.load());
            for id in self.created.drain(..) {
                if let Some(run) = self.live.get(&id) {
                    boards.insert(id, Arc::clone(&run.board));
                }
            }
            for id in self.dropped.drain(..) {
                boards.remove(&id);
                self.live.remove(&id);
                self.touched.remove(&id);
            }
            shared.boards.store(Arc::new(boards));
        }
        for id in std::mem::take(&mut self.touched) {
            if let Some(run) = self.live.get_mut(&id) {
                let events = std::mem::take(&mut run.written);
                let summary = summary(&run.header, &run.ledger, run.clock.now_ms());
                run.board.publish(summary, events);
            }
        }
        while self.finished_live.len() > FINISHED_LIVE_MAX {
            let Some(id) = self.finished_live.pop_front() else { break };
            // A run under way is never let go: its leases are only in memory.
            if self.live.get(&id).is_some_and(|run| run.ledger.status() != RunStatus::Running)
                && let Some(run) = self.live.remove(&id)
            {
                run.board.forget_events();
            }
        }
    }
}

/// The answer for a run that is not kept.
#[must_use]
pub fn not_found(run: &RunId) -> Problem {
    Problem::new(ErrorCode::RunNotFound, format!("there is no run `{run}`"))
}

fn text(event: &RunEvent) -> EventText {
    let json = serde_json::value::to_raw_value(event).expect("numbers and text always have a JSON form");
    EventText { seq: event.seq, kind: event.change.kind().to_owned(), json }
}

/// Where a run is read.
enum Rows<'a> {
    /// What everybody sees.
    Shown(&'a ReadView),
    /// The group that is being applied, and all before it. The writer must not wait until that is shown: it
    /// would wait for itself.
    Group(&'a WriteGroup),
}

impl Rows<'_> {
    fn header(&self, number: u64) -> Result<Option<RunHeader>, StoreError> {
        match self {
            Self::Shown(view) => view.run_header(number),
            Self::Group(group) => group.run_header(number),
        }
    }

    fn workflow(&self, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Self::Shown(view) => view.workflow_document(number),
            Self::Group(group) => group.workflow_document(number),
        }
    }

    fn events_after(&self, number: u64, after: u64) -> Result<Vec<EventText>, StoreError> {
        match self {
            Self::Shown(view) => view.events_after(number, after, REPLAY_EVENTS),
            Self::Group(group) => group.events_after(number, after, REPLAY_EVENTS),
        }
    }
}

/// Brings a run back from the store, with the board it has.
fn load(group: &Group, store: &StoreReader, board: &Arc<Board>) -> Result<Option<LiveRun>, StoreError> {
    let view;
    let rows = match &group.writes {
        Some(writes) => Rows::Group(writes),
        None => {
            view = store.view()?;
            Rows::Shown(&view)
        }
    };
    let Some(header) = rows.header(board.number)? else { return Ok(None) };
    let (workflow, ledger) = replay(&rows, board.number, &header)?;
    let clock = RunClock::resumed(header.created_at, ledger.last_ms());
    let board = Arc::clone(board);
    let (staged, written) = (Vec::new(), Vec::new());
    Ok(Some(LiveRun { number: board.number, header, workflow, ledger, clock, board, staged, written }))
}

/// A run found at the start, with a board of its own.
///
/// # Errors
/// [`StoreError`] when its workflow or one of its events cannot be read.
pub fn recover(view: &ReadView, number: u64, header: RunHeader) -> Result<LiveRun, StoreError> {
    let (workflow, mut ledger) = replay(&Rows::Shown(view), number, &header)?;
    let clock = RunClock::resumed(header.created_at, ledger.last_ms());
    ledger.recovered(clock.now_ms());
    // Whether anybody works on it is seen when he asks.
    let shown = summary(&header, &ledger, ledger.last_ms());
    let board = Arc::new(Board::new(number, header.options, clock, shown));
    Ok(LiveRun { number, header, workflow, ledger, clock, board, staged: Vec::new(), written: Vec::new() })
}

fn replay(rows: &Rows, number: u64, header: &RunHeader) -> Result<(Workflow, Ledger), StoreError> {
    let damaged =
        |reason: String| StoreError::Corrupt { table: "run_workflows", key: number.to_string(), reason };
    let document = rows.workflow(number)?.ok_or_else(|| damaged("it is missing".to_owned()))?;
    let workflow: Workflow = serde_json::from_slice(&document).map_err(|e| damaged(e.to_string()))?;
    let mut ledger = Ledger::new(&workflow, header.options);
    loop {
        let events = rows.events_after(number, ledger.last_seq())?;
        if events.is_empty() {
            return Ok((workflow, ledger));
        }
        for event in events {
            let event: RunEvent =
                serde_json::from_str(event.json.get()).map_err(|e| StoreError::Corrupt {
                    table: "run_events",
                    key: format!("{number}, {}", event.seq),
                    reason: e.to_string(),
                })?;
            ledger.replay(&event);
        }
    }
}

impl LiveRun {
    /// A run that begins now, with the results of another where it takes some over.
    #[must_use]
    pub(super) fn begin(number: u64, header: RunHeader, workflow: Workflow, taken: Option<Taken>) -> Self {
        let mut ledger = Ledger::new(&workflow, header.options);
        let clock = RunClock::at(0.0);
        let staged = match taken {
            Some(taken) => ledger.resume(&taken.of, taken.results, clock.now_ms()),
            None => ledger.begin(clock.now_ms()),
        };
        let mut shown = summary(&header, &ledger, clock.now_ms());
        // The events of the beginning are shown when they are durable, with the others of their group.
        shown.last_event = 0;
        let board = Arc::new(Board::new(number, header.options, clock, shown));
        Self { number, header, workflow, ledger, clock, board, staged, written: Vec::new() }
    }
}

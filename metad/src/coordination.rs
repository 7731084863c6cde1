//! Runs whose state is folded from a log in Redis by all who take part; metad is one of them.
//!
//! Workers ask Redis alone. Whoever asks metad about such a run is answered from the same log: a request is
//! appended to it, and what it led to is stored here before the answer. Events that others led to are
//! followed and stored too, so that lists, streams, results and the resuming of runs are the same for every
//! run, and remain when Redis has forgotten it. Where Redis has lost a run that lasts, the ledger here, which
//! is as old as the last event that was stored, decides from then on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foresail_redis::{CoordinationError, NewRun, Runs};
use foresail_schemas::run::{Change, Operation, OperationAnswer, Replanning, RunEvent, RunStatus};
use foresail_schemas::{ErrorCode, Problem, RunId};

use crate::board::Board;
use crate::shared::{Shared, store_failed};
use crate::write::{Command, Mirrored, NewPlan, Standing};

/// How long a look at the log of a run waits for events.
const LOOK: Duration = Duration::from_secs(2);
/// Pause after a look that failed, and between looks at a run that has ended.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a run that has ended is followed: workers report what they used.
const AFTERMATH: Duration = Duration::from_secs(60);
/// Events that are read from the store at once.
const EVENTS_AT_ONCE: usize = 4096;

/// The way to Redis, and the runs whose state lies there.
#[derive(Debug)]
pub struct Coordination {
    runs: Runs,
    there: Mutex<HashMap<RunId, Arc<There>>>,
}

/// A run whose state lies in Redis. What came of it is stored in turn, a plan before the event that names it.
#[derive(Debug, Default)]
struct There {
    turn: tokio::sync::Mutex<()>,
}

impl Coordination {
    /// The runs in the Redis at `url`.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn open(url: &str) -> Result<Self, CoordinationError> {
        Ok(Self { runs: Runs::open(url)?, there: Mutex::default() })
    }

    fn there(&self, run: &RunId) -> Option<Arc<There>> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner).get(run).cloned()
    }

    fn enter(&self, run: &RunId) {
        // A panic elsewhere leaves a map of names, valid at every moment.
        self.there.lock().unwrap_or_else(PoisonError::into_inner).entry(run.clone()).or_default();
    }

    fn leave(&self, run: &RunId) {
        self.there.lock().unwrap_or_else(PoisonError::into_inner).remove(run);
    }
}

/// Where the state of `run` is decided: in Redis, or nothing where it is here.
fn of<'a>(app: &'a Shared, run: &RunId) -> Option<(&'a Coordination, Arc<There>, Arc<Board>)> {
    let coordination = app.coordination.as_ref()?;
    let there = coordination.there(run)?;
    let board = app.boards.load().get(run).cloned()?;
    Some((coordination, there, board))
}

/// Looks for the state of every run that lasts in Redis, and follows those that are there.
pub fn take_up(app: &Arc<Shared>) {
    let Some(coordination) = &app.coordination else { return };
    let boards = app.boards.load_full();
    for (run, _) in boards.iter().filter(|(_, board)| board.status() == RunStatus::Running) {
        coordination.enter(run);
        tokio::spawn(follow(Arc::clone(app), run.clone()));
    }
}

/// Begins a run in Redis that was created here.
///
/// # Errors
/// The problem, after which the same request may be repeated.
pub async fn begin(
    app: &Arc<Shared>,
    run: &RunId,
    workflow: &[u8],
    plan: &[u8],
    events: Vec<RunEvent>,
) -> Result<(), Problem> {
    let (Some(coordination), Some(board)) = (&app.coordination, app.boards.load().get(run).cloned()) else {
        return Ok(());
    };
    if board.status() != RunStatus::Running {
        return Ok(());
    }
    let new = NewRun { summary: board.summary(), options: board.options, workflow, plan, events };
    coordination.runs.begin(new).await.map_err(problem)?;
    if coordination.there(run).is_none() {
        coordination.enter(run);
        tokio::spawn(follow(Arc::clone(app), run.clone()));
    }
    Ok(())
}

/// The events of a run that are stored here.
///
/// # Errors
/// When the store cannot be read.
pub fn stored_events(app: &Shared, run: &RunId) -> Result<Vec<RunEvent>, Problem> {
    let Some(board) = app.boards.load().get(run).cloned() else { return Ok(Vec::new()) };
    let view = app.store.view().map_err(|_| store_failed())?;
    let mut events: Vec<RunEvent> = Vec::new();
    loop {
        let after = events.last().map_or(0, |event| event.seq);
        let page = view.events_after(board.number, after, EVENTS_AT_ONCE).map_err(|_| store_failed())?;
        if page.is_empty() {
            return Ok(events);
        }
        for event in page {
            events.push(serde_json::from_str(event.json.get()).map_err(|_| store_failed())?);
        }
    }
}

/// Applies operations to a run in Redis; nothing where its state is here.
pub async fn operate(
    app: &Shared,
    run: &RunId,
    operations: &[Operation],
) -> Option<Result<OperationAnswer, Problem>> {
    let (coordination, there, board) = of(app, run)?;
    match coordination.runs.operate(run, operations.to_vec()).await {
        Ok(answer) => Some(mirror(app, run, &there, &board, None).await.map(|()| answer)),
        Err(CoordinationError::NoSuchRun(_)) => {
            lost(coordination, run);
            None
        }
        Err(error) => Some(Err(problem(error))),
    }
}

/// Puts a plan in force, or tells that it was found; nothing where the state of the run is here.
pub async fn replan(app: &Shared, new: &NewPlan) -> Option<Result<u64, Problem>> {
    let (coordination, there, board) = of(app, &new.run)?;
    let (runs, expected) = (&coordination.runs, new.expected_epoch);
    let taken = match runs.workflow(&new.run).await {
        Ok(workflow) => match new.plan.check(&workflow) {
            Ok(()) => put(runs, new).await,
            Err(error) => return Some(Err(Problem::new(ErrorCode::InvalidPlan, error.to_string()))),
        },
        Err(error) => Err(error),
    };
    match taken {
        Ok(epoch) => {
            let suggested = matches!(new.standing, Standing::Suggested(_)).then(|| new.clone());
            let stored = mirror(app, &new.run, &there, &board, suggested).await;
            Some(stored.map(|()| epoch))
        }
        Err(CoordinationError::NoSuchRun(run)) => {
            lost(coordination, &run);
            None
        }
        Err(CoordinationError::OtherPlan(_)) if board.status() != RunStatus::Running => {
            let detail = format!("run `{}` has ended", new.run);
            Some(Err(Problem::new(ErrorCode::RunOver, detail)))
        }
        Err(CoordinationError::OtherPlan(current)) => {
            let detail = format!(
                "run `{}` follows plan `{current}`, the new one would replace plan `{expected}`",
                new.run
            );
            Some(Err(Problem::new(ErrorCode::PlanEpochConflict, detail)))
        }
        Err(error) => Some(Err(problem(error))),
    }
}

async fn put(runs: &Runs, new: &NewPlan) -> Result<u64, CoordinationError> {
    let why: Option<Replanning> = match &new.standing {
        Standing::InForce(why) => why.clone(),
        Standing::Suggested(why) => return runs.suggest(&new.run, new.expected_epoch, why.clone()).await,
    };
    runs.replan(&new.run, new.expected_epoch, &new.json, why).await
}

/// How many tasks run, where Redis knows better: heartbeats are no events.
pub async fn running(app: &Shared, run: &RunId) -> Option<u64> {
    let (coordination, _, _) = of(app, run)?;
    coordination.runs.summary(run).await.ok().map(|summary| summary.running)
}

/// Stores what came of a run since the last time; the run counts as heard of also where nothing did.
async fn mirror(
    app: &Shared,
    run: &RunId,
    there: &There,
    board: &Board,
    mut suggested: Option<NewPlan>,
) -> Result<(), Problem> {
    let Some(coordination) = &app.coordination else { return Ok(()) };
    let _turn = there.turn.lock().await;
    loop {
        let after = board.summary().last_event;
        let page = coordination.runs.events(run, after, None, Duration::ZERO).await.map_err(problem)?;
        let is_last = page.next_after <= page.events.last().map_or(after, |event| event.seq);
        let mut plans: Vec<NewPlan> = suggested.take().into_iter().collect();
        for event in &page.events {
            if let Change::PlanReplaced { epoch, .. } = event.change {
                plans.push(put_in_force(&coordination.runs, run, epoch).await?);
            }
        }
        let mirrored = Box::new(Mirrored { run: run.clone(), events: page.events, plans });
        app.change(|reply| Command::Mirror(mirrored, reply)).await?;
        if is_last {
            return Ok(());
        }
    }
}

/// The plan that somebody put in force.
async fn put_in_force(runs: &Runs, run: &RunId, epoch: u64) -> Result<NewPlan, Problem> {
    let plan = runs.plan_of(run, epoch).await.map_err(problem)?;
    let json = serde_json::to_vec(&plan).expect("wire types always have a JSON form");
    let (run, expected_epoch, standing) = (run.clone(), epoch - 1, Standing::InForce(None));
    Ok(NewPlan { run, expected_epoch, plan, json, standing })
}

/// Stores what others lead to, until the run has ended and its workers have reported.
async fn follow(app: Arc<Shared>, run: RunId) {
    let (mut heard, mut ended): (u64, Option<Instant>) = (0, None);
    while let Some((coordination, there, board)) = of(&app, &run) {
        if *app.stopping.borrow() {
            return;
        }
        let runs = &coordination.runs;
        match runs.events(&run, board.summary().last_event, None, LOOK).await {
            Ok(page) => {
                let folded = runs.folded(&run).await;
                if (!page.events.is_empty() || folded > heard)
                    && let Err(problem) = mirror(&app, &run, &there, &board, None).await
                {
                    tracing::warn!(%run, detail = problem.detail, "what came of a run is stored later");
                    tokio::time::sleep(PAUSE).await;
                }
                heard = folded;
                if page.status != RunStatus::Running {
                    if ended.get_or_insert_with(Instant::now).elapsed() > AFTERMATH {
                        return coordination.leave(&run);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Err(CoordinationError::NoSuchRun(_)) => return lost(coordination, &run),
            Err(error) => {
                tracing::warn!(%run, "a run is not followed for the moment: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    if let Some(coordination) = &app.coordination {
        coordination.leave(&run);
    }
}

/// The ledger here decides from now on.
fn lost(coordination: &Coordination, run: &RunId) {
    tracing::warn!(%run, "Redis does not have this run; its state is that of metad from now on");
    coordination.leave(run);
}

fn problem(error: CoordinationError) -> Problem {
    let code = match &error {
        CoordinationError::NoSuchRun(_) => ErrorCode::RunNotFound,
        CoordinationError::OtherPlan(_) => ErrorCode::PlanEpochConflict,
        CoordinationError::Damaged { .. } => ErrorCode::StoreFailed,
        CoordinationError::Settings { .. } | CoordinationError::Unreachable { .. } => ErrorCode::Unavailable,
    };
    Problem::new(code, error.to_string())
}

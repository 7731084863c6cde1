//! Planning by name: the planners that come with Foresail, and programs of the user's own.
//!
//! `exec:PROGRAM ARGS` starts a program, by `sh -c` as worker commands are, writes the problem to its stdin
//! as one JSON document (`PlanningProblem`) and reads a plan from its stdout. Of a task only `task`, `config`
//! and, where it has one, `worker` are needed, with `rank` and `why` if it likes; a whole `Plan` will do. The
//! plan is checked and timed here: what the program says about times and cost counts for nothing, so its
//! promise is ours.
//!
//! The program has [`LIMIT`] and may write [`STDOUT_BYTES_MAX`]; it is killed when it takes longer, writes
//! more, or the user interrupts.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use foresail_planner::{self as planner, Placement};
use foresail_schemas::config::ResourceConfig;
use foresail_schemas::optimization::{Optimization, PreWarming};
use foresail_schemas::plan::{Plan, Problem};
use foresail_schemas::{TaskId, TaskName, WorkerId};
use serde::Deserialize;

use crate::error::ClientError;

/// What the name of a planner in another process begins with.
pub const EXEC: &str = "exec:";
/// Name of such a planner in its plans.
const NAME: &str = "exec";
/// Longest time that it may take.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Most bytes that it may write to stdout.
pub const STDOUT_BYTES_MAX: usize = 512 << 20;
/// Bytes of its stderr that are shown when it fails: the last ones.
const STDERR_BYTES_SHOWN: usize = 2_000;
/// Time between two looks at it.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// Longest wait for its output once it has ended: what it started may hold the pipe.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Asks a planning to end. Clones ask for the same.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// One that nobody has asked for.
    #[must_use]
    pub fn never() -> Self {
        Self::default()
    }

    /// Asks.
    pub fn ask(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it was asked for.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Plans a problem; where it has distributions the plan has an outlook. A program is killed once `stop` is
/// asked for, a planner of this process is not.
///
/// # Errors
/// [`ClientError::NoPlan`] when there is no such planner, or it finds no plan.
pub fn plan_until(planner: &str, problem: &Problem, stop: &Stop) -> Result<Plan, ClientError> {
    let mut plan = plan_alone_until(planner, problem, stop)?;
    let is_drawn = plan.flexible.is_none() && problem.predictions.uncertainty.is_some();
    if plan.outlook.is_none() && is_drawn {
        let draws = planner::draws_for(plan.tasks.len());
        let drawn = planner::monte_carlo(problem, &plan, draws, problem.seed);
        let no_plan = |reason: String| ClientError::NoPlan { planner: planner.to_owned(), reason };
        let drawn = drawn.map_err(|e| no_plan(e.to_string()))?;
        plan.outlook = Some(Box::new(drawn.outlook(&problem.objective)));
    }
    Ok(plan)
}

/// As [`plan_until`], with no other outlook than the planner's own.
///
/// # Errors
/// [`ClientError::NoPlan`] when there is no such planner, or it finds no plan.
pub fn plan_alone_until(planner: &str, problem: &Problem, stop: &Stop) -> Result<Plan, ClientError> {
    let no_plan = |reason: String| ClientError::NoPlan { planner: planner.to_owned(), reason };
    if let Some(line) = planner.strip_prefix(EXEC) {
        let program = Program { line, limit: LIMIT, bytes_max: STDOUT_BYTES_MAX };
        planner::planned(problem, |part| program.plan(part, stop)).map_err(|e| no_plan(e.to_string()))
    } else {
        let found = planner::find(planner).map_err(|e| no_plan(e.to_string()))?;
        planner::plan(problem, &*found).map_err(|e| no_plan(e.to_string()))
    }
}

/// Why a program gave no plan.
#[derive(Debug, thiserror::Error)]
enum ProgramFailure {
    #[error("no program is named; hint: write exec:PROGRAM ARGS")]
    Nothing,
    #[error("the program cannot be started: {0}")]
    Start(std::io::Error),
    #[error("the program was still planning after {} s and was ended{stderr}", .limit.as_secs_f64())]
    Late { limit: Duration, stderr: String },
    #[error("the program wrote more than {0} bytes and was ended")]
    TooMuch(usize),
    #[error("it was interrupted")]
    Stopped,
    #[error("the program ended with {status}{stderr}")]
    Ended { status: ExitStatus, stderr: String },
    #[error("what the program wrote is no plan: {error}{stderr}")]
    NoPlan { error: serde_json::Error, stderr: String },
    #[error(transparent)]
    Problem(#[from] planner::PlanFailure),
    #[error("the plan of the program cannot be carried out: {0}")]
    Draft(#[from] planner::DraftFailure),
    #[error("the plan of the program breaks a rule: {0}")]
    Violation(#[from] planner::Violation),
}

/// A program that plans.
struct Program<'a> {
    line: &'a str,
    limit: Duration,
    bytes_max: usize,
}

/// What is read of its plan.
#[derive(Deserialize)]
struct Draft {
    tasks: Vec<DraftTask>,
    #[serde(default)]
    prewarms: Vec<PreWarming>,
    #[serde(default)]
    explanation: Vec<String>,
}

#[derive(Deserialize)]
struct DraftTask {
    task: TaskId,
    #[serde(default)]
    worker: Option<WorkerId>,
    config: ResourceConfig,
    #[serde(default)]
    rank: Option<u32>,
    #[serde(default)]
    optimizations: Vec<Optimization>,
    #[serde(default)]
    why: String,
}

/// A child that is gone with its group when it is dropped, however planning ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(group) = i32::try_from(self.0.id())
            && matches!(self.0.try_wait(), Ok(None))
        {
            // Its children are in its group; the shell's own kill is used because the standard library has
            // none for groups.
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).status();
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

impl Program<'_> {
    fn plan(&self, problem: &Problem, stop: &Stop) -> Result<Plan, ProgramFailure> {
        if self.line.trim().is_empty() {
            return Err(ProgramFailure::Nothing);
        }
        let (stdout, stderr) = self.run(problem, stop)?;
        let read: Result<Draft, _> = serde_json::from_slice(&stdout);
        let draft = read.map_err(|error| ProgramFailure::NoPlan { error, stderr: shown(&stderr) })?;
        let placement = |(place, task): (u32, DraftTask)| Placement {
            task: task.task,
            worker: task.worker,
            config: task.config,
            rank: task.rank.unwrap_or(place),
            optimizations: task.optimizations,
            why: task.why,
        };
        let placements: Vec<Placement> = (0..).zip(draft.tasks).map(placement).collect();
        let name = TaskName::new(NAME).expect("letters are a legal name");
        let mut plan = planner::complete(problem, &name, &placements, draft.explanation.clone())?;
        if !draft.prewarms.is_empty() {
            plan.prewarms = draft.prewarms;
            plan = planner::retimed(problem, &plan, draft.explanation)?;
        }
        planner::validate(problem, &plan)?;
        Ok(plan)
    }

    /// Runs the program to its end; what it wrote to stdout and to stderr.
    fn run(&self, problem: &Problem, stop: &Stop) -> Result<(Vec<u8>, Vec<u8>), ProgramFailure> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec {}", self.line)).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Running(command.spawn().map_err(ProgramFailure::Start)?);
        let began = Instant::now();
        if let Some(mut stdin) = child.0.stdin.take() {
            let problem = problem.clone();
            std::thread::spawn(move || {
                // A program that has decided before it read all closes the pipe: that is its right.
                let _ = serde_json::to_writer(std::io::BufWriter::new(&mut stdin), &problem);
                let _ = stdin.flush();
            });
        }
        let stdout = child.0.stdout.take().map(|pipe| reader(pipe, self.bytes_max));
        let stderr = child.0.stderr.take().map(|pipe| reader(pipe, usize::MAX));
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(ProgramFailure::Start(std::io::Error::other("it has no pipes")));
        };
        let (mut written, mut said) = (None, Vec::new());
        let status = loop {
            if stop.is_asked() {
                return Err(ProgramFailure::Stopped);
            }
            if began.elapsed() >= self.limit {
                drop(child);
                said.extend(stderr.recv_timeout(DRAIN_LIMIT).unwrap_or_default());
                return Err(ProgramFailure::Late { limit: self.limit, stderr: shown(&said) });
            }
            match stdout.recv_timeout(if written.is_none() { LOOK_PAUSE } else { Duration::ZERO }) {
                Ok(all) if all.len() > self.bytes_max => return Err(ProgramFailure::TooMuch(self.bytes_max)),
                Ok(all) => written = Some(all),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK_PAUSE),
            }
            if let Some(status) = child.0.try_wait().map_err(ProgramFailure::Start)? {
                break status;
            }
        };
        let written = match written {
            Some(all) => all,
            None => stdout.recv_timeout(DRAIN_LIMIT).unwrap_or_default(),
        };
        if written.len() > self.bytes_max {
            return Err(ProgramFailure::TooMuch(self.bytes_max));
        }
        said.extend(stderr.recv_timeout(DRAIN_LIMIT).unwrap_or_default());
        if !status.success() {
            return Err(ProgramFailure::Ended { status, stderr: shown(&said) });
        }
        Ok((written, said))
    }
}

/// Reads a pipe to its end on a thread of its own; one byte more than `bytes_max` tells that there was more.
/// Of a pipe without limit only the end is kept.
fn reader(mut pipe: impl Read + Send + 'static, bytes_max: usize) -> Receiver<Vec<u8>> {
    let (tell, told): (Sender<Vec<u8>>, _) = channel();
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let mut piece = [0; 65_536];
        while let Ok(n @ 1..) = pipe.read(&mut piece) {
            all.extend_from_slice(&piece[..n]);
            if bytes_max == usize::MAX && all.len() > 2 * STDERR_BYTES_SHOWN {
                all.drain(..all.len() - STDERR_BYTES_SHOWN);
            }
            if all.len() > bytes_max {
                break;
            }
        }
        // Nobody may be left to be told.
        let _ = tell.send(all);
    });
    told
}

/// The end of what a program said, for an error message.
fn shown(stderr: &[u8]) -> String {
    let from = stderr.len().saturating_sub(STDERR_BYTES_SHOWN);
    let text = String::from_utf8_lossy(&stderr[from..]);
    match text.trim() {
        "" => "; it said nothing on stderr".to_owned(),
        said => format!("; it said:\n{said}"),
    }
}

#[cfg(test)]
mod tests;

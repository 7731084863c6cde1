//! Python functions that travel with their workflow, run by processes that stay ([`runner`]).
//!
//! One runner per task at a time, kept for the next ones: a call costs a frame there and a frame back
//! ([`frame`]). It ends when its function crashes, takes too long or is given up, and the next call starts
//! another. Starting an interpreter and importing what functions need is told apart from running them
//! ([`Ran::init_ms`]), and done beforehand where it is known what will run ([`Executor::prepare`]).

mod failure;
mod frame;
mod link;
mod runner;
mod socket;
mod start;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use foresail_schemas::Workflow;
use foresail_schemas::code::PythonCall;
use foresail_schemas::run::FailureKind;
use foresail_schemas::workflow::Work;

use self::failure::Death;
use self::frame::{Answer, Output, Request, refused};
use self::link::Link;
use self::runner::{Patience, Runner, Silence, StartError};
use super::command::oom_kills;
use super::{Call, Executor, Ran};
use crate::data::kept::{Kept, Object};
use crate::registry::TaskError;

/// Names the interpreter of a worker.
pub const PYTHON_VARIABLE: &str = "FORESAIL_PYTHON";
/// The interpreter where none is named.
const PYTHON_DEFAULT: &str = "python3";
/// Largest result of a task by default, in bytes: all outputs together.
pub const RESULT_BYTES_MAX: u64 = 8 << 30;
/// Runners that stand idle.
const IDLE_MAX: usize = 16;
/// Functions that are loaded before they are called.
const LOADED_MAX: usize = 64;
/// How long loading them may take.
const LOAD_LIMIT: Duration = Duration::from_secs(60);

/// Runs Python functions.
#[derive(Debug)]
pub struct PythonExecutor {
    settings: PythonSettings,
    idle: Mutex<Vec<Runner>>,
    /// Processes that the kernel had ended for memory when it was asked last.
    ooms: AtomicU64,
}

/// Settings of a [`PythonExecutor`].
#[derive(Debug, Clone)]
pub struct PythonSettings {
    /// The interpreter.
    pub program: PathBuf,
    /// File in which the kernel counts the processes it ended because memory ran out, as a line `oom_kill N`.
    pub oom_counter: Option<PathBuf>,
    /// Largest result.
    pub result_bytes_max: u64,
}

impl Default for PythonSettings {
    /// The interpreter that [`PYTHON_VARIABLE`] names, else `python3`.
    fn default() -> Self {
        let named = std::env::var_os(PYTHON_VARIABLE).filter(|name| !name.is_empty());
        let program = PathBuf::from(named.unwrap_or_else(|| PYTHON_DEFAULT.into()));
        Self { program, oom_counter: None, result_bytes_max: RESULT_BYTES_MAX }
    }
}

/// A runner for a call, and how long it took to start where it is new.
struct Taken {
    runner: Runner,
    start_ms: f64,
    /// Bytes that it kept before the call and that are no inputs of it.
    kept_bytes: u64,
}

impl PythonExecutor {
    /// An executor without runners; they start when they are needed.
    #[must_use]
    pub fn new(settings: PythonSettings) -> Self {
        let executor = Self { settings, idle: Mutex::default(), ooms: AtomicU64::new(0) };
        executor.has_new_ooms();
        executor
    }

    /// Ids of the processes that stand idle.
    #[must_use]
    pub fn idle_pids(&self) -> Vec<u32> {
        self.idle().iter().map(Runner::pid).collect()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Runner>> {
        // Every change is one push or pop.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A runner, rather one that keeps some of these objects.
    fn take(&self, inputs: &[Option<Object>]) -> Result<Taken, TaskError> {
        // One that was ended while it stood idle is nobody's failure.
        while let Some(mut runner) = self.pop(inputs) {
            if runner.lives() {
                let kept_bytes = runner.link.kept_bytes().saturating_sub(kept_in(inputs, &runner.link));
                return Ok(Taken { runner, start_ms: 0.0, kept_bytes });
            }
        }
        self.start()
    }

    fn pop(&self, inputs: &[Option<Object>]) -> Option<Runner> {
        let mut idle = self.idle();
        // Of those that keep as much, the one that was used last.
        let best = (0..idle.len()).max_by_key(|&at| (kept_in(inputs, &idle[at].link), at))?;
        Some(idle.remove(best))
    }

    fn start(&self) -> Result<Taken, TaskError> {
        let began = Instant::now();
        let runner = Runner::start(&self.settings.program).map_err(|error| self.not_started(&error))?;
        tracing::debug!(python = runner.about.python, program = runner.about.executable, "a runner is ready");
        Ok(Taken { runner, start_ms: ms_since(began), kept_bytes: 0 })
    }

    fn give_back(&self, runner: Runner) {
        let mut idle = self.idle();
        idle.push(runner);
        if idle.len() > IDLE_MAX {
            // Rather one that nobody would miss.
            let at = idle.iter().position(|runner| runner.link.kept_bytes() == 0).unwrap_or(0);
            let surplus = idle.remove(at);
            drop(idle);
            drop(surplus);
        }
    }

    /// Whether the kernel has ended processes for memory since it was asked last.
    fn has_new_ooms(&self) -> bool {
        let Some(counter) = &self.settings.oom_counter else { return false };
        let ooms = oom_kills(counter);
        self.ooms.swap(ooms, Ordering::Relaxed) < ooms
    }

    fn not_started(&self, error: &StartError) -> TaskError {
        let program = self.settings.program.display();
        let hint = format!("hint: name a Python 3.9 or later with `--python PATH` or {PYTHON_VARIABLE}");
        match error {
            StartError::NotRun(cause) => TaskError::of(
                FailureKind::UnknownFunction,
                format!(
                    "the Python interpreter `{program}` of the worker could not be started: {cause}; {hint}"
                ),
            ),
            StartError::Refused(text) => TaskError::of(FailureKind::UnknownFunction, text.clone()),
            StartError::NotReady(silence, printed) => {
                let how = match silence {
                    Silence::Died(status) => format!("ended before it was ready ({status})"),
                    Silence::Garbage(what) => format!("said what no Foresail runner says: {what}"),
                    Silence::TimedOut | Silence::GivenUp => "was not ready in time".to_owned(),
                };
                let memory = matches!(silence, Silence::Died(_)) && self.has_new_ooms();
                let kind = if memory { FailureKind::OutOfMemory } else { FailureKind::TaskCrash };
                let cause = if memory { "; memory ran out" } else { "" };
                let text = format!("the Python interpreter `{program}` of the worker {how}{cause}; {hint}");
                TaskError::of(kind, failure::with(text, printed))
            }
        }
    }

    /// Asks, and once more with the code where the runner does not have that.
    fn ask(
        runner: &mut Runner,
        request: &Request,
        code: impl Fn() -> Result<Vec<u8>, TaskError>,
        patience: Patience<'_>,
    ) -> Result<Result<Answer, Silence>, TaskError> {
        let (mut frame, files) = (Vec::new(), request.descriptors());
        let mut needs_code = !runner.has.contains(&request.digest);
        loop {
            let code = if needs_code { code()? } else { Vec::new() };
            request.write(&code, &mut frame)?;
            match runner.ask(&frame, &files, patience) {
                Ok(Answer::NeedCode) if !needs_code => needs_code = true,
                Ok(answer) => {
                    if matches!(answer, Answer::Done { .. }) && needs_code {
                        runner.note_code(request.digest);
                    }
                    return Ok(Ok(answer));
                }
                Err(silence) => return Ok(Err(silence)),
            }
        }
    }

    fn ended(
        &self,
        call: &Call,
        mut taken: Taken,
        answer: Result<Answer, Silence>,
    ) -> Result<Ran, TaskError> {
        let printed = taken.runner.take_printed();
        match answer {
            Ok(Answer::Done { outputs, exec_ms, init_ms }) => {
                let expected = call.spec().outputs.len().max(1);
                if outputs.len() != expected {
                    let text = format!("the runner gave {} outputs, the task has {expected}", outputs.len());
                    return Err(TaskError::of(FailureKind::TaskCrash, text));
                }
                let init_ms = init_ms + taken.start_ms;
                let peak_memory_mb = taken.runner.take_peak_mb(exec_ms);
                let others_mb = taken.kept_bytes as f64 / f64::from(1 << 20);
                let peak_memory_mb = (peak_memory_mb - others_mb).max(0.0);
                let object = |output| kept_or_here(output, &taken.runner.link, call);
                let outputs = outputs.into_iter().map(object).collect();
                self.give_back(taken.runner);
                let printed = Some(printed).filter(|text| !text.is_empty());
                Ok(Ran { outputs, exec_ms, peak_memory_mb, init_ms, printed })
            }
            Ok(Answer::Failed { category, text, exception }) => {
                let error = failure::told(call, category, &text, &exception, &printed);
                taken.runner.take_peak_mb(f64::INFINITY);
                // One that ran out of memory would begin the next task with what it still holds.
                if error.kind != FailureKind::OutOfMemory {
                    self.give_back(taken.runner);
                }
                Err(error)
            }
            Ok(other) => Err(garbage(&format!("{other:?}"), &printed)),
            Err(Silence::Garbage(what)) => Err(garbage(&what, &printed)),
            Err(Silence::Died(status)) => {
                let death = if self.has_new_ooms() { Death::OutOfMemory } else { Death::Other };
                Err(failure::died(call, status, death, &printed))
            }
            Err(Silence::TimedOut) => {
                let error = call.timed_out();
                Err(TaskError::of(error.kind, failure::with(error.message, &printed)))
            }
            Err(Silence::GivenUp) => Err(super::given_up()),
        }
    }

    /// Loads functions in one runner; gives how long that took.
    fn load(&self, workflow: &Workflow, calls: &[&PythonCall]) -> f64 {
        let mut taken = match self.take(&[]) {
            Ok(taken) => taken,
            Err(error) => {
                // The task that needs it tells the user.
                tracing::info!(error = error.message, "no runner is started beforehand");
                return 0.0;
            }
        };
        let patience = Patience { ends: Some(Instant::now() + LOAD_LIMIT), cancel: None };
        let mut load_ms = taken.start_ms;
        for python in calls {
            let Ok(request) = Request::load(python) else { continue };
            if taken.runner.has.contains(&request.digest) {
                continue;
            }
            match Self::ask(&mut taken.runner, &request, || code(workflow, python), patience) {
                Ok(Ok(Answer::Done { init_ms, .. })) => load_ms += init_ms,
                // The task that calls it tells the user what is wrong with it.
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(silence)) => {
                    tracing::info!(?silence, "a function cannot be loaded beforehand");
                    return load_ms;
                }
            }
        }
        // What was printed while modules were imported belongs to no task.
        let _ = taken.runner.take_printed();
        self.give_back(taken.runner);
        load_ms
    }
}

impl Executor for PythonExecutor {
    fn takes(&self, work: &Work) -> bool {
        matches!(work, Work::Python { .. })
    }

    fn execute(&self, call: &Call) -> Result<Ran, TaskError> {
        let Work::Python { python } = &call.spec().run else {
            return Err(TaskError::of(FailureKind::UnknownFunction, "not a Python function"));
        };
        let mut taken = self.take(&call.inputs)?;
        let link = &taken.runner.link;
        let keep_bytes_max = match taken.runner.may_keep {
            true => call.keep_bytes_max.saturating_sub(link.kept_bytes()),
            false => 0,
        };
        let result_bytes_max = self.settings.result_bytes_max;
        let request = match Request::call(call, python, result_bytes_max, link, keep_bytes_max) {
            Ok(request) => request,
            Err(error) => {
                self.give_back(taken.runner);
                return Err(error);
            }
        };
        let ends = call.timeout().map(|limit| Instant::now() + limit);
        let patience = Patience { ends, cancel: Some(&call.cancel) };
        let answer = Self::ask(&mut taken.runner, &request, || code(&call.workflow, python), patience);
        match answer {
            Ok(answer) => self.ended(call, taken, answer),
            Err(error) => {
                self.give_back(taken.runner);
                Err(error)
            }
        }
    }

    fn prepare(&self, workflow: &Workflow, tasks: &[u32], lanes: u32) -> f64 {
        let mut seen = HashSet::new();
        let python = |task: &u32| match &workflow.task(*task).run {
            Work::Python { python } => Some(python),
            Work::Command(_) | Work::Function { .. } => None,
        };
        let all: Vec<&PythonCall> = tasks.iter().filter_map(python).collect();
        let calls: Vec<&PythonCall> =
            all.iter().copied().filter(|python| seen.insert(&python.code)).take(LOADED_MAX).collect();
        let runners = (lanes as usize).min(all.len()).min(IDLE_MAX);
        std::thread::scope(|scope| {
            let loading: Vec<_> = (0..runners).map(|_| scope.spawn(|| self.load(workflow, &calls))).collect();
            loading.into_iter().filter_map(|load| load.join().ok()).fold(0.0, f64::max)
        })
    }
}

/// Bytes of the objects that lie in the process of a runner.
fn kept_in(objects: &[Option<Object>], link: &Arc<Link>) -> u64 {
    let bytes = |object: &Object| match object {
        Object::Kept(kept) if kept.number_in(link).is_some() => object.len(),
        Object::Kept(_) | Object::Here(_) => 0,
    };
    objects.iter().flatten().map(bytes).sum()
}

/// An output as others take it.
fn kept_or_here(output: Output, link: &Arc<Link>, call: &Call) -> Object {
    match output {
        Output::Here(content) => Object::Here(content),
        Output::Kept { number, spans } => {
            let kept = Kept::new(Arc::clone(link) as _, number, spans, call.outputs_dir.as_deref());
            link.keeps(kept.len());
            Object::Kept(Arc::new(kept))
        }
    }
}

/// The pickle of a function.
fn code(workflow: &Workflow, python: &PythonCall) -> Result<Vec<u8>, TaskError> {
    let text = workflow.spec().code.get(&python.code).ok_or_else(|| {
        refused(format!("the function `{}` is not in the `code` of the workflow", python.code))
    })?;
    BASE64
        .decode(text)
        .map_err(|e| refused(format!("the code of function `{}` is not base64: {e}", python.code)))
}

fn garbage(what: &str, printed: &str) -> TaskError {
    let text = format!(
        "the process of the function said what cannot be understood: {what}; hint: the function must leave \
         the descriptors of its process alone that it did not open itself"
    );
    TaskError::of(FailureKind::TaskCrash, failure::with(text, printed))
}

fn ms_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests;

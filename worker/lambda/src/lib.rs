//! The worker as an AWS Lambda function: a custom runtime whose events are invocations.
//!
//! The event is an [`Invocation`] as JSON and is carried out by the same code as in a worker process. What a
//! Lambda function has beside that is here: its request id names the invocation, its deadline ends it in
//! time, the first event of a process is its cold start. A line of JSON per invocation goes to the log, for
//! CloudWatch Logs Insights; the measurements go to metad as those of any worker do. Times in ms, memory in
//! MB.
//!
//! A program that calls [`run_worker_if_asked`] first thing in `main` is its own function: its binary, named
//! `bootstrap` in a zip file, is what `foresail deploy aws` takes.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foresail_aws::deploy::EVENT_AGE_S_MAX;
use foresail_aws::settings::FunctionSettings;
use foresail_aws::{LambdaHost, LambdaSettings};
use foresail_schemas::invocation::Invocation;
use foresail_schemas::metric::StartState;
use foresail_schemas::run::WorkerUsage;
use foresail_worker::Registry;
use foresail_worker::host::local::settings::{CACHE_BYTES_MAX, INLINE_BYTES_MAX, LIFE_MS_MAX};
use foresail_worker::host::named_of;
use foresail_worker::runtime::settings::ProcessSettings;
use foresail_worker::runtime::{
    Alone, BLOCKING_THREADS_MAX, Carried, Fitness, Started, end_at_once, log_to_stderr,
};
use foresail_worker::serve::Served;
use jiff::{SignedDuration, Timestamp};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// Where the runtime of Lambda is; a process that has it is a function.
pub const RUNTIME_VARIABLE: &str = "AWS_LAMBDA_RUNTIME_API";
/// How a function says why its process was started.
const INITIALIZATION_VARIABLE: &str = "AWS_LAMBDA_INITIALIZATION_TYPE";
/// Memory of the function in MB.
const MEMORY_VARIABLE: &str = "AWS_LAMBDA_FUNCTION_MEMORY_SIZE";
/// What is left of the function's time when an invocation is given up: its last words, and the answer to
/// Lambda.
const ENDING_MARGIN: Duration = Duration::from_secs(4);
/// Part of the memory for objects that are kept.
const CACHE_SHARE: u64 = 4;
/// Status of a process that shall not be used again.
const EXIT_REPLACED: i32 = 86;

/// Becomes a Lambda function and never returns if Lambda started this process; otherwise returns at once.
pub fn run_worker_if_asked(registry: &Registry) {
    if std::env::var_os(RUNTIME_VARIABLE).is_some() {
        let code = if main(registry) == ExitCode::SUCCESS { 0 } else { 1 };
        let _ = std::io::stdout().flush();
        end_at_once(code);
    }
}

/// The whole life of a function.
#[must_use]
pub fn main(registry: &Registry) -> ExitCode {
    log_to_stderr();
    match serve(registry, Instant::now()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(registry: &Registry, began: Instant) -> Result<(), Error> {
    let settings = FunctionSettings::read(|name| std::env::var(name).ok())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()?;
    runtime.block_on(async {
        let config = foresail_aws::connect(None).await;
        let of_host =
            LambdaSettings { prefix: settings.prefix.clone(), memory_mb: settings.memory_mb.clone() };
        let host = Arc::new(LambdaHost::new(&config, of_host));
        let worker = Alone::new(registry, process_settings(&settings), host)?;
        let function = Function {
            metad: settings.metad.clone(),
            state: Mutex::new(State { worker, start: first_start(), init_ms: ms_since(began) }),
        };
        lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| function.carry_out(event))).await
    })
}

/// Settings of a worker in a function of this size.
fn process_settings(settings: &FunctionSettings) -> ProcessSettings {
    let memory_mb = std::env::var(MEMORY_VARIABLE).ok().and_then(|text| text.parse::<u64>().ok());
    let share = memory_mb.map_or(CACHE_BYTES_MAX, |mb| (mb << 20) / CACHE_SHARE);
    let epoch = Timestamp::now().as_microsecond();
    ProcessSettings {
        // Others are asked for through Lambda itself.
        host: String::new(),
        store: settings.store.clone(),
        coordination: settings.coordination.clone(),
        shared: None,
        // What a process of this sandbox that ended badly left, the next one sends.
        spool_dir: settings.data.join("spool"),
        scratch_dir: settings.data.join("scratch").join(format!("{epoch}-{}", std::process::id())),
        inline_bytes_max: INLINE_BYTES_MAX,
        cache_bytes_max: CACHE_BYTES_MAX.min(share),
        lanes: 1,
        life_ms_max: LIFE_MS_MAX,
        oom_counter: None,
        groups: Vec::new(),
        token: settings.token.clone(),
    }
}

/// Where Lambda keeps processes ready, the first event of one finds it warm.
fn first_start() -> StartState {
    match std::env::var(INITIALIZATION_VARIABLE).as_deref() {
        Ok("provisioned-concurrency" | "snap-start") => StartState::Warm,
        _ => StartState::Cold,
    }
}

/// A function between its events.
struct Function {
    /// The one metad that it works for.
    metad: Option<String>,
    state: Mutex<State>,
}

struct State {
    worker: Alone,
    /// How the next invocation begins.
    start: StartState,
    /// From the first instruction of the process until it could be asked.
    init_ms: f64,
}

impl Function {
    /// Carries out the invocation that an event is.
    async fn carry_out(&self, event: LambdaEvent<Value>) -> Result<Value, Error> {
        let arrived = Instant::now();
        let mut state = self.state.lock().await;
        let LambdaEvent { payload, context } = event;
        let invocation: Invocation = serde_json::from_value(payload).map_err(|e| {
            format!("the event is no invocation: {e}; hint: host and worker must be of one version")
        })?;
        self.check(&invocation)?;
        let (start, init_ms) = (state.start, state.init_ms);
        state.start = StartState::Warm;
        let is_cold = start == StartState::Cold;
        // Lambda bills the initialisation of a cold start with its invocation; what an event waited for a
        // sandbox before that it does not.
        let init = SignedDuration::from_micros((init_ms * 1000.0) as i64);
        let now = Timestamp::now();
        let invoked_at = if is_cold { now - init } else { now };
        let queued_ms = queued_ms(invocation.asked_at, invoked_at);
        let started = Started {
            instance: named_of(invocation.worker.as_ref(), &context.request_id),
            invocation: invocation.clone(),
            start,
            invoked_at,
            init_ms: is_cold.then_some(init_ms),
            queued_ms: queued_ms.unwrap_or(0.0),
        };
        let instance = started.instance.clone();
        let ends = ends(arrived, context.deadline, now);
        let Carried { usage, peak_memory_mb, fitness } = state.worker.carry_out(started, ends).await;
        let whole_ms = ms_since(arrived) + if is_cold { init_ms } else { 0.0 };
        let WorkerUsage { billed_ms, init_ms, .. } = usage;
        report(&json!({"foresail": {
            "request_id": context.request_id,
            "instance": instance,
            "run": invocation.run,
            "start": start,
            "queued_ms": queued_ms,
            "init_ms": is_cold.then_some(init_ms),
            "billed_ms": billed_ms,
            // What came after the run was told: the measurements, and the answer to Lambda.
            "after_ms": (whole_ms.ceil() - billed_ms).max(0.0),
            "memory_mb": invocation.config.memory_mb,
            "gb_s": f64::from(invocation.config.memory_mb) / 1024.0 * billed_ms / 1000.0,
            "peak_memory_mb": peak_memory_mb,
        }}));
        if fitness == Fitness::Unfit {
            // Whatever goes on in the process would slow the next invocation down, and a frozen sandbox wakes
            // up with it. Lambda starts another process; an answer would only keep this one.
            tracing::warn!("something of the last invocation goes on: the process makes way for another");
            end_at_once(EXIT_REPLACED);
        }
        Ok(serde_json::to_value(Served { instance, start, usage, peak_memory_mb })?)
    }

    /// The token goes to metad, and code comes from there.
    fn check(&self, invocation: &Invocation) -> Result<(), String> {
        let Some(served) = &self.metad else { return Ok(()) };
        if served.trim_end_matches('/') == invocation.metad.trim_end_matches('/') {
            return Ok(());
        }
        let asked = &invocation.metad;
        Err(format!(
            "the function works for metad at `{served}`, not `{asked}`; hint: deploy one for that metad"
        ))
    }
}

/// When an invocation is given up: before the deadline of the function, which is in ms since 1970. Emulators
/// name one in the past; then the longest life of a function holds.
fn ends(arrived: Instant, deadline_ms: u64, now: Timestamp) -> Instant {
    let left_ms = i64::try_from(deadline_ms).unwrap_or(i64::MAX).saturating_sub(now.as_millisecond());
    let left = match u64::try_from(left_ms) {
        Ok(left_ms @ 1..) => Duration::from_millis(left_ms),
        _ => Duration::from_secs_f64(LIFE_MS_MAX / 1000.0),
    };
    arrived + left.saturating_sub(ENDING_MARGIN)
}

/// What an event waited from being asked for until a sandbox took it up, or began to make itself ready for
/// it, in ms. The clocks are those of two machines: where the second is behind it waited nothing, and where
/// it is further ahead than Lambda keeps an event, nothing is known.
fn queued_ms(asked_at: Option<Timestamp>, taken_at: Timestamp) -> Option<f64> {
    let waited_ms = taken_at.duration_since(asked_at?).as_secs_f64() * 1000.0;
    (waited_ms <= f64::from(EVENT_AGE_S_MAX) * 1000.0).then_some(waited_ms.max(0.0))
}

/// A line of the function's log.
fn report(line: &Value) {
    // A log that cannot be written keeps no task from its end.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn ms_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_event_waited_is_never_negative_and_not_believed_beyond_its_longest_age() {
        let asked = Timestamp::now();
        let after = |ms: i64| queued_ms(Some(asked), asked + SignedDuration::from_millis(ms));
        for (ms, expect) in [(-5_000, Some(0.0)), (0, Some(0.0)), (250, Some(250.0)), (300_001, None)] {
            assert_eq!(after(ms), expect, "{ms}");
        }
        assert_eq!(queued_ms(None, asked), None);
    }

    #[test]
    fn an_invocation_ends_before_its_function_and_a_deadline_in_the_past_is_none() {
        let (arrived, now) = (Instant::now(), Timestamp::now());
        let in_10_s = (now.as_millisecond() + 10_000) as u64;
        assert_eq!(ends(arrived, in_10_s, now), arrived + Duration::from_secs(6));
        let longest = Duration::from_secs_f64(LIFE_MS_MAX / 1000.0);
        assert_eq!(ends(arrived, 600_000, now), arrived + longest - ENDING_MARGIN);
        let in_1_s = (now.as_millisecond() + 1_000) as u64;
        assert_eq!(ends(arrived, in_1_s, now), arrived, "too late for anything but the last words");
    }
}

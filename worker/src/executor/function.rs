//! Functions of the registry, called on the thread of the attempt.
//!
//! A panic is caught and told as a crash. A thread cannot be killed: when a function outlives its time-out or
//! is given up, whoever waits is told so at once, the thread goes on until the function looks at its cancel
//! flag or ends, and it counts as stray; a worker with strays begins no further task, and its process is
//! replaced (see [`FunctionExecutor::strays`]).

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use foresail_schemas::run::FailureKind;
use foresail_schemas::workflow::Work;

use super::overseer::Overseer;
use super::{Call, Executor, Ran, given_up, memory};
use crate::registry::{Registry, TaskError, TaskFunction, TaskInput, TaskOutput};

/// Runs registered functions.
#[derive(Debug)]
pub struct FunctionExecutor {
    registry: Registry,
    overseer: Overseer,
}

type Outcome = Result<(TaskOutput, f64), TaskError>;

impl FunctionExecutor {
    /// An executor for the functions of `registry`.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self { registry, overseer: Overseer::default() }
    }

    /// Counts threads that go on although their calls were given up.
    #[must_use]
    pub fn strays(&self) -> Arc<AtomicUsize> {
        self.overseer.strays()
    }

    fn unknown(&self, name: &str) -> TaskError {
        let known = self.registry.names().join("`, `");
        let detail = format!("the worker has no function `{name}`; it has `{known}`");
        TaskError::of(FailureKind::UnknownFunction, detail)
    }
}

impl Executor for FunctionExecutor {
    fn takes(&self, work: &Work) -> bool {
        matches!(work, Work::Function { .. })
    }

    fn execute(&self, call: &Call) -> Result<Ran, TaskError> {
        let Work::Function { function: name, params } = &call.spec().run else {
            return Err(TaskError::of(FailureKind::UnknownFunction, "not a function"));
        };
        let function = self.registry.get(name.as_str()).ok_or_else(|| self.unknown(name.as_str()))?;
        let inputs = call.contents()?;
        let there = || inputs.iter().enumerate().filter_map(|(at, input)| Some((at, input.as_ref()?)));
        let is_there = |at: usize| inputs.get(at).is_some_and(Option::is_some);
        let names = call.input_names().into_iter().enumerate().filter(|(at, _)| is_there(*at));
        let input = TaskInput {
            run: call.run.clone(),
            task: call.spec().id.clone(),
            attempt: call.attempt,
            params: params.clone(),
            inputs: there().map(|(_, input)| input.clone()).collect(),
            input_names: names.map(|(_, name)| name).collect(),
            input_places: there().map(|(at, _)| at).collect(),
            outputs: call.outputs(),
            cancel: call.cancel.clone(),
        };
        let expected = input.outputs.len();
        memory::reset_peak();
        let number = self.overseer.begin(call).map_err(|error| {
            let detail =
                format!("no thread to watch the function: {error}; the worker is out of memory or threads");
            TaskError::of(FailureKind::OutOfMemory, detail)
        })?;
        let outcome = guarded(&function, input);
        if self.overseer.end(number) {
            // Told already.
            return Err(given_up());
        }
        let (TaskOutput(outputs), exec_ms) = outcome?;
        if outputs.len() != expected {
            let given = outputs.len();
            let detail = format!("function `{name}` gave {given} outputs, the task declares {expected}");
            return Err(TaskError::new(detail));
        }
        let outputs = outputs.into_iter().map(Into::into).collect();
        Ok(Ran { outputs, exec_ms, peak_memory_mb: memory::peak_memory_mb(), ..Ran::default() })
    }
}

fn guarded(function: &Arc<TaskFunction>, input: TaskInput) -> Outcome {
    let started = Instant::now();
    // The function's state dies with the call or is the user's own concern; nothing of ours is left half
    // changed.
    match catch_unwind(AssertUnwindSafe(|| function(input))) {
        Ok(result) => result.map(|output| (output, started.elapsed().as_secs_f64() * 1000.0)),
        Err(payload) => Err(TaskError::of(FailureKind::TaskCrash, format!("panicked: {}", words(&*payload)))),
    }
}

fn words(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("the panic carried no text")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::executor::GiveUp;
    use crate::executor::testing::call;
    use serde_json::json;

    fn run(registry: Registry, task: serde_json::Value) -> Result<Ran, TaskError> {
        FunctionExecutor::new(registry).execute(&call(task, vec!["in".into()]))
    }

    #[test]
    fn a_function_gets_inputs_and_gives_outputs() {
        let registry = Registry::new().register("f", |input: TaskInput| {
            assert_eq!(input.input_names, ["value"]);
            Ok(format!("{}+{}", String::from_utf8_lossy(&input.inputs[0]), input.params["x"]).into())
        });
        let task = json!({"id": "t", "name": "f", "run": {"function": "f", "params": {"x": 7}},
            "inputs": [{"value": 1}]});
        let ran = run(registry, task).unwrap();
        assert_eq!(ran.outputs[0], "in+7");
        assert!(ran.peak_memory_mb > 0.0);
    }

    #[test]
    fn a_function_gets_the_inputs_that_exist_and_hears_which_these_are() {
        let registry = Registry::new().register("f", |input: TaskInput| {
            assert_eq!(
                (input.input_names.as_slice(), input.input_places.as_slice()),
                (&["7".into()][..], &[1][..])
            );
            Ok(input.inputs[0].clone().into())
        });
        let task = json!({"id": "t", "name": "f", "run": {"function": "f"},
            "inputs": [{"value": 1}, {"uri": "7"}, {"value": 2}]});
        let mut call = call(task, vec!["a".into(), "b".into(), "c".into()]);
        (call.inputs[0], call.inputs[2]) = (None, None);
        assert_eq!(FunctionExecutor::new(registry).execute(&call).unwrap().outputs[0], "b");
    }

    #[test]
    fn a_panic_is_a_crash_with_its_message() {
        let registry = Registry::new().register("f", |_| panic!("lost {}", 3));
        let error = run(registry, json!({"id": "t", "name": "f", "run": {"function": "f"}})).unwrap_err();
        assert_eq!(error.kind, FailureKind::TaskCrash);
        assert_eq!(error.message, "panicked: lost 3");
    }

    #[test]
    fn an_unknown_function_is_told_with_those_that_exist() {
        let error =
            run(Registry::new(), json!({"id": "t", "name": "f", "run": {"function": "g"}})).unwrap_err();
        assert_eq!(error.kind, FailureKind::UnknownFunction);
        assert!(error.message.contains("`g`") && error.message.contains("foresail.burn"), "{error:?}");
    }

    #[test]
    fn the_wrong_number_of_outputs_is_an_error_of_the_task() {
        let registry = Registry::new().register("f", |_| Ok(TaskOutput::default()));
        let error = run(registry, json!({"id": "t", "name": "f", "run": {"function": "f"}})).unwrap_err();
        assert!(error.message.contains("gave 0 outputs"), "{error:?}");
    }

    /// What a call is told by the overseer, while its function runs on.
    fn told(executor: &Arc<FunctionExecutor>, mut call: Call) -> TaskError {
        let (to_test, told) = channel();
        call.give_up = GiveUp(Arc::new(move |error| drop(to_test.send(error))));
        let of_thread = Arc::clone(executor);
        std::thread::spawn(move || of_thread.execute(&call));
        let error = told.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(executor.strays().load(Ordering::SeqCst), 1);
        error
    }

    fn no_stray_is_left(executor: &FunctionExecutor) {
        let (strays, until) = (executor.strays(), Instant::now() + Duration::from_secs(20));
        while strays.load(Ordering::SeqCst) > 0 {
            assert!(Instant::now() < until, "the function did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_function_past_its_limit_is_a_timeout_and_is_told_to_stop() {
        let executor = Arc::new(FunctionExecutor::new(Registry::new()));
        let task = json!({"id": "t", "name": "f", "timeout_ms": 50,
            "run": {"function": "foresail.burn", "params": {"sleep_ms": 60_000}}});
        let error = told(&executor, call(task, vec![]));
        assert_eq!(error.kind, FailureKind::Timeout);
        assert!(error.message.contains("50 ms"), "{error:?}");
        no_stray_is_left(&executor);
    }

    #[test]
    fn a_cancelled_call_is_given_up_although_the_function_goes_on() {
        let executor = Arc::new(FunctionExecutor::new(Registry::new().register("deaf", |_| {
            std::thread::sleep(Duration::from_millis(400));
            Ok(TaskOutput::default())
        })));
        let call = call(json!({"id": "t", "name": "f", "run": {"function": "deaf"}}), vec![]);
        call.cancel.set();
        assert_eq!(told(&executor, call).kind, FailureKind::Cancelled);
        no_stray_is_left(&executor);
    }
}

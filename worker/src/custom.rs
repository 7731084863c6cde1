//! Optimisations of one's own: the worker half, which sees what a task reads and writes.
//!
//! A task with `Optimization::Custom { name, params }` in its workflow or its plan gets the optimisation that
//! the worker's [`Registry`] has under this name: [`CustomOptimization::before`] is called with the inputs,
//! [`CustomOptimization::after`] with the outputs before they are stored. Several are called like the layers
//! of an onion: the last `after` is undone by the first `before`. A result must not change: what `after`
//! makes of an output, `before` has to undo in every task that reads it, which is why both are told whether
//! an object stays [`Reach::Within`] tasks of the same optimisation.

use std::sync::Arc;

use bytes::Bytes;
use foresail_schemas::id::{RunId, TaskId, TaskName};
use foresail_schemas::optimization::Optimization;
use foresail_schemas::plan::Plan;
use foresail_schemas::run::FailureKind;
use foresail_schemas::workflow::{Input, Workflow};
use serde_json::Value;

use crate::registry::{Registry, TaskError};

/// The worker half of an optimisation. Called on the thread of the attempt, by several at once.
pub trait CustomOptimization: Send + Sync {
    /// The inputs of a task that begins, in its order, without optional ones that do not exist; what is
    /// returned is what its code reads.
    ///
    /// # Errors
    /// [`TaskError`], which fails the attempt.
    fn before(&self, task: &OptimizedTask<'_>, inputs: Vec<Bytes>) -> Result<Vec<Bytes>, TaskError> {
        let _ = task;
        Ok(inputs)
    }

    /// The outputs of a task that has ended, in its order; what is returned is what is stored.
    ///
    /// # Errors
    /// [`TaskError`], which fails the attempt.
    fn after(&self, task: &OptimizedTask<'_>, outputs: Vec<Bytes>) -> Result<Vec<Bytes>, TaskError> {
        let _ = task;
        Ok(outputs)
    }
}

/// The task that an optimisation is called for.
#[derive(Debug, Clone)]
pub struct OptimizedTask<'a> {
    /// The run.
    pub run: &'a RunId,
    /// The task.
    pub task: &'a TaskId,
    /// The parameters written beside the name of the optimisation.
    pub params: &'a Value,
    /// How far each of the inputs given reaches.
    pub inputs: Vec<Reach>,
    /// How far each output reaches.
    pub outputs: Vec<Reach>,
}

/// Who reads and writes an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The task that writes it and all that read it have this optimisation: nobody else sees its bytes.
    Within,
    /// Somebody else sees its bytes: another task, or the user who fetches a result.
    Beyond,
}

/// The optimisations of one task, as its attempt calls them.
pub(crate) struct Customs {
    run: RunId,
    workflow: Arc<Workflow>,
    task: u32,
    layers: Vec<Layer>,
}

struct Layer {
    name: TaskName,
    params: Value,
    half: Option<Arc<dyn CustomOptimization>>,
    inputs: Vec<Reach>,
    outputs: Vec<Reach>,
}

impl Customs {
    /// Those that the workflow forces and those that the plan adds.
    pub fn of(registry: &Registry, run: &RunId, workflow: &Arc<Workflow>, plan: &Plan, task: u32) -> Self {
        let layers = named(workflow, plan, task).into_iter().map(|(name, params)| Layer {
            half: registry.optimization(name.as_str()),
            inputs: input_reaches(workflow, plan, task, name),
            outputs: output_reaches(workflow, plan, task, name),
            name: name.clone(),
            params: params.clone(),
        });
        Self { run: run.clone(), workflow: Arc::clone(workflow), task, layers: layers.collect() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// What the code of the task reads.
    pub fn before(&self, inputs: Vec<Option<Bytes>>) -> Result<Vec<Option<Bytes>>, TaskError> {
        if self.layers.is_empty() {
            return Ok(inputs);
        }
        let is_there: Vec<bool> = inputs.iter().map(Option::is_some).collect();
        let mut given: Vec<Bytes> = inputs.into_iter().flatten().collect();
        for layer in self.layers.iter().rev() {
            let expected = given.len();
            let mut told = self.told(layer);
            let mut there = is_there.iter();
            told.inputs.retain(|_| there.next().is_some_and(|is_there| *is_there));
            given = self.half(layer)?.before(&told, given)?;
            self.check(layer, "inputs", expected, given.len())?;
        }
        let mut given = given.into_iter();
        Ok(is_there.into_iter().map(|is_there| if is_there { given.next() } else { None }).collect())
    }

    /// What is stored.
    pub fn after(&self, mut outputs: Vec<Bytes>) -> Result<Vec<Bytes>, TaskError> {
        for layer in &self.layers {
            let expected = outputs.len();
            outputs = self.half(layer)?.after(&self.told(layer), outputs)?;
            self.check(layer, "outputs", expected, outputs.len())?;
        }
        Ok(outputs)
    }

    fn told<'a>(&'a self, layer: &'a Layer) -> OptimizedTask<'a> {
        OptimizedTask {
            run: &self.run,
            task: &self.workflow.task(self.task).id,
            params: &layer.params,
            inputs: layer.inputs.clone(),
            outputs: layer.outputs.clone(),
        }
    }

    fn half<'a>(&self, layer: &'a Layer) -> Result<&'a dyn CustomOptimization, TaskError> {
        layer.half.as_deref().ok_or_else(|| {
            let (task, name) = (&self.workflow.task(self.task).id, &layer.name);
            let detail = format!(
                "task `{task}` wants the optimisation `{name}`, which this worker does not have; hint: \
                 register it with `Registry::register_optimization` in the program that the workers run"
            );
            TaskError::of(FailureKind::UnknownFunction, detail)
        })
    }

    fn check(&self, layer: &Layer, what: &str, expected: usize, given: usize) -> Result<(), TaskError> {
        if given == expected {
            return Ok(());
        }
        let (task, name) = (&self.workflow.task(self.task).id, &layer.name);
        Err(TaskError::new(format!(
            "the optimisation `{name}` gave {given} {what} of task `{task}`, it was called with {expected}"
        )))
    }
}

/// The custom optimisations of a task: those of the workflow, then those that only the plan has.
fn named<'a>(workflow: &'a Workflow, plan: &'a Plan, task: u32) -> Vec<(&'a TaskName, &'a Value)> {
    let planned = plan.tasks.get(task as usize).map(|t| t.optimizations.as_slice()).unwrap_or_default();
    let mut all: Vec<(&TaskName, &Value)> = Vec::new();
    for optimization in workflow.task(task).optimizations.iter().chain(planned) {
        if let Optimization::Custom { name, params } = optimization
            && all.iter().all(|(known, _)| *known != name)
        {
            all.push((name, params));
        }
    }
    all
}

fn input_reaches(workflow: &Workflow, plan: &Plan, task: u32, name: &TaskName) -> Vec<Reach> {
    let graph = workflow.graph();
    let reach = |input: &Input| match input {
        Input::Task { task: parent, output, .. } => {
            let made = graph.find(parent).and_then(|parent| {
                let names = workflow.task(parent).output_names();
                let at = names.iter().position(|known| known == output)?;
                graph.writes(parent).get(at)
            });
            made.map_or(Reach::Beyond, |&object| object_reach(workflow, plan, object, name))
        }
        Input::External { .. } | Input::Value { .. } => Reach::Beyond,
    };
    workflow.task(task).inputs.iter().map(reach).collect()
}

fn output_reaches(workflow: &Workflow, plan: &Plan, task: u32, name: &TaskName) -> Vec<Reach> {
    let written = workflow.graph().writes(task).iter();
    written.map(|&object| object_reach(workflow, plan, object, name)).collect()
}

fn object_reach(workflow: &Workflow, plan: &Plan, object: u32, name: &TaskName) -> Reach {
    let graph = workflow.graph();
    let has_it = |task: u32| named(workflow, plan, task).iter().any(|(known, _)| *known == name);
    let (producer, readers) = (graph.objects()[object as usize].producer, graph.consumers(object));
    // The outputs of a task that nothing waits for are results, which the user fetches.
    let is_read = !readers.is_empty() && producer.is_some_and(has_it);
    if is_read && readers.iter().all(|&task| has_it(task)) { Reach::Within } else { Reach::Beyond }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Writes its letter behind what stays within, and takes it away again.
    struct Letter(u8);

    impl CustomOptimization for Letter {
        fn before(&self, task: &OptimizedTask<'_>, inputs: Vec<Bytes>) -> Result<Vec<Bytes>, TaskError> {
            let strip = |(input, reach): (Bytes, &Reach)| match (reach, input.split_last()) {
                (Reach::Beyond, _) => Ok(input),
                (Reach::Within, Some((last, rest))) if *last == self.0 => Ok(Bytes::copy_from_slice(rest)),
                (Reach::Within, _) => Err(TaskError::new("the letter is missing")),
            };
            inputs.into_iter().zip(&task.inputs).map(strip).collect()
        }

        fn after(&self, task: &OptimizedTask<'_>, outputs: Vec<Bytes>) -> Result<Vec<Bytes>, TaskError> {
            let add = |(output, reach): (Bytes, &Reach)| match reach {
                Reach::Beyond => output,
                Reach::Within => [output.as_ref(), &[self.0]].concat().into(),
            };
            Ok(outputs.into_iter().zip(&task.outputs).map(add).collect())
        }
    }

    fn workflow(optimized: &[&[&str]]) -> Arc<Workflow> {
        let forced = |names: &[&str]| -> Vec<Value> {
            names.iter().map(|name| json!({"kind": "custom", "name": name})).collect()
        };
        Arc::new(
            serde_json::from_value(json!({"name": "w", "tasks": [
                {"id": "make", "name": "m", "run": "x", "optimizations": forced(optimized[0])},
                {"id": "use", "name": "u", "run": "x", "inputs": [{"task": "make"}, {"value": 1}],
                 "optimizations": forced(optimized[1])},
            ]}))
            .unwrap(),
        )
    }

    fn customs(workflow: &Arc<Workflow>, task: u32) -> Customs {
        let registry =
            Registry::new().register_optimization("a", Letter(b'a')).register_optimization("b", Letter(b'b'));
        let plan = foresail_schemas::examples::plan();
        let plan = Plan { tasks: Vec::new(), ..plan };
        Customs::of(&registry, &RunId::new("r").unwrap(), workflow, &plan, task)
    }

    #[test]
    fn the_last_layer_is_taken_off_first() {
        let workflow = workflow(&[&["a", "b"], &["a", "b"]]);
        let stored = customs(&workflow, 0).after(vec!["x".into()]).unwrap();
        assert_eq!(stored, ["xab"]);
        let read = customs(&workflow, 1).before(vec![Some(stored[0].clone()), Some("1".into())]).unwrap();
        assert_eq!(read, [Some("x".into()), Some("1".into())]);
        assert_eq!(customs(&workflow, 1).after(vec!["result".into()]).unwrap(), ["result"]);
    }

    #[test]
    fn what_somebody_else_reads_is_left_as_it_is() {
        let workflow = workflow(&[&["a", "b"], &["b"]]);
        assert_eq!(customs(&workflow, 0).after(vec!["x".into()]).unwrap(), ["xb"]);
        let read = customs(&workflow, 1).before(vec![Some("xb".into()), Some("1".into())]).unwrap();
        assert_eq!(read, [Some("x".into()), Some("1".into())]);
    }

    #[test]
    fn what_does_not_exist_is_not_shown_to_an_optimisation() {
        let workflow = workflow(&[&["a"], &["a"]]);
        let read = customs(&workflow, 1).before(vec![None, Some("1".into())]).unwrap();
        assert_eq!(read, [None, Some("1".into())]);
    }

    #[test]
    fn an_optimisation_that_the_worker_does_not_have_fails_the_task_for_good() {
        let workflow = workflow(&[&["missing"], &[]]);
        let error = customs(&workflow, 0).before(Vec::new()).unwrap_err();
        assert_eq!(error.kind, FailureKind::UnknownFunction);
        assert!(!error.kind.is_retryable());
        assert!(error.message.contains("`missing`") && error.message.contains("register_optimization"));
    }
}

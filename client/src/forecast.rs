//! Forecasts: the quantiles of its execution time that a plan carries for every task, so that metad can
//! score the prediction when the truth arrives.
//!
//! They come from the very model that the plan's table was made of, at the config that the plan chose and
//! the input size that the table predicts. A task that the model does not know has none: an assumption is no
//! prediction.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use foresail_model::Predictor;
use foresail_planner::expected;
use foresail_schemas::metric::Forecast;
use foresail_schemas::plan::{Plan, PredictionTable};
use foresail_schemas::prediction::{Basis, Prediction, Query};
use foresail_schemas::{Sla, TaskName, Workflow, WorkflowName};

use crate::predict::input_bytes;

/// Models that a client remembers between a table and the plan made of it.
const MODELS_KEPT_MAX: usize = 8;

/// Fills the forecasts of `plan`, which was made of `table`, with what `ask` knows.
pub fn fill(
    workflow: &Workflow,
    table: &PredictionTable,
    plan: &mut Plan,
    ask: impl Fn(&Query, &[Sla]) -> Prediction,
) {
    // Tasks of one name with equal inputs and configs share an answer; workflows have thousands of those.
    let mut known: HashMap<(TaskName, u64, (u32, u32)), Option<Forecast>> = HashMap::new();
    let expected = expected(workflow, &table.decisions);
    for (at, planned) in (0..).zip(&mut plan.tasks) {
        let task = workflow.task(at).name.clone();
        let (input_bytes, config) =
            (input_bytes(workflow, &table.object_bytes, &expected, at), planned.config);
        let forecast = known.entry((task, input_bytes, config.key())).or_insert_with_key(|(task, ..)| {
            let (memory_mb, vcpu) = (config.memory_mb, config.vcpu);
            let query = Query::ExecutionTime { task: task.clone(), input_bytes, memory_mb, vcpu };
            forecast(&ask(&query, &Forecast::SLAS))
        });
        planned.forecast = *forecast;
    }
}

fn forecast(answer: &Prediction) -> Option<Forecast> {
    let time = |sla| answer.values.get(&sla).copied().flatten().filter(|t: &f64| t.is_finite() && *t >= 0.0);
    let [Some(median), Some(p90), Some(p95), Some(p99)] = Forecast::SLAS.map(time) else { return None };
    (answer.basis != Basis::None).then(|| Forecast::new([median, p90, p95, p99]))
}

/// The models that tables were made of last.
#[derive(Debug, Default)]
pub(crate) struct Models(Mutex<VecDeque<Known>>);

#[derive(Debug)]
struct Known {
    workflow: WorkflowName,
    epoch: u64,
    model: Arc<Predictor>,
}

impl Models {
    /// Remembers a model; the one that was remembered first goes.
    pub fn keep(&self, workflow: &WorkflowName, epoch: u64, model: Arc<Predictor>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|k| k.workflow != *workflow || k.epoch != epoch);
        known.push_back(Known { workflow: workflow.clone(), epoch, model });
        if known.len() > MODELS_KEPT_MAX {
            known.pop_front();
        }
    }

    /// The model of this epoch, if it is still remembered.
    pub fn find(&self, workflow: &WorkflowName, epoch: u64) -> Option<Arc<Predictor>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().find(|k| k.workflow == *workflow && k.epoch == epoch);
        found.map(|k| Arc::clone(&k.model))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use foresail_schemas::Platform;
    use foresail_schemas::plan::Objective;
    use foresail_schemas::prediction::Unit;

    use super::*;
    use crate::WorkflowBuilder;

    /// Knows every task but `unseen`: a ms per byte of input, and half of it again per quantile.
    fn model(query: &Query, slas: &[Sla]) -> Prediction {
        let Query::ExecutionTime { task, input_bytes, .. } = query else { panic!("{query:?}") };
        let known = task.as_str() != "unseen";
        let time = |n: usize| known.then_some(*input_bytes as f64 * (1.0 + n as f64 / 2.0));
        Prediction {
            unit: Unit::Ms,
            values: slas.iter().enumerate().map(|(n, sla)| (*sla, time(n))).collect(),
            basis: if known { Basis::MemoryNormalised } else { Basis::None },
            samples: 3,
            extrapolated: false,
            interval: BTreeMap::new(),
            branches: BTreeMap::new(),
        }
    }

    #[test]
    fn a_plan_carries_what_its_model_says_at_the_predicted_size_and_nothing_for_unknown_tasks() {
        let mut flow = WorkflowBuilder::new("w");
        let read = flow.task("read").command("true").reads_value("12345678").handle();
        let count = flow.task("count").command("true").reads(&read).handle();
        flow.task("unseen").command("true").reads(&count);
        let workflow = flow.build().unwrap();
        let platform = Platform::built_in().remove(0);
        let mut table = foresail_planner::blind_table(&workflow, &platform, Sla::MEDIAN);
        table.object_bytes = vec![100, 7, 1];
        let problem = crate::problem(&workflow, &platform, table, Objective::Fastest, 1);
        let mut plan = crate::plan("simple", &problem).unwrap();
        assert!(
            plan.tasks.iter().all(|t| t.forecast.is_none()),
            "planners carry the field and do not fill it"
        );
        fill(&workflow, &problem.predictions, &mut plan, model);
        let found: Vec<_> = plan.tasks.iter().map(|t| t.forecast).collect();
        let count = Some(Forecast::new([100.0, 150.0, 200.0, 250.0]));
        assert_eq!(found[0], Some(Forecast::new([10.0, 15.0, 20.0, 25.0])), "the value with its quotes");
        assert_eq!(found[1..], [count, None]);
    }

    #[test]
    fn models_are_found_by_their_epoch_and_the_oldest_is_forgotten() {
        let models = Models::default();
        let name = WorkflowName::new("w").unwrap();
        for epoch in 0..=MODELS_KEPT_MAX as u64 {
            models.keep(&name, epoch, Arc::default());
        }
        assert!(models.find(&name, 0).is_none());
        assert!(
            models.find(&name, 1).is_some() && models.find(&WorkflowName::new("v").unwrap(), 1).is_none()
        );
    }
}

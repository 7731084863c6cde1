//! Predictions in the middle of a run: those of metad, to which workers of such a run send early, times what
//! the run itself showed beyond them. A model that has seen a hundred fast executions does not believe three
//! slow ones, and of what still runs it knows nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use foresail_model::Predictor;
use foresail_schemas::config::Sla;
use foresail_schemas::decision::DecisionForecast;
use foresail_schemas::plan::{Plan, PredictionTable};
use foresail_schemas::platform::Platform;
use foresail_schemas::prediction::{Prediction, Query};
use foresail_schemas::{TaskId, TaskName, Workflow};

use crate::client::Client;
use crate::error::ClientError;
use crate::forecast;

/// Types that are named.
const NAMED_MAX: usize = 3;

/// Predictions in the middle of a run.
pub struct Fresh {
    /// What a planner is told.
    pub table: PredictionTable,
    model: Option<Arc<Predictor>>,
    /// Types that the run showed to differ from what the model says, and by which factor.
    factors: Vec<(TaskName, f64)>,
}

impl Fresh {
    /// Asks for them, where it is known what was decided.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer or its model cannot be read.
    pub async fn ask(
        client: &Client,
        workflow: &Workflow,
        platform: &Platform,
        sla: Sla,
        decided: BTreeMap<TaskId, DecisionForecast>,
    ) -> Result<Self, ClientError> {
        let facts: Vec<TaskId> = decided.keys().cloned().collect();
        let mut table = client.predictions_given(workflow, platform, sla, decided).await?;
        client.add_distributions(workflow, platform, &mut table);
        // What was decided is drawn no more.
        if let Some(uncertainty) = &mut table.uncertainty {
            uncertainty.widths.retain(|decider, _| !facts.contains(decider));
            uncertainty.branches.retain(|decider, _| !facts.contains(decider));
        }
        let model = client.models.find(workflow.name(), table.epoch);
        Ok(Self::new(table, model))
    }

    /// What a table says, and the model that it was made of.
    pub fn new(table: PredictionTable, model: Option<Arc<Predictor>>) -> Self {
        Self { table, model, factors: Vec::new() }
    }

    /// Multiplies the times of each type by its factor.
    pub fn slow_down(&mut self, workflow: &Workflow, factors: Vec<(TaskName, f64)>) {
        self.factors = factors;
        for (at, task) in workflow.tasks().iter().enumerate() {
            if let Some(factor) = self.factor(&task.name) {
                self.table.exec_ms.iter_mut().for_each(|row| row[at] *= factor);
            }
        }
    }

    /// The factors in words; nothing where there is none.
    pub fn in_words(&self) -> Option<String> {
        let told = |(name, factor): &(TaskName, f64)| {
            format!("`{name}` is expected to take {factor:.2} times what the model says")
        };
        let told: Vec<String> = self.factors.iter().take(NAMED_MAX).map(told).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }

    fn factor(&self, name: &TaskName) -> Option<f64> {
        self.factors.iter().find(|(of, _)| of == name).map(|(_, factor)| *factor)
    }

    /// `plan` with the times in the user's code that are predicted now; those around them stay.
    pub fn retimed(&self, workflow: &Workflow, plan: &Plan) -> Plan {
        let mut plan = plan.clone();
        for (at, task) in plan.tasks.iter_mut().enumerate() {
            let size = self.table.configs.iter().position(|c| c.key() == task.config.key());
            if let Some(exec_ms) = size.map(|size| self.table.exec_ms[size][at]) {
                task.end_ms += exec_ms - task.exec_ms;
                task.exec_ms = exec_ms;
            }
        }
        self.fill(workflow, &mut plan);
        plan
    }

    /// Writes into `plan` what is forecast for its tasks now.
    pub fn fill(&self, workflow: &Workflow, plan: &mut Plan) {
        let Some(model) = &self.model else { return };
        forecast::fill(workflow, &self.table, plan, |query, slas| {
            let mut answer: Prediction = model.predict(query, slas);
            if let Query::ExecutionTime { task, .. } = query
                && let Some(factor) = self.factor(task)
            {
                answer.values.values_mut().flatten().for_each(|ms| *ms *= factor);
            }
            answer
        });
    }
}

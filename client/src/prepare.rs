//! From a workflow to a problem that can be planned: what is known of it, at the service level asked for.

use foresail_schemas::config::Sla;
use foresail_schemas::optimization::OptimizationKind;
use foresail_schemas::plan::{Objective, Problem};
use foresail_schemas::{Platform, Workflow};

use crate::client::{self, Client};
use crate::error::ClientError;

/// Most tasks for which `auto` is told the distributions: beyond, drawing takes longer than planning.
const WEIGHED_TASKS_MAX: usize = 20_000;

/// Who plans, and what for.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanRequest {
    /// Name of the planner, see [`planning`](crate::planning).
    pub planner: String,
    /// What the plan shall be best at.
    pub objective: Objective,
    /// Statistic that is planned with.
    pub sla: Sla,
    /// Seed of everything drawn.
    pub seed: u64,
    /// What the planner shall not do beside running tasks.
    pub without: Vec<OptimizationKind>,
}

impl Default for PlanRequest {
    fn default() -> Self {
        Self {
            planner: "auto".to_owned(),
            objective: Objective::Fastest,
            sla: Sla::MEDIAN,
            seed: 0,
            without: Vec::new(),
        }
    }
}

impl Client {
    /// The problem of planning `workflow`, with what metad knows of it. It has distributions where the
    /// planner or the objective needs them.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer or its model cannot be read.
    pub async fn prepare(
        &self,
        workflow: &Workflow,
        platform: &Platform,
        request: &PlanRequest,
    ) -> Result<Problem, ClientError> {
        let mut predictions = self.predictions(workflow, platform, request.sla).await?;
        let asks_chances =
            request.planner == "robust" || matches!(request.objective, Objective::Confidence { .. });
        let weighs_chances = request.planner.split(':').next() == Some("auto");
        if asks_chances || (weighs_chances && workflow.tasks().len() <= WEIGHED_TASKS_MAX) {
            self.add_distributions(workflow, platform, &mut predictions);
        }
        let mut problem = client::problem(workflow, platform, predictions, request.objective, request.seed);
        problem.without.clone_from(&request.without);
        Ok(problem)
    }
}

//! From a workflow to a problem that can be planned: what is known of it, at the service level asked for.

use std::time::Duration;

use foresail_schemas::config::{ResourceConfig, Sla};
use foresail_schemas::invocation::WarmWorkers;
use foresail_schemas::optimization::OptimizationKind;
use foresail_schemas::plan::{Objective, Problem};
use foresail_schemas::{Platform, Workflow};

use crate::client::{self, Client};
use crate::error::ClientError;

/// Most tasks for which `auto` is told the distributions: beyond, drawing takes longer than planning.
const WEIGHED_TASKS_MAX: usize = 20_000;

/// Longest wait for the host to say which workers are warm: a plan without them is one too.
const WARM_LIMIT: Duration = Duration::from_millis(500);

/// Which warm workers a plan counts on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Warmth {
    /// Those that are idle at the host when it is planned.
    #[default]
    AsFound,
    /// None: every worker starts cold at first.
    Cold,
}

/// Who plans, and what for.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanRequest {
    /// Name of the planner, see [`planning`](crate::planning).
    pub planner: String,
    /// What the plan shall be best at.
    pub objective: Objective,
    /// Statistic of times that is planned with: by default the mean, because what is done one after the other
    /// takes the sum of the means, not that of the medians.
    pub sla: Sla,
    /// Seed of everything drawn.
    pub seed: u64,
    /// What the planner shall not do beside running tasks.
    pub without: Vec<OptimizationKind>,
    /// Which warm workers it counts on.
    pub warmth: Warmth,
}

impl Default for PlanRequest {
    fn default() -> Self {
        Self {
            planner: "auto".to_owned(),
            objective: Objective::Fastest,
            sla: Sla::Mean,
            seed: 0,
            without: Vec::new(),
            warmth: Warmth::AsFound,
        }
    }
}

impl Client {
    /// The problem of planning `workflow`, with what metad knows of it and the workers that are warm. It has
    /// distributions where the planner or the objective needs them.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer or its model cannot be read.
    pub async fn prepare(
        &self,
        workflow: &Workflow,
        platform: &Platform,
        request: &PlanRequest,
    ) -> Result<Problem, ClientError> {
        let (predictions, warm) =
            tokio::join!(self.predictions(workflow, platform, request.sla), self.warm(request.warmth));
        let mut predictions = predictions?;
        predictions.warm = by_config(&warm, &predictions.configs);
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

    /// The workers that are warm; none where the host does not say.
    async fn warm(&self, warmth: Warmth) -> Vec<WarmWorkers> {
        if warmth == Warmth::Cold {
            return Vec::new();
        }
        match tokio::time::timeout(WARM_LIMIT, self.host_status()).await {
            Ok(Ok(status)) => status.warm,
            Ok(Err(_)) | Err(_) => Vec::new(),
        }
    }
}

/// How many are warm of each of `configs`; empty where none is.
fn by_config(warm: &[WarmWorkers], configs: &[ResourceConfig]) -> Vec<u32> {
    let of = |config: &ResourceConfig| {
        warm.iter().filter(|w| w.config.key() == config.key()).map(|w| w.count).sum::<u32>()
    };
    let counts: Vec<u32> = configs.iter().map(of).collect();
    if counts.iter().all(|&count| count == 0) { Vec::new() } else { counts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_workers_are_counted_by_the_sizes_that_are_planned_with() {
        let size = |memory_mb, vcpu| ResourceConfig { memory_mb, vcpu };
        let warm = [(size(512, None), 1), (size(1769, Some(1.0)), 2), (size(9999, None), 4)]
            .map(|(config, count)| WarmWorkers { config, count });
        let configs = [size(512, None), size(885, None), size(1769, None)];
        assert_eq!(by_config(&warm, &configs), [1, 0, 2]);
        assert!(by_config(&warm[2..], &configs).is_empty());
    }
}

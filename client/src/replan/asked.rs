//! Re-planning by hand: what a client can ask of a run that somebody else may watch over.

use std::sync::Arc;

use foresail_schemas::id::RunId;
use foresail_schemas::platform::Platform;
use foresail_schemas::run::{CurrentPlan, ReplanRequest};
use foresail_schemas::{ErrorCode, Workflow};

use super::{Pace, Proposal, Replanner};
use crate::client::{Client, platform_of};
use crate::error::ClientError;
use crate::http::Call;

impl Client {
    /// Looks for the best way to go on from here with a run that is under way, by what metad knows now and
    /// what the run has shown. Nothing changes: see [`Self::put_in_force`]. `platform` is that which the run
    /// is planned for; the built-in one that its plan names where absent.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer, the run has ended, or its plan cannot be replaced.
    pub async fn propose(&self, run: &RunId, platform: Option<Platform>) -> Result<Proposal, ClientError> {
        self.replanner(run, platform).await?.propose().await
    }

    /// The plan that was suggested last for a run, if the plan in force is still the one that it was to
    /// replace. Since it was made tasks may have begun, which go on where they are.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer or there is no such run.
    pub async fn suggestion(&self, run: &RunId) -> Result<Option<ReplanRequest>, ClientError> {
        let call = Call::get(&["v1", "runs", run.as_str(), "plans", "suggested"]);
        match self.services.metad.json(call).await {
            Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Puts a plan in force, if the one that it was made from still is. Answers its epoch.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer, another plan is in force, or the run has ended.
    pub async fn put_in_force(&self, run: &RunId, request: &ReplanRequest) -> Result<u64, ClientError> {
        let call = Call::put(&["v1", "runs", run.as_str(), "plan"], request);
        let CurrentPlan { epoch, .. } = self.services.metad.json(call).await?;
        Ok(epoch)
    }

    /// Has a plan kept beside the one in force, if the one that it was made from still is.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer, another plan is in force, or the run has ended.
    pub async fn suggest(&self, run: &RunId, request: &ReplanRequest) -> Result<(), ClientError> {
        let call = Call::put(&["v1", "runs", run.as_str(), "plans", "suggested"], request);
        self.services.metad.bytes(call).await.map(drop)
    }

    /// What re-plans a run that was started before, as its limits say.
    pub(crate) async fn replanner(
        &self,
        run: &RunId,
        platform: Option<Platform>,
    ) -> Result<Replanner, ClientError> {
        let (workflow, current) = self.workflow_and_plan(run).await?;
        let platform = platform.unwrap_or_else(|| platform_of(&current.plan));
        Ok(self.replanner_of(run, workflow, current, platform))
    }

    /// What re-plans a run of which this is known.
    pub(crate) fn replanner_of(
        &self,
        run: &RunId,
        workflow: Workflow,
        CurrentPlan { epoch, plan, options }: CurrentPlan,
        platform: Platform,
    ) -> Replanner {
        let (client, run, mode) = (self.clone(), run.clone(), options.replan);
        let (without, pace, heartbeat_ms) = (Vec::new(), Pace::CLIENT, options.heartbeat_ms);
        let kept = Arc::default();
        Replanner { client, run, workflow, plan, epoch, platform, without, mode, pace, heartbeat_ms, kept }
    }
}

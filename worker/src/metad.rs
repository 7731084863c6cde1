//! What a worker asks of metad: workflow and plan of a run, operations, events, blobs, metric batches. Times
//! in ms.

use std::time::Duration;

use bytes::Bytes;
use foresail_schemas::id::{RunId, WorkflowName};
use foresail_schemas::listing::RunList;
use foresail_schemas::metric::{Batch, BatchAnswer};
use foresail_schemas::run::{
    CurrentPlan, EventPage, OperationAnswer, OperationRequest, ReplanRequest, RunSummary,
};
use foresail_schemas::workflow::Workflow;

use crate::api::{Api, ApiError, REQUEST_LIMIT, TRANSFER_LIMIT};

/// How long metad may hold back the answer to a question for events, in ms.
pub const EVENTS_WAIT_MS: u64 = 10_000;

/// A client of one metad; clones share its connections.
#[derive(Debug, Clone)]
pub struct Metad(Api);

impl Metad {
    /// A client of the metad at `base`, for instance `http://127.0.0.1:7070`.
    ///
    /// # Errors
    /// [`ApiError::Settings`] when the token is not a header value.
    pub fn new(base: &str, token: Option<&str>) -> Result<Self, ApiError> {
        Api::new(base, token).map(Self)
    }

    /// The address.
    #[must_use]
    pub fn base(&self) -> &str {
        self.0.base()
    }

    /// So many runs, the youngest first.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn runs(&self, limit: u64) -> Result<Vec<RunSummary>, ApiError> {
        let RunList { runs } = self.0.get(&format!("/v1/runs?limit={limit}"), TRANSFER_LIMIT).await?;
        Ok(runs)
    }

    /// The workflow of a run.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn workflow(&self, run: &RunId) -> Result<Workflow, ApiError> {
        self.0.get(&format!("/v1/runs/{run}/workflow"), TRANSFER_LIMIT).await
    }

    /// The plan in force.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn plan(&self, run: &RunId) -> Result<CurrentPlan, ApiError> {
        self.0.get(&format!("/v1/runs/{run}/plan"), TRANSFER_LIMIT).await
    }

    /// The run in short.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn summary(&self, run: &RunId) -> Result<RunSummary, ApiError> {
        self.0.get(&format!("/v1/runs/{run}"), REQUEST_LIMIT).await
    }

    /// Changes or reads the state of a run.
    ///
    /// # Errors
    /// [`ApiError`]; whether the operations had an effect is then not known.
    pub async fn operate(
        &self,
        run: &RunId,
        request: &OperationRequest,
    ) -> Result<OperationAnswer, ApiError> {
        self.0.post(&format!("/v1/runs/{run}/operations"), request, REQUEST_LIMIT).await
    }

    /// Events after number `after` of these kinds; waits up to [`EVENTS_WAIT_MS`] for the first.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn events(&self, run: &RunId, after: u64, kinds: &str) -> Result<EventPage, ApiError> {
        let path = format!("/v1/runs/{run}/events?after={after}&wait_ms={EVENTS_WAIT_MS}&kinds={kinds}");
        self.0.get(&path, Duration::from_millis(EVENTS_WAIT_MS) + REQUEST_LIMIT).await
    }

    /// Replaces the plan of a run if the one in force is the one expected.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn replan(&self, run: &RunId, request: &ReplanRequest) -> Result<CurrentPlan, ApiError> {
        self.0.put(&format!("/v1/runs/{run}/plan"), request, TRANSFER_LIMIT).await
    }

    /// Sends measurements.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn send_batch(&self, workflow: &WorkflowName, batch: &Batch) -> Result<BatchAnswer, ApiError> {
        self.0.post(&format!("/v1/workflows/{workflow}/batches"), batch, REQUEST_LIMIT).await
    }

    /// Writes a blob of a run.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn put_blob(&self, run: &RunId, key: &str, blob: Bytes) -> Result<(), ApiError> {
        self.0.put_bytes(&format!("/v1/runs/{run}/blobs/{key}"), blob).await
    }

    /// Reads a blob of a run.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn get_blob(&self, run: &RunId, key: &str) -> Result<Bytes, ApiError> {
        self.0.get_bytes(&format!("/v1/runs/{run}/blobs/{key}")).await
    }

    /// Deletes a blob of a run.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn delete_blob(&self, run: &RunId, key: &str) -> Result<(), ApiError> {
        self.0.delete(&format!("/v1/runs/{run}/blobs/{key}")).await
    }
}

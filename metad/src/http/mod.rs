//! The REST API: parse, hand over to the domain, reply. No logic lives here, and no write happens here.
//!
//! What every request passes, outside in: counting, the token, a place among the requests under way and a
//! time limit, the size and the encoding of its body. Whatever fails is answered as problem+json, unknown
//! addresses included.
//!
//! Predictions are what is asked most, batches and operations what is written most: where they come plainly,
//! [`Front`] answers them before the router, through the same gate and with the same functions. Everything
//! else goes through the router.

mod batches;
mod blobs;
mod columns;
mod events;
mod fields;
mod flat;
mod front;
mod gate;
mod plain;
mod pool;
mod prediction_json;
mod predictions;
mod reply;
mod runs;
mod samples;
mod service;
mod take;
mod workflows;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post, put};
use axum::{Router, routing::MethodRouter};
use foresail_schemas::ErrorCode;
use tower::ServiceBuilder;
use tower_http::decompression::{DecompressionBody, RequestDecompressionLayer};

use crate::shared::Shared;
pub use front::Front;
use reply::Failure;
use take::App;

/// Route of the events, whose requests may wait and have places of their own.
const EVENTS: &str = "/v1/runs/{run}/events";

/// Route of operations on a run.
const OPERATIONS: &str = "/v1/runs/{run}/operations";

/// Route of measurements.
const BATCHES: &str = "/v1/workflows/{workflow}/batches";
/// Route of many predictions.
const PREDICTIONS: &str = "/v1/workflows/{workflow}/predictions";
/// Route of one prediction.
const PREDICTION: &str = "/v1/workflows/{workflow}/predictions/{kind}";

/// The routes over the shared state.
fn router(app: Arc<Shared>) -> Router {
    let decompression = ServiceBuilder::new()
        .layer(RequestDecompressionLayer::new())
        .map_request(|r: Request<DecompressionBody<Body>>| r.map(Body::new));
    Router::new()
        .merge(workflow_routes())
        .merge(run_routes())
        .merge(service_routes())
        .fallback(nowhere)
        .method_not_allowed_fallback(other_method)
        .layer(decompression)
        .layer(from_fn_with_state(Arc::clone(&app), gate::body))
        .layer(from_fn_with_state(Arc::clone(&app), gate::pass))
        .with_state(app)
}

fn workflow_routes() -> Router<App> {
    Router::new()
        .route("/v1/workflows", get(workflows::list))
        .route("/v1/workflows/{workflow}", get(workflows::get))
        .route(BATCHES, post(batches::post))
        .route(PREDICTIONS, post(predictions::post))
        .route(PREDICTION, get(predictions::get))
        .route("/v1/workflows/{workflow}/tasks", get(workflows::tasks))
        .route("/v1/workflows/{workflow}/tasks/{task}", get(workflows::task))
        .route("/v1/workflows/{workflow}/scores", get(workflows::scores))
        .route("/v1/workflows/{workflow}/model", get(workflows::model))
        .route("/v1/workflows/{workflow}/samples", get(samples::get))
        .route("/v1/workflows/{workflow}/quarantine", get(workflows::quarantine))
}

fn run_routes() -> Router<App> {
    let blob: MethodRouter<App> = put(blobs::put).get(blobs::get).delete(blobs::delete);
    Router::new()
        .route("/v1/runs", get(runs::list).post(runs::create))
        .route("/v1/runs/{run}", get(runs::get))
        .route("/v1/runs/{run}/workflow", get(runs::workflow))
        .route("/v1/runs/{run}/plan", get(runs::plan).put(runs::replan))
        .route("/v1/runs/{run}/plans/suggested", get(runs::suggestion).put(runs::suggest))
        .route("/v1/runs/{run}/plans/{epoch}", get(runs::plan_of))
        .route(OPERATIONS, post(runs::operate))
        .route("/v1/runs/{run}/cancel", post(runs::cancel))
        .route(EVENTS, get(events::get))
        .route("/v1/runs/{run}/blobs/{*key}", blob)
}

fn service_routes() -> Router<App> {
    Router::new()
        .route("/livez", get(service::livez))
        .route("/readyz", get(service::readyz))
        .route("/metrics", get(service::metrics))
        .route("/openapi.json", get(service::openapi))
        .route("/docs", get(service::docs))
        .route("/", get(service::dashboard))
}

async fn nowhere(uri: Uri) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("nothing is at `{}`", uri.path()))
}

async fn other_method(method: Method, uri: Uri) -> Failure {
    Failure::new(ErrorCode::MethodNotAllowed, format!("`{}` does not take {method}", uri.path()))
}

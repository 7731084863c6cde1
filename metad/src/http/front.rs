//! The front of the API: answers plain requests of the most frequent kinds itself and hands everything else
//! to the router.
//!
//! A warm prediction, whose curves were fitted by an earlier question, takes about a microsecond, the way
//! through the router several. One whose own curve has to be fitted first takes some hundred, and is still
//! answered here; so are batches and operations of workers, which are most of what is written. What is cold
//! (`pool`) or not plain (encoded names, compressed or long bodies, parameters that are wrong) goes through
//! the router, which answers it with the same functions and finds the words for what is wrong. Both ways pass
//! the same gate.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Request, header};
use axum::response::{IntoResponse, Response};
use foresail_schemas::{RunId, WorkflowName};
use hyper::body::Incoming;
use hyper::service::Service;
use tower::Service as _;

use super::batches::{self, Origin};
use super::gate::{Asked, Places, enter, in_time};
use super::pool::INLINE_BYTES_MAX;
use super::predictions::{answer_many, answer_one, plain};
use super::reply::JSON;
use super::take::{App, JsonOf, content};
use super::{BATCHES, OPERATIONS, PREDICTION, PREDICTIONS, router, runs};
use crate::meter::RouteMeter;

/// The API over the shared state.
#[derive(Clone)]
pub struct Front {
    app: App,
    router: Router,
    prediction: Arc<RouteMeter>,
    predictions: Arc<RouteMeter>,
    batches: Arc<RouteMeter>,
    operations: Arc<RouteMeter>,
}

/// What a plain POST is about.
enum Posted {
    /// Questions about a workflow.
    Predictions(WorkflowName),
    /// Measurements of a workflow.
    Batch(WorkflowName),
    /// Operations on a run.
    Operations(RunId),
}

/// An answer: made already, or on its way.
pub enum Answering {
    /// Made.
    Now(Option<Response>),
    /// On its way.
    Later(Pin<Box<dyn Future<Output = Response> + Send>>),
}

impl Future for Answering {
    type Output = Result<Response, Infallible>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Now(response) => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                None => Poll::Pending,
            },
            Self::Later(response) => response.as_mut().poll(context).map(Ok),
        }
    }
}

impl Front {
    /// The API over the shared state.
    pub fn new(app: App) -> Self {
        let route = |of| app.meter.route(of);
        let (prediction, predictions) = (route(PREDICTION), route(PREDICTIONS));
        let (batches, operations) = (route(BATCHES), route(OPERATIONS));
        Self { router: router(Arc::clone(&app)), app, prediction, predictions, batches, operations }
    }

    /// Answers a plain GET of one prediction that is warm.
    fn one(&self, parts: &Parts, workflow: &str, kind: &str) -> Option<Response> {
        let (query, slas) = plain(kind, parts.uri.query()?)?;
        if self.app.world.load().get(workflow).is_none() {
            WorkflowName::new(workflow).ok()?;
        }
        let (method, path, headers) = (&parts.method, parts.uri.path(), &parts.headers);
        let asked = Asked { method, path, headers, places: Places::Requests };
        match enter(&self.app, &self.prediction, asked) {
            Ok(visit) => {
                answer_one(&self.app, workflow, &query, &slas, headers).map(|answer| visit.leave(answer))
            }
            Err(refused) => Some(refused),
        }
    }

    /// Answers a plain POST.
    fn posted(&self, parts: Parts, posted: Posted, body: Incoming) -> impl Future<Output = Response> + use<> {
        let route = match &posted {
            Posted::Predictions(_) => &self.predictions,
            Posted::Batch(_) => &self.batches,
            Posted::Operations(_) => &self.operations,
        };
        let (app, route) = (Arc::clone(&self.app), Arc::clone(route));
        async move {
            let (method, path, headers) = (&parts.method, parts.uri.path(), &parts.headers);
            let asked = Asked { method, path, headers, places: Places::Requests };
            let visit = match enter(&app, &route, asked) {
                Ok(visit) => visit,
                Err(refused) => return refused,
            };
            let answer = async {
                let content = content(&app, body, app.settings.body_bytes_max).await?;
                match posted {
                    Posted::Predictions(workflow) => answer_many(&app, workflow, content).await,
                    Posted::Batch(workflow) => {
                        batches::take(&app, workflow, Origin::default(), headers, content).await
                    }
                    Posted::Operations(run) => {
                        let JsonOf(request, content) = JsonOf::read(&app, content).await?;
                        runs::carry_out(&app, run, request, content).await
                    }
                }
            };
            let response = in_time(&app, async { answer.await.into_response() }).await;
            visit.leave(response)
        }
    }
}

/// Whether a body is short, of known length, unpacked and on its way already.
fn is_plain_body(headers: &HeaderMap, body: &Incoming, bytes_max: u64) -> bool {
    let is_short = body.size_hint().exact().is_some_and(|bytes| bytes <= bytes_max);
    is_short && !headers.contains_key(header::CONTENT_ENCODING) && !headers.contains_key(header::EXPECT)
}

/// Whether a body is JSON, as it is where nothing else is said.
fn is_json(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_none_or(|found| found == JSON)
}

/// The name of the workflow and what follows `/predictions` in the path of a prediction.
fn prediction_path(path: &str) -> Option<(&str, &str)> {
    let (workflow, rest) = path.strip_prefix("/v1/workflows/")?.split_once('/')?;
    Some((workflow, rest.strip_prefix("predictions")?))
}

impl Posted {
    /// What is posted to this address, where it is one of those that are answered here.
    fn to(parts: &Parts) -> Option<Self> {
        let path = parts.uri.path().strip_prefix("/v1/")?;
        let (name, what) = path.split_once('/')?.1.split_once('/')?;
        // Parameters of other addresses are read, or refused, by the router.
        let is_bare = what == "predictions" || parts.uri.query().is_none();
        match (path.starts_with("workflows/"), what) {
            _ if !is_bare => None,
            (true, "predictions") if is_json(&parts.headers) => {
                WorkflowName::new(name).ok().map(Self::Predictions)
            }
            (true, "batches") => WorkflowName::new(name).ok().map(Self::Batch),
            (false, "operations") if path.starts_with("runs/") && is_json(&parts.headers) => {
                RunId::new(name).ok().map(Self::Operations)
            }
            _ => None,
        }
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let (parts, body) = request.into_parts();
        if parts.method == Method::GET {
            if let Some((workflow, rest)) = prediction_path(parts.uri.path())
                && let Some(kind) = rest.strip_prefix('/')
                && body.is_end_stream()
                && !parts.headers.contains_key(header::CONTENT_ENCODING)
                && let Some(response) = self.one(&parts, workflow, kind)
            {
                return Answering::Now(Some(response));
            }
        } else if parts.method == Method::POST {
            let bytes_max = self.app.settings.body_bytes_max.min(INLINE_BYTES_MAX as u64);
            if is_plain_body(&parts.headers, &body, bytes_max)
                && let Some(posted) = Posted::to(&parts)
            {
                return Answering::Later(Box::pin(self.posted(parts, posted, body)));
            }
        }
        let routed = self.router.clone().call(Request::from_parts(parts, Body::new(body)));
        Answering::Later(Box::pin(async move {
            match routed.await {
                Ok(response) => response,
            }
        }))
    }
}

//! The front of the API: answers plain predictions itself and hands everything else to the router.
//!
//! A warm prediction, whose curves were fitted by an earlier question, takes about a microsecond, the way
//! through the router several. One whose own curve has to be fitted first takes some hundred, and is still
//! answered here. What is cold (`pool`) or not plain (encoded names, compressed or long bodies, parameters
//! that are wrong) goes through the router, which answers it with the same functions and finds the words for
//! what is wrong. Both ways pass the same gate.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Request, header};
use axum::response::{IntoResponse, Response};
use foresail_schemas::WorkflowName;
use hyper::body::Incoming;
use hyper::service::Service;
use tower::Service as _;

use super::gate::{Asked, Places, enter, in_time};
use super::pool::INLINE_BYTES_MAX;
use super::predictions::{answer_many, answer_one, plain};
use super::reply::JSON;
use super::take::{App, content};
use super::{PREDICTION, PREDICTIONS, router};
use crate::meter::RouteMeter;

/// The API over the shared state.
#[derive(Clone)]
pub struct Front {
    app: App,
    router: Router,
    prediction: Arc<RouteMeter>,
    predictions: Arc<RouteMeter>,
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
        let (prediction, predictions) = (app.meter.route(PREDICTION), app.meter.route(PREDICTIONS));
        Self { router: router(Arc::clone(&app)), app, prediction, predictions }
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

    /// Answers a POST of many predictions.
    fn many(
        &self,
        parts: Parts,
        workflow: WorkflowName,
        body: Incoming,
    ) -> impl Future<Output = Response> + use<> {
        let (app, route) = (Arc::clone(&self.app), Arc::clone(&self.predictions));
        async move {
            let (method, path, headers) = (&parts.method, parts.uri.path(), &parts.headers);
            let asked = Asked { method, path, headers, places: Places::Requests };
            let visit = match enter(&app, &route, asked) {
                Ok(visit) => visit,
                Err(refused) => return refused,
            };
            let answer = async {
                let content = content(&app, body, app.settings.body_bytes_max).await?;
                answer_many(&app, workflow, content).await
            };
            let response = in_time(&app, async { answer.await.into_response() }).await;
            visit.leave(response)
        }
    }
}

/// Whether a body is short, of known length, unpacked JSON and on its way already.
fn is_plain_body(headers: &HeaderMap, body: &Incoming) -> bool {
    let is_json = headers.get(header::CONTENT_TYPE).is_none_or(|found| found == JSON);
    let is_short = body.size_hint().exact().is_some_and(|bytes| bytes <= INLINE_BYTES_MAX as u64);
    is_json
        && is_short
        && !headers.contains_key(header::CONTENT_ENCODING)
        && !headers.contains_key(header::EXPECT)
}

/// The name of the workflow and what follows `/predictions` in the path of a prediction.
fn prediction_path(path: &str) -> Option<(&str, &str)> {
    let (workflow, rest) = path.strip_prefix("/v1/workflows/")?.split_once('/')?;
    Some((workflow, rest.strip_prefix("predictions")?))
}

impl Service<Request<Incoming>> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let (parts, body) = request.into_parts();
        match prediction_path(parts.uri.path()) {
            Some((workflow, rest)) if parts.method == Method::GET && body.is_end_stream() => {
                if let Some(kind) = rest.strip_prefix('/')
                    && !parts.headers.contains_key(header::CONTENT_ENCODING)
                    && let Some(response) = self.one(&parts, workflow, kind)
                {
                    return Answering::Now(Some(response));
                }
            }
            Some((workflow, "")) if parts.method == Method::POST && is_plain_body(&parts.headers, &body) => {
                let limit = self.app.settings.body_bytes_max;
                if let Ok(workflow) = WorkflowName::new(workflow)
                    && body.size_hint().upper().is_some_and(|bytes| bytes <= limit)
                {
                    return Answering::Later(Box::pin(self.many(parts, workflow, body)));
                }
            }
            _ => {}
        }
        let routed = self.router.clone().call(Request::from_parts(parts, Body::new(body)));
        Answering::Later(Box::pin(async move {
            match routed.await {
                Ok(response) => response,
            }
        }))
    }
}

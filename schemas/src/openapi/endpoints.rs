//! The table of endpoints: what each takes, what it answers and how it can fail.

use serde_json::{Value, json};

use super::task_report;
use crate::error::ErrorCode::{self, *};

/// Endpoints of worker hosts; all others are metad's.
pub(super) const HOST: &str = "host";

pub(super) const TAGS: &[(&str, &str)] = &[
    ("measurements", "What workers measured"),
    ("predictions", "What the next execution will take"),
    ("workflows", "What is known of workflows and their tasks"),
    ("runs", "Runs: their plan, state, operations, events and small objects"),
    ("service", "Health, metrics and documentation"),
    (HOST, "Hosts of workers"),
];

/// Failures that every endpoint with this tag can answer with; a host takes no token.
pub(super) fn everywhere(tag: &str) -> &'static [ErrorCode] {
    match tag {
        HOST => &[Internal, Unavailable],
        _ => &[Unauthorized, Overloaded, Internal, Unavailable, Timeout],
    }
}

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const PARQUET: &str = "application/vnd.apache.parquet";
const OCTETS: &str = "application/octet-stream";
/// Batches as columns; the layout is in docs/metad.md.
const COLUMNS: &str = "application/vnd.foresail.columns";

/// One endpoint.
pub(super) struct Endpoint {
    pub id: &'static str,
    pub method: &'static str,
    pub path: &'static str,
    pub tag: &'static str,
    pub summary: &'static str,
    pub parameters: Vec<Parameter>,
    pub bodies: Vec<Body>,
    pub answers: Vec<Answer>,
    pub problems: &'static [ErrorCode],
}

/// A parameter that is not part of the path.
pub(super) struct Parameter {
    pub name: &'static str,
    pub place: &'static str,
    pub description: &'static str,
    pub schema: Value,
}

/// A body in one media type.
pub(super) struct Body {
    pub media_type: &'static str,
    pub shape: Shape,
}

/// What a body holds.
pub(super) enum Shape {
    /// The wire type with files of this name.
    Of(&'static str),
    /// Something else, by its schema.
    Plain(Value),
}

/// A good answer.
pub(super) struct Answer {
    pub status: u16,
    pub description: &'static str,
    pub bodies: Vec<Body>,
}

impl Endpoint {
    fn new(tag: &'static str, method: &'static str, path: &'static str, id: &'static str) -> Self {
        let (parameters, bodies, answers) = (Vec::new(), Vec::new(), Vec::new());
        Self { id, method, path, tag, summary: "", parameters, bodies, answers, problems: &[] }
    }

    fn summary(self, summary: &'static str) -> Self {
        Self { summary, ..self }
    }

    fn query(self, name: &'static str, description: &'static str, schema: Value) -> Self {
        self.parameter("query", name, description, schema)
    }

    fn header(self, name: &'static str, description: &'static str, schema: Value) -> Self {
        self.parameter("header", name, description, schema)
    }

    fn parameter(
        mut self,
        place: &'static str,
        name: &'static str,
        description: &'static str,
        schema: Value,
    ) -> Self {
        self.parameters.push(Parameter { name, place, description, schema });
        self
    }

    /// Takes JSON of this wire type, plain or compressed.
    fn takes(self, file: &'static str) -> Self {
        let encodings = json!({"enum": ["identity", "gzip", "zstd"]});
        let compressed = self.header("Content-Encoding", "Compression of the body", encodings);
        compressed.takes_as(JSON, Shape::Of(file))
    }

    fn takes_as(mut self, media_type: &'static str, shape: Shape) -> Self {
        self.bodies.push(Body { media_type, shape });
        self
    }

    /// Answers JSON of this wire type.
    fn gives(self, status: u16, description: &'static str, file: &'static str) -> Self {
        self.gives_as(status, description, JSON, Shape::Of(file))
    }

    fn gives_as(
        mut self,
        status: u16,
        description: &'static str,
        media_type: &'static str,
        shape: Shape,
    ) -> Self {
        let body = Body { media_type, shape };
        match self.answers.iter_mut().find(|a| a.status == status) {
            Some(answer) => answer.bodies.push(body),
            None => self.answers.push(Answer { status, description, bodies: vec![body] }),
        }
        self
    }

    fn gives_nothing(mut self, status: u16, description: &'static str) -> Self {
        self.answers.push(Answer { status, description, bodies: Vec::new() });
        self
    }

    /// Carries an ETag, and answers 304 to one who has that epoch.
    fn cached(self) -> Self {
        self.header("If-None-Match", "ETag of the epoch already known", text())
            .gives_nothing(304, "The epoch is the one in If-None-Match")
    }

    fn fails(self, problems: &'static [ErrorCode]) -> Self {
        Self { problems, ..self }
    }
}

fn text() -> Value {
    json!({"type": "string"})
}

fn whole() -> Value {
    json!({"type": "integer", "minimum": 0})
}

/// The length of a page.
fn page() -> Value {
    json!({"type": "integer", "minimum": 1, "default": 1000})
}

/// A name, as in paths.
fn name() -> Value {
    path_schema("")
}

fn some_text(description: &str) -> Shape {
    Shape::Plain(json!({"type": "string", "description": description}))
}

fn object(description: &str) -> Shape {
    Shape::Plain(json!({"type": "object", "description": description}))
}

/// Raw bytes have the empty schema in OpenAPI 3.1.
fn bytes() -> Shape {
    Shape::Plain(json!({}))
}

/// The schema of a path parameter, by its name.
pub(super) fn path_schema(name: &str) -> Value {
    match name {
        "epoch" => json!({"type": "integer", "minimum": 1}),
        "kind" => {
            json!({"enum": ["execution-time", "output-size", "transfer-time", "startup-time", "decision"]})
        }
        "key" => json!({"type": "string", "minLength": 1, "description": "Its slashes stand unescaped"}),
        _ => json!({"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.:@+~-]*$", "maxLength": 255}),
    }
}

/// Every endpoint.
pub(super) fn all() -> Vec<Endpoint> {
    [measurements(), predictions(), workflows(), runs(), run_parts(), blobs(), service(), hosts()]
        .into_iter()
        .flatten()
        .collect()
}

fn measurements() -> Vec<Endpoint> {
    let lines = some_text("One record per line; the batch id comes in Idempotency-Key");
    let post = Endpoint::new("measurements", "post", "/v1/workflows/{workflow}/batches", "postBatch")
        .summary("Store a batch; answered when it is durable. The same batch id again changes nothing.")
        .header("Idempotency-Key", "The batch id, where the body has none", text())
        .takes("batch")
        .takes_as(NDJSON, lines)
        .takes_as(COLUMNS, bytes())
        .gives(200, "Good records are stored, bad ones are set aside with the reason", "batch-answer")
        .fails(&[InvalidBody, InvalidName, TooLarge, UnsupportedMediaType, TooMany, StoreFailed]);
    vec![post]
}

fn predictions() -> Vec<Endpoint> {
    let tag = "predictions";
    let post = Endpoint::new(tag, "post", "/v1/workflows/{workflow}/predictions", "postPredictions")
        .summary("Answer several questions; the answers stand in the order of the questions")
        .takes("prediction-request")
        .gives(200, "The answers; what is not known is null with basis `none`", "prediction-answer")
        .fails(&[InvalidBody, InvalidName, TooLarge, UnsupportedMediaType, TooMany]);
    let get = Endpoint::new(tag, "get", "/v1/workflows/{workflow}/predictions/{kind}", "getPrediction")
        .summary("Answer one question; the ETag is the epoch")
        .query("task", "The function; for execution-time, output-size and decision", text())
        .query("input_bytes", "Size of all inputs; for execution-time, output-size and decision", whole())
        .query("direction", "For transfer-time", json!({"enum": ["download", "upload"]}))
        .query("bytes", "Size of the object; for transfer-time", whole())
        .query("store", "For transfer-time; all stores together where absent", text())
        .query("state", "For startup-time", json!({"enum": ["cold", "warm"]}))
        .query("memory_mb", "For all but output-size and decision", json!({"type": "integer", "minimum": 1}))
        .query("vcpu", "Where decoupled from memory", json!({"type": "number", "exclusiveMinimum": 0}))
        .query("sla", "mean, median or pNN[.N], comma between several; the median where absent", text())
        .gives(200, "The answer", "single-prediction")
        .cached()
        .fails(&[InvalidParameter, InvalidName]);
    vec![post, get]
}

fn workflows() -> Vec<Endpoint> {
    let get = |path, id| Endpoint::new("workflows", "get", path, id).fails(&[InvalidName, WorkflowNotFound]);
    let format = json!({"enum": ["ndjson", "parquet"], "default": "ndjson"});
    vec![
        get("/v1/workflows", "getWorkflows")
            .summary("The workflows that something is known of, in the order in which they became known")
            .query("limit", "At most so many in a page; 1000, which is also the most, by default", page())
            .query("after", "Only what comes behind this workflow: next_after of the page before", name())
            .gives(200, "A page of workflows", "workflow-list")
            .fails(&[InvalidParameter]),
        get("/v1/workflows/{workflow}", "getWorkflow").summary("What is known of a workflow").gives(
            200,
            "The workflow",
            "workflow-entry",
        ),
        get("/v1/workflows/{workflow}/tasks", "getTasks")
            .summary("The measured tasks of a workflow, by name; the ETag is the epoch")
            .query("limit", "At most so many in a page; 1000, which is also the most, by default", page())
            .query("after", "Only tasks behind this name: next_after of the page before", name())
            .gives(200, "A page of tasks", "task-list")
            .cached()
            .fails(&[InvalidParameter, InvalidName, WorkflowNotFound]),
        get("/v1/workflows/{workflow}/tasks/{task}", "getTask")
            .summary("Configs, samples, fitted curve and histogram of a task; the ETag is the epoch")
            .gives_as(200, "The task", JSON, Shape::Plain(task_report::schema()))
            .cached()
            .fails(&[InvalidName, WorkflowNotFound, TaskNotFound]),
        get("/v1/workflows/{workflow}/scores", "getScores")
            .summary("How well plans predicted the times of the tasks; the ETag is the epoch")
            .query(
                "limit",
                "At most so many tasks in a page; 1000, which is also the most, by default",
                page(),
            )
            .query("after", "Only tasks behind this name: next_after of the page before", name())
            .gives(200, "The scores of all tasks, and a page of those of each", "workflow-scores")
            .cached()
            .fails(&[InvalidParameter, InvalidName, WorkflowNotFound]),
        get("/v1/workflows/{workflow}/model", "getModel")
            .summary("The whole model of a workflow as one snapshot; the ETag is the epoch")
            .gives_as(200, "The snapshot", OCTETS, bytes())
            .gives_as(200, "The snapshot", JSON, object("The same as JSON, where Accept asks for it"))
            .cached(),
        get("/v1/workflows/{workflow}/samples", "getSamples")
            .summary("The raw measurements that are still kept")
            .query("format", "The format", format)
            .gives_as(200, "The records", NDJSON, some_text("One record per line"))
            .gives_as(200, "The records", PARQUET, bytes())
            .fails(&[InvalidName, InvalidParameter, WorkflowNotFound, StoreFailed]),
        get("/v1/workflows/{workflow}/quarantine", "getQuarantine")
            .summary("The records that were set aside, with the reason")
            .gives(200, "The youngest of the records, youngest first", "quarantine-list")
            .fails(&[InvalidName, WorkflowNotFound, StoreFailed]),
    ]
}

fn run(method: &'static str, path: &'static str, id: &'static str) -> Endpoint {
    Endpoint::new("runs", method, path, id).fails(&[InvalidName, RunNotFound])
}

fn runs() -> Vec<Endpoint> {
    let status = json!({"enum": ["running", "completed", "failed", "cancelled"]});
    vec![
        run("post", "/v1/runs", "postRun")
            .summary("Start keeping a run; the same id and content again changes nothing")
            .takes("run-request")
            .gives(201, "The run was created", "run-created")
            .gives(200, "The run was there already", "run-created")
            .fails(&[
                InvalidBody,
                InvalidWorkflow,
                InvalidPlan,
                RunExists,
                TooLarge,
                UnsupportedMediaType,
                StoreFailed,
            ]),
        run("get", "/v1/runs", "getRuns")
            .summary("The runs, youngest first")
            .query("workflow", "Only runs of this workflow", text())
            .query("status", "Only runs that stand there", status)
            .query("limit", "At most so many", whole())
            .gives(200, "The runs", "run-list")
            .fails(&[InvalidParameter]),
        run("get", "/v1/runs/{run}", "getRun").summary("A run in short").gives(200, "The run", "run-summary"),
        run("get", "/v1/runs/{run}/workflow", "getRunWorkflow").summary("What is run").gives(
            200,
            "The workflow",
            "workflow",
        ),
        run("get", "/v1/runs/{run}/plan", "getRunPlan").summary("The plan in force").gives(
            200,
            "The plan and its epoch",
            "current-plan",
        ),
        run("put", "/v1/runs/{run}/plan", "putRunPlan")
            .summary("Replace the plan if the epoch is still the one expected")
            .takes("replan-request")
            .gives(200, "The new plan and its epoch", "current-plan")
            .fails(&[
                InvalidBody,
                InvalidPlan,
                RunNotFound,
                PlanEpochConflict,
                RunOver,
                TooLarge,
                StoreFailed,
            ]),
        run("get", "/v1/runs/{run}/plans/suggested", "getRunPlanSuggested")
            .summary("The plan suggested last, as the request that puts it in force")
            .gives(200, "The request", "replan-request")
            .fails(&[NotFound]),
        run("put", "/v1/runs/{run}/plans/suggested", "putRunPlanSuggested")
            .summary("Keep a plan beside the one in force and tell that it was found; it needs `why`")
            .takes("replan-request")
            .gives(200, "What is kept", "replan-request")
            .fails(&[
                InvalidBody,
                InvalidPlan,
                RunNotFound,
                PlanEpochConflict,
                RunOver,
                TooLarge,
                StoreFailed,
            ]),
        run("get", "/v1/runs/{run}/plans/{epoch}", "getRunPlanEpoch").summary("The plan of an epoch").gives(
            200,
            "The plan and its epoch",
            "current-plan",
        ),
    ]
}

fn run_parts() -> Vec<Endpoint> {
    let stream =
        some_text("Server-sent events: `id` is the number, `event` the kind, `data` the event as JSON");
    let reason = json!({
        "type": "object", "required": ["reason"],
        "properties": {"reason": {"type": "string", "description": "Why, in words"}}
    });
    vec![
        run("post", "/v1/runs/{run}/operations", "postOperations")
            .summary(
                "Change or read the state of a run; durable when answered, every operation can be repeated",
            )
            .takes("operation-request")
            .gives(200, "A result per operation, in order", "operation-answer")
            .fails(&[InvalidBody, RunNotFound, TooLarge, TooMany, UnsupportedMediaType, StoreFailed]),
        run("post", "/v1/runs/{run}/cancel", "postCancel")
            .summary("Cancel a run; one that has ended stays as it is")
            .takes_as(JSON, Shape::Plain(reason))
            .gives(200, "The run", "run-summary")
            .fails(&[InvalidBody, RunNotFound, StoreFailed]),
        run("get", "/v1/runs/{run}/events", "getEvents")
            .summary("The events of a run: a page by long poll, or a stream where Accept asks for one")
            .query("after", "Only events with a larger number", whole())
            .query("wait_ms", "How long to wait for an event when there is none", whole())
            .query("kinds", "Only events of these kinds, comma between several", text())
            .query("limit", "At most so many in a page", whole())
            .header("Last-Event-ID", "Of a stream: number of the last event seen", whole())
            .gives(200, "The events", "event-page")
            .gives_as(200, "The events", "text/event-stream", stream)
            .fails(&[InvalidParameter, RunNotFound]),
    ]
}

fn blobs() -> Vec<Endpoint> {
    let blob = |method, id| run(method, "/v1/runs/{run}/blobs/{key}", id);
    vec![
        blob("put", "putBlob")
            .summary("Store a small object")
            .takes_as(OCTETS, bytes())
            .gives_nothing(204, "It is durable")
            .fails(&[InvalidParameter, RunNotFound, TooLarge, StoreFailed]),
        blob("get", "getBlob")
            .summary("Read a small object")
            .gives_as(200, "Its bytes", OCTETS, bytes())
            .fails(&[RunNotFound, BlobNotFound, StoreFailed]),
        blob("delete", "deleteBlob")
            .summary("Delete a small object")
            .gives_nothing(204, "It is not there any more")
            .fails(&[RunNotFound, StoreFailed]),
    ]
}

fn service() -> Vec<Endpoint> {
    let get = |path, id, summary, media_type, shape| {
        Endpoint::new("service", "get", path, id).summary(summary).gives_as(200, summary, media_type, shape)
    };
    let (html, plain, open_metrics) = ("text/html", "text/plain", "application/openmetrics-text");
    vec![
        get("/livez", "livez", "The process is alive", plain, some_text("A word")),
        get("/readyz", "readyz", "Requests are taken", plain, some_text("A word")),
        get("/metrics", "metrics", "Metrics for a monitoring system", open_metrics, some_text("OpenMetrics")),
        get("/openapi.json", "openapi", "This document", JSON, object("OpenAPI 3.1")),
        get("/docs", "docs", "This document as a page that works offline", html, some_text("HTML")),
        get("/", "dashboard", "The dashboard", html, some_text("HTML")),
    ]
}

fn hosts() -> Vec<Endpoint> {
    let host = |method, path, id| Endpoint::new(HOST, method, path, id);
    vec![
        host("post", "/v1/invocations", "postInvocation")
            .summary("Ask for a worker; it runs when there is a place for it")
            .takes_as(JSON, Shape::Of("invocation"))
            .gives(202, "It will be started", "invoked")
            .fails(&[InvalidBody, UnknownConfig, CapacityExceeded]),
        host("get", "/v1/status", "getStatus").summary("What the host is doing").gives(
            200,
            "The status",
            "host-status",
        ),
        host("post", "/v1/drain", "postDrain")
            .summary("Stop idle workers, so that the next start is cold")
            .gives(200, "The status", "host-status"),
    ]
}

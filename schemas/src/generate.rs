//! What is generated from the wire types and kept in the repository: JSON Schemas (draft 2020-12) with an
//! example each, the OpenAPI document, and the page of error codes.
//!
//! `cargo run -p foresail-schemas --bin schemas -- --write` rewrites the files; a test fails when one is out
//! of date.

use std::path::PathBuf;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::Value;

use crate::{
    error, examples, invocation, listing, metric, openapi, plan, platform, prediction, run, score, workflow,
};

/// The command that rewrites what is out of date.
pub const WRITE_COMMAND: &str = "cargo run -p foresail-schemas --bin schemas -- --write";

/// A wire type with its schema and an example.
pub struct Subject {
    /// Name of its files, in kebab case.
    pub file: &'static str,
    /// The example.
    pub example: Value,
    reference: fn(&mut SchemaGenerator) -> Schema,
    root: fn(SchemaGenerator) -> Schema,
    reads: fn(&Value) -> Result<Value, serde_json::Error>,
}

impl Subject {
    fn of<T>(file: &'static str, example: &T) -> Self
    where
        T: JsonSchema + Serialize + serde::de::DeserializeOwned,
    {
        Self {
            file,
            example: serde_json::to_value(example).expect("wire types have text keys and finite numbers"),
            reference: |generator| generator.subschema_for::<T>(),
            root: |generator| generator.into_root_schema_for::<T>(),
            reads: |value| serde_json::to_value(T::deserialize(value)?),
        }
    }

    /// The schema by itself, with everything it refers to.
    #[must_use]
    pub fn schema(&self) -> Value {
        let mut schema = (self.root)(SchemaSettings::draft2020_12().into_generator());
        let id = format!("https://foresail.dev/schemas/{}.schema.json", self.file);
        schema.insert("$id".to_owned(), Value::String(id));
        schema.to_value()
    }

    /// A reference to the schema among the definitions of `generator`.
    pub(crate) fn reference(&self, generator: &mut SchemaGenerator) -> Value {
        (self.reference)(generator).to_value()
    }

    /// Reads `value` as this type and writes it again.
    ///
    /// # Errors
    /// What serde says of a value that is not of this type.
    pub fn round_trip(&self, value: &Value) -> Result<Value, serde_json::Error> {
        (self.reads)(value)
    }
}

/// Every wire type that has files of its own.
#[must_use]
pub fn subjects() -> Vec<Subject> {
    vec![
        Subject::of::<workflow::Workflow>("workflow", &examples::workflow()),
        Subject::of::<metric::Batch>("batch", &examples::batch()),
        Subject::of::<metric::BatchAnswer>("batch-answer", &examples::batch_answer()),
        Subject::of::<listing::WorkflowList>("workflow-list", &examples::workflow_list()),
        Subject::of::<listing::WorkflowEntry>("workflow-entry", &examples::workflow_entry()),
        Subject::of::<listing::TaskList>("task-list", &examples::task_list()),
        Subject::of::<listing::QuarantineList>("quarantine-list", &examples::quarantine_list()),
        Subject::of::<score::WorkflowScores>("workflow-scores", &examples::workflow_scores()),
        Subject::of::<listing::RunList>("run-list", &examples::run_list()),
        Subject::of::<prediction::PredictionRequest>("prediction-request", &examples::prediction_request()),
        Subject::of::<prediction::PredictionAnswer>("prediction-answer", &examples::prediction_answer()),
        Subject::of::<prediction::SinglePrediction>("single-prediction", &examples::single_prediction()),
        Subject::of::<error::Problem>("problem", &examples::problem()),
        Subject::of::<plan::Plan>("plan", &examples::plan()),
        Subject::of::<plan::Problem>("planning-problem", &examples::planning_problem()),
        Subject::of::<run::RunRequest>("run-request", &examples::run_request()),
        Subject::of::<run::RunCreated>("run-created", &examples::run_created()),
        Subject::of::<run::RunSummary>("run-summary", &examples::run_summary()),
        Subject::of::<run::OperationRequest>("operation-request", &examples::operation_request()),
        Subject::of::<run::OperationAnswer>("operation-answer", &examples::operation_answer()),
        Subject::of::<run::RunEvent>("run-event", &examples::run_event()),
        Subject::of::<run::EventPage>("event-page", &examples::event_page()),
        Subject::of::<run::ReplanRequest>("replan-request", &examples::replan_request()),
        Subject::of::<run::CurrentPlan>("current-plan", &examples::current_plan()),
        Subject::of::<invocation::Invocation>("invocation", &examples::invocation()),
        Subject::of::<invocation::Invoked>("invoked", &examples::invoked()),
        Subject::of::<invocation::HostMessage>("host-message", &examples::host_message()),
        Subject::of::<invocation::WorkerMessage>("worker-message", &examples::worker_message()),
        Subject::of::<invocation::HostStatus>("host-status", &examples::host_status()),
        Subject::of::<platform::Platform>("platform", &examples::platform()),
    ]
}

/// Every generated file: its path from the root of the repository and its content.
#[must_use]
pub fn files() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for subject in subjects() {
        let name = subject.file;
        files.push((format!("schemas/json/{name}.schema.json").into(), pretty(&subject.schema())));
        files.push((format!("schemas/json/examples/{name}.json").into(), pretty(&subject.example)));
    }
    files.push(("schemas/json/openapi.json".into(), pretty(&openapi::document())));
    files.push(("docs/errors.md".into(), errors_page()));
    files
}

/// Those of [`files`] that differ from what is stored under `root`.
#[must_use]
pub fn out_of_date(root: &std::path::Path) -> Vec<(PathBuf, String)> {
    let differs = |(path, content): &(PathBuf, String)| {
        std::fs::read_to_string(root.join(path)).ok().as_ref() != Some(content)
    };
    files().into_iter().filter(differs).collect()
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// `docs/errors.md`: a section per code.
fn errors_page() -> String {
    let yes_no = |answer| if answer { "yes" } else { "no" };
    let mut page = String::from(
        "# Error codes\n\n\
        Every failure that leaves a process of Foresail is problem+json (RFC 9457) with one of these codes\n\
        in `code`. A code never changes its meaning. *Retry helps*: the same request may succeed later.\n\
        *Changed nothing*: it is certain that the request had no effect.\n\n\
        This page is generated from `schemas/src/error.rs`; rewrite it with\n",
    );
    page.push_str(&format!(
        "`{WRITE_COMMAND}`.\n\n| code | status | retry helps | changed nothing |\n|---|---|---|---|\n"
    ));
    for &code in error::ErrorCode::ALL {
        let (retry, nothing) = (yes_no(code.is_retryable()), yes_no(code.has_no_side_effects()));
        page.push_str(&format!("| [`{code}`](#{code}) | {} | {retry} | {nothing} |\n", code.status()));
    }
    for &code in error::ErrorCode::ALL {
        let (retry, nothing) = (yes_no(code.is_retryable()), yes_no(code.has_no_side_effects()));
        page.push_str(&format!(
            "\n## {code}\n\n{}\n\nStatus {} · retry helps: {retry} · changed nothing: {nothing}\n\n\
             What to do: {}.\n",
            code.description(),
            code.status(),
            code.hint()
        ));
    }
    page
}

//! The OpenAPI 3.1 document of metad and of worker hosts, generated from the wire types.
//!
//! The table of endpoints stands in `endpoints`; here it becomes a document. Schemas are referred to by
//! `$ref` into the components; every problem answer is grouped by status and names the codes it can carry.

mod endpoints;
mod task_report;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::error::ErrorCode;
use crate::generate::{Subject, subjects};
use endpoints::{Answer, Body, Endpoint, Parameter, Shape};

/// The whole document.
#[must_use]
pub fn document() -> Value {
    let mut writer = Writer::new();
    let mut paths = Map::new();
    for endpoint in endpoints::all() {
        let operation = writer.operation(&endpoint);
        let item = paths.entry(endpoint.path.to_owned()).or_insert_with(|| json!({}));
        item[endpoint.method] = operation;
        if endpoint.tag == endpoints::HOST {
            item["servers"] = json!([{"url": "http://127.0.0.1:7071", "description": "a host of workers"}]);
        }
    }
    let tag = |(name, text): &(&str, &str)| json!({"name": name, "description": text});
    let tags: Vec<Value> = endpoints::TAGS.iter().map(tag).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Foresail",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Metadata, predictions and run state of workflows",
            "description": "Times in ms, sizes in bytes, memory in MB as on AWS Lambda, money in USD. \
                Errors are problem+json (RFC 9457) with a stable code.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:7070", "description": "metad on this machine"}],
        "tags": tags,
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": writer.components(),
            "securitySchemes": {"token": {
                "type": "http", "scheme": "bearer",
                "description": "Needed where metad was started with one, as it must be beyond loopback",
            }},
        },
    })
}

struct Writer {
    generator: SchemaGenerator,
    subjects: Vec<Subject>,
}

impl Writer {
    fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|s| {
            s.definitions_path = "/components/schemas".into();
            s.meta_schema = None;
        });
        Self { generator: settings.into_generator(), subjects: subjects() }
    }

    fn components(mut self) -> Value {
        Value::Object(self.generator.take_definitions(true))
    }

    fn operation(&mut self, endpoint: &Endpoint) -> Value {
        let in_path = |name| {
            let schema = endpoints::path_schema(name);
            json!({"name": name, "in": "path", "required": true, "schema": schema})
        };
        let mut parameters: Vec<Value> = path_parameters(endpoint.path).map(in_path).collect();
        parameters.extend(endpoint.parameters.iter().map(parameter));
        let mut responses: Map<String, Value> =
            endpoint.answers.iter().map(|answer| (answer.status.to_string(), self.answer(answer))).collect();
        responses.extend(self.problems(endpoint));
        let mut operation = json!({
            "operationId": endpoint.id,
            "tags": [endpoint.tag],
            "summary": endpoint.summary,
            "parameters": parameters,
            "responses": responses,
        });
        if !endpoint.bodies.is_empty() {
            operation["requestBody"] = json!({"required": true, "content": self.content(&endpoint.bodies)});
        }
        operation
    }

    fn answer(&mut self, answer: &Answer) -> Value {
        let mut written = json!({"description": answer.description});
        if !answer.bodies.is_empty() {
            written["content"] = self.content(&answer.bodies);
        }
        written
    }

    fn content(&mut self, bodies: &[Body]) -> Value {
        Value::Object(
            bodies.iter().map(|body| (body.media_type.to_owned(), self.shape(&body.shape))).collect(),
        )
    }

    fn shape(&mut self, shape: &Shape) -> Value {
        match shape {
            Shape::Of(file) => {
                let subject = self.subjects.iter().find(|s| s.file == *file);
                let subject = subject.expect("a test writes the document, so every file named exists");
                json!({"schema": subject.reference(&mut self.generator), "example": subject.example})
            }
            Shape::Plain(schema) => json!({"schema": schema}),
        }
    }

    /// A problem answer per status, with the codes it can carry.
    fn problems(&mut self, endpoint: &Endpoint) -> Vec<(String, Value)> {
        let mut by_status: std::collections::BTreeMap<u16, Vec<ErrorCode>> = Default::default();
        for &code in endpoint.problems.iter().chain(endpoints::everywhere(endpoint.tag)) {
            by_status.entry(code.status()).or_default().push(code);
        }
        let schema = self.shape(&Shape::Of("problem"))["schema"].take();
        let problem = |codes: &[ErrorCode]| {
            let said: Vec<_> = codes.iter().map(|c| format!("`{c}`: {}", c.description())).collect();
            let first = crate::error::Problem::new(codes[0], codes[0].description());
            json!({
                "description": said.join(" "),
                "content": {"application/problem+json": {"schema": schema, "example": first}},
            })
        };
        by_status.into_iter().map(|(status, codes)| (status.to_string(), problem(&codes))).collect()
    }
}

fn parameter(parameter: &Parameter) -> Value {
    json!({
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "schema": parameter.schema,
    })
}

/// The names in braces.
fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|rest| rest.split('}').next())
}

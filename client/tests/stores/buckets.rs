//! Runs whose large objects lie in a bucket: the same results as with files, measured, and cleaned up after.

use std::collections::BTreeMap;

use bytes::Bytes;
use foresail::examples::Example;
use foresail::schemas::metric::Direction;
use foresail::schemas::prediction::{Basis, PredictionRequest, Query};
use foresail::schemas::run::{Location, RunOptions};
use foresail::schemas::{Sla, TaskName, Workflow};
use foresail::{LocalStack, RunHandle, StackSettings};
use foresail_worker::host::local::ObjectPlace;

use crate::servers::{Moto, silence};
use crate::workloads::{settings, stack_on, submit};

pub type Results = BTreeMap<String, Bytes>;

/// Carries a workflow out on a stack with objects there.
pub async fn results(stack: &LocalStack, workflow: &Workflow) -> (RunHandle, Results) {
    let client = stack.client().await.unwrap();
    let run = submit(stack, &client, workflow, RunOptions::default()).await;
    run.wait().await.unwrap().completed().unwrap();
    let mut found = Results::new();
    for (task, output, object) in run.results().await.unwrap() {
        found.insert(format!("{task}/{output}"), run.object(task.as_str(), &object).await.unwrap());
    }
    (run, found)
}

fn workflow(example: &str, folder: &std::path::Path) -> Workflow {
    Example::find(example).unwrap().workflow(Some(2), folder).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_over_a_bucket_give_what_runs_over_files_give() {
    let Some(moto) = Moto::start() else { return };
    let texts = tempfile::tempdir().unwrap();
    for (name, text) in [("a.rs", "fn answer() -> u32 { 42 }\n"), ("b.py", "def answer(): return 42\n")] {
        std::fs::write(texts.path().join(name), text.repeat(20_000)).unwrap();
    }
    let files = stack_on(ObjectPlace::Files).await;
    let bucket = stack_on(ObjectPlace::S3(moto.bucket())).await;
    for example in ["gemm", "text-analysis"] {
        let workflow = workflow(example, texts.path());
        let (_, expected) = results(&files, &workflow).await;
        let (run, found) = results(&bucket, &workflow).await;
        assert!(!expected.is_empty() && found == expected, "{example}: {:?}", found.keys());
        let outcome = run.wait().await.unwrap();
        assert!(outcome.progress.usage().puts > 0, "{example} put nothing into the bucket");
    }
    files.stop().await;
    bucket.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_of_a_bucket_are_measured_under_its_name() {
    let Some(moto) = Moto::start() else { return };
    let stack = stack_on(ObjectPlace::S3(moto.bucket())).await;
    let workflow = workflow("gemm", std::path::Path::new("."));
    results(&stack, &workflow).await;
    let client = stack.client().await.unwrap();
    let store = |name: &str| Some(TaskName::new(name).unwrap());
    let query = |store| Query::TransferTime {
        direction: Direction::Upload,
        bytes: 500_000,
        memory_mb: stack.platform().default_config.memory_mb,
        vcpu: None,
        store,
    };
    let queries = vec![query(store("s3")), query(store("file"))];
    let request = PredictionRequest { sla: vec![Sla::MEDIAN], queries };
    let answer = client.ask(workflow.name(), &request).await.unwrap();
    let bases: Vec<Basis> = answer.predictions.iter().map(|p| p.basis).collect();
    assert!(bases[0] == Basis::Exact && bases[1] != Basis::Exact, "{bases:?}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_results_stay_in_a_bucket_and_only_those_of_the_newest_runs() {
    let Some(moto) = Moto::start() else { return };
    let stack = stack_on(ObjectPlace::S3(moto.bucket())).await;
    let (run, _) = results(&stack, &workflow("gemm", std::path::Path::new("."))).await;
    let mut expected: Vec<String> = Vec::new();
    for (_, _, object) in run.results().await.unwrap() {
        if let Location::Stored(key) = &object.location {
            expected.push(format!("some/place/{key}"));
        }
    }
    expected.sort();
    // The end of a host is one more look of it.
    stack.stop().await;
    let mut keys = moto.keys();
    keys.sort();
    assert!(!expected.is_empty() && keys == expected, "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_cannot_be_used_is_told_when_the_stack_starts() {
    let Some(moto) = Moto::start() else { return };
    for bucket in [
        format!("s3://nowhere?endpoint=http://{}", moto.address()),
        format!("s3://bucket?endpoint=http://{}&request_ms_max=200", silence()),
    ] {
        let objects = bucket.parse().unwrap();
        let error = LocalStack::start(StackSettings { objects, ..settings() }).await.unwrap_err().to_string();
        assert!(error.contains("store of objects") && error.contains(&bucket), "{error}");
    }
}

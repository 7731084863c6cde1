//! Health, metrics, the API document and the pages, and what answers where nothing is.

use foresail_schemas::{ErrorCode, Problem};
use serde_json::json;

use crate::{Daemon, fails, task, why};

#[tokio::test]
async fn health_and_pages_answer() {
    let daemon = Daemon::start();
    for (path, media_type, contains) in [
        ("/livez", "text/plain; charset=utf-8", "alive"),
        ("/readyz", "text/plain; charset=utf-8", "ready"),
        ("/docs", "text/html; charset=utf-8", "/openapi.json"),
        ("/", "text/html; charset=utf-8", "/v1/runs"),
        ("/openapi.json", "application/json", "\"openapi\":\"3.1"),
    ] {
        let answer = daemon.get(path).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()),
            (200, media_type)
        );
        assert!(answer.text().await.unwrap().contains(contains), "{path}");
    }
}

#[tokio::test]
async fn the_pages_need_no_other_server() {
    let daemon = Daemon::start();
    for path in ["/docs", "/"] {
        let page = daemon.get(path).send().await.unwrap().text().await.unwrap();
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("src="), "{path}");
    }
}

#[tokio::test]
async fn unknown_addresses_and_methods_are_problems_too() {
    let daemon = Daemon::start();
    let nowhere = fails(daemon.get("/v2/nothing"), ErrorCode::NotFound).await;
    assert!(nowhere.detail.contains("`/v2/nothing`"));
    fails(daemon.client.delete(daemon.url("/v1/runs")), ErrorCode::MethodNotAllowed).await;
    fails(daemon.get("/v1/workflows/w/batches"), ErrorCode::MethodNotAllowed).await;
}

#[tokio::test]
async fn every_address_of_the_api_document_is_served() {
    let daemon = Daemon::start();
    let request = daemon.run("r-1").await;
    daemon.suggest("r-1", &request.plan, &why()).await;
    let document = daemon.read("/openapi.json").await;
    for (path, item) in document["paths"].as_object().unwrap() {
        let own_host =
            item["servers"].is_array() || item.as_object().unwrap().values().any(|o| o["servers"].is_array());
        if own_host || ["/v1/invocations", "/v1/status", "/v1/drain"].contains(&path.as_str()) {
            continue;
        }
        let address = path.replace("{run}", "r-1").replace("{workflow}", "w").replace("{epoch}", "1");
        let address = address.replace("{kind}", "output-size").replace(['{', '}'], "");
        for method in ["get", "post", "put", "delete"].iter().filter(|m| item.get(**m).is_some()) {
            let method = reqwest::Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let answer = daemon.client.request(method.clone(), daemon.url(&address)).send().await.unwrap();
            let status = answer.status().as_u16();
            let problem: Option<Problem> = answer.json().await.ok();
            let code = problem.map(|p| p.code);
            assert!(status != 405 && code != Some(ErrorCode::NotFound), "{method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn the_counters_follow_what_happens() {
    let daemon = Daemon::start();
    daemon.batch("b-1", json!([task(1.0), task(2.0), {"bad": 1}])).await;
    daemon.batch("b-1", json!([])).await;
    daemon.run("r-1").await;
    let answer = daemon.get("/metrics").send().await.unwrap();
    assert_eq!(
        answer.headers()["content-type"],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let text = answer.text().await.unwrap();
    for line in [
        "foresail_metad_batches_total 1",
        "foresail_metad_batch_duplicates_total 1",
        "foresail_metad_records_accepted_total 2",
        "foresail_metad_records_rejected_total 1",
        "foresail_metad_commit_seconds_count 3",
        "foresail_metad_epoch 1",
        "foresail_metad_model_tasks 1",
        "foresail_metad_runs{status=\"running\"} 1",
        "foresail_metad_requests_total{route=\"/v1/workflows/{workflow}/batches\",\
         method=\"POST\",status=\"200\"} 2",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

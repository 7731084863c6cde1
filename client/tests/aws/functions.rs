//! Functions at work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use foresail_metad::{Server, Settings};
use foresail_schemas::ResourceConfig;
use foresail_worker::host::conformance::{Hears, Subject, check};
use serde_json::Value;

use crate::emulator::{Emulator, block_on, host};
use crate::servers::free_address;

const FUNCTION: &str = env!("CARGO_BIN_EXE_foresail");

fn size(memory_mb: u32) -> ResourceConfig {
    ResourceConfig::new(memory_mb, None).unwrap()
}

#[test]
fn lambda_is_a_host_and_every_invocation_is_told_in_the_log() {
    let Some(emulator) = Emulator::start(FUNCTION, &[256], 1) else { return };
    let Some(full) = Emulator::start(FUNCTION, &[256], 0) else { return };
    full.refuse(u64::MAX, (429, "TooManyRequestsException"));
    let dir = tempfile::tempdir().unwrap();
    let metad = Server::start(Settings::embedded(dir.path())).unwrap();
    block_on(async {
        let subject = Subject {
            host: Arc::new(host(&emulator.url).await),
            full: Arc::new(host(&full.url).await),
            gone: Arc::new(host(&format!("http://{}", free_address())).await),
            metad: format!("http://{}", metad.address()),
            config: size(256),
            not_offered: size(512),
            hears: Hears::Nothing,
        };
        check(&subject).await.unwrap();
    });
    let lines = log(&emulator);
    let (first, second) = (&lines[0], &lines[1]);
    assert_eq!((&first["start"], &second["start"]), (&"cold".into(), &"warm".into()));
    assert!(first["init_ms"].as_f64().unwrap() > 0.0 && second["init_ms"].is_null(), "{lines:?}");
    for line in &lines {
        let request_id = line["request_id"].as_str().unwrap();
        assert_eq!(line["instance"].as_str().unwrap(), format!("f-{request_id}"));
        let billed_ms = line["billed_ms"].as_f64().unwrap();
        assert_eq!(line["gb_s"].as_f64().unwrap(), 0.25 * billed_ms / 1000.0);
        assert!(billed_ms >= line["init_ms"].as_f64().unwrap_or(0.0) && billed_ms.fract() == 0.0, "{line}");
        assert!(line["queued_ms"].as_f64().unwrap() >= 0.0 && line["after_ms"].as_f64().unwrap() >= 0.0);
        assert!(line["peak_memory_mb"].as_f64().unwrap() > 1.0, "{line}");
    }
}

/// What the functions told, once the first two invocations are there.
fn log(emulator: &Emulator) -> Vec<Value> {
    let ends = Instant::now() + Duration::from_secs(60);
    loop {
        let lines: Vec<Value> =
            emulator.log.lock().unwrap().iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let told: Vec<Value> =
            lines.into_iter().filter_map(|mut line| line.get_mut("foresail").map(Value::take)).collect();
        if told.len() >= 2 {
            return told;
        }
        assert!(Instant::now() < ends, "the functions log nothing");
        std::thread::sleep(Duration::from_millis(10));
    }
}

//! What Lambda refuses, and what becomes of it.

use std::sync::atomic::Ordering;

use foresail_aws::TRIES_MAX;
use foresail_schemas::error::ErrorCode;
use foresail_schemas::invocation::Invocation;
use foresail_schemas::{ResourceConfig, RunId};
use foresail_worker::host::{Host, HostError};

use crate::emulator::{Emulator, Refusal, block_on, host};

fn invocation(tasks: u32) -> Invocation {
    let (run, config) = (RunId::new("r").unwrap(), ResourceConfig::new(256, None).unwrap());
    Invocation::new(run, None, config, (0..tasks).collect(), "http://127.0.0.1:9".to_owned())
}

/// A Lambda without sandboxes: only its front answers.
fn asked(refusal: Option<(u64, Refusal)>, invocation: &Invocation) -> Option<(Result<(), HostError>, u64)> {
    let emulator = Emulator::start("", &[256], 0)?;
    if let Some((events, refusal)) = refusal {
        emulator.refuse(events, refusal);
    }
    let answer = block_on(async { host(&emulator.url).await.invoke(invocation.clone()).await });
    Some((answer.map(drop), emulator.told.asked.load(Ordering::SeqCst)))
}

#[test]
fn what_is_throttled_is_asked_again_a_bounded_number_of_times() {
    let throttled = (429, "TooManyRequestsException");
    let Some((answer, tries)) = asked(Some((3, throttled)), &invocation(1)) else { return };
    answer.unwrap();
    assert_eq!(tries, 4);
    let Some((answer, tries)) = asked(Some((u64::MAX, throttled)), &invocation(1)) else { return };
    let error = answer.unwrap_err();
    assert_eq!((error.code(), tries), (ErrorCode::CapacityExceeded, u64::from(TRIES_MAX)), "{error}");
    assert!(error.is_retryable() && error.to_string().contains("concurrent executions"), "{error}");
}

#[test]
fn what_is_forbidden_or_missing_is_asked_once_and_told_with_a_hint() {
    for (refusal, hint) in [
        ((403, "AccessDeniedException"), "lambda:InvokeFunction on `foresail-256:live`"),
        ((404, "ResourceNotFoundException"), "foresail deploy aws"),
    ] {
        let Some((answer, tries)) = asked(Some((u64::MAX, refusal)), &invocation(1)) else { return };
        let error = answer.unwrap_err();
        assert!(!error.is_retryable() && tries == 1, "{tries} tries: {error}");
        assert!(error.to_string().contains(hint) && error.to_string().contains(refusal.1), "{error}");
    }
}

#[test]
fn what_is_larger_than_lambda_takes_is_not_sent() {
    let Some((answer, tries)) = asked(None, &invocation(60_000)) else { return };
    let error = answer.unwrap_err();
    assert_eq!((error.code(), tries), (ErrorCode::TooLarge, 0), "{error}");
    assert!(error.to_string().contains("takes at most 262144"), "{error}");
}

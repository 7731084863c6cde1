//! The host of processes on this machine.

use std::sync::Arc;

use foresail_worker::host::conformance::{Hears, Subject, check};
use foresail_worker::host::local::WorkerCommand;
use foresail_worker::{LocalFaas, LocalSettings};

use crate::stand::{Stand, block_on, program, size};

fn start(stand: &Stand, name: &str, adjust: impl FnOnce(&mut LocalSettings)) -> LocalFaas {
    let mut settings = LocalSettings::new(&stand.url, stand.dir.path().join(name));
    settings.worker = Some(WorkerCommand { program: program(), args: Vec::new() });
    settings.menu = vec![size(256), size(512)];
    settings.concurrency_max = 2;
    adjust(&mut settings);
    LocalFaas::start(settings).unwrap()
}

fn subject(stand: &Stand) -> Subject {
    let host = start(stand, "host", |_| {});
    let full = start(stand, "full", |settings| {
        settings.concurrency_max = 1;
        settings.queue_max = 1;
    });
    let mut gone = start(stand, "gone", |_| {});
    gone.stop();
    Subject {
        host: Arc::new(host),
        full: Arc::new(full),
        gone: Arc::new(gone),
        metad: stand.url.clone(),
        config: size(256),
        not_offered: size(768),
        hears: Hears::Ends,
    }
}

#[test]
fn the_local_host_is_a_host() {
    let stand = Stand::start();
    block_on(check(&subject(&stand))).unwrap();
}

#[test]
fn the_checks_find_what_a_host_does_otherwise() {
    let found = |adjust: fn(Subject) -> Subject| {
        let stand = Stand::start();
        block_on(check(&adjust(subject(&stand)))).unwrap_err()
    };
    let told = found(|good| Subject { not_offered: size(512), ..good });
    assert!(told.contains("the host took a size that it does not offer"), "{told}");
    let told = found(|good| Subject { hears: Hears::Nothing, ..good });
    assert!(told.contains("one invocation was counted as 1 starts"), "{told}");
    let told = found(|good| Subject { gone: Arc::clone(&good.host), ..good });
    assert!(told.contains("the host took an invocation although it cannot be reached"), "{told}");
}

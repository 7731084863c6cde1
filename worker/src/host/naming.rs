//! Ids of invocations: the planned worker, the start of whoever names them, a number.

use std::sync::atomic::{AtomicU64, Ordering};

use foresail_schemas::id::{InstanceId, WorkerId};
use jiff::Timestamp;

/// Longest part of an id that comes from the planned worker.
const WORKER_NAME_LEN_MAX: usize = 200;

/// Names invocations.
#[derive(Debug)]
pub(crate) struct Naming {
    /// Makes ids unique across restarts.
    epoch: String,
    named: AtomicU64,
}

impl Naming {
    /// Ids that differ from those of earlier starts.
    pub fn new() -> Self {
        let epoch = base36(Timestamp::now().as_microsecond().unsigned_abs());
        Self { epoch, named: AtomicU64::new(0) }
    }

    /// The part that tells starts apart.
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// The next id.
    pub fn name(&self, worker: Option<&WorkerId>) -> InstanceId {
        let number = self.named.fetch_add(1, Ordering::Relaxed) + 1;
        named_of(worker, &format!("{}-{number}", self.epoch))
    }
}

/// The id of an invocation of this worker that something else has named already, for instance the platform.
/// What is not allowed in an id becomes a dash.
#[must_use]
pub fn named_of(worker: Option<&WorkerId>, name: &str) -> InstanceId {
    let worker = worker.map_or("f", |w| &w.as_str()[..w.as_str().len().min(WORKER_NAME_LEN_MAX)]);
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = name.chars().take(NAME_LEN_MAX).map(|c| if is_legal(c) { c } else { '-' }).collect();
    InstanceId::new(format!("{worker}-{name}")).expect("a legal name with letters and digits behind it")
}

/// Longest part of an id that comes from elsewhere.
const NAME_LEN_MAX: usize = 50;

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize] as char);
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_36_digits() {
        assert_eq!((base36(0).as_str(), base36(35).as_str(), base36(36 * 36).as_str()), ("0", "z", "100"));
    }

    #[test]
    fn any_name_gives_a_legal_id_that_keeps_it() {
        let worker = WorkerId::new("w".repeat(foresail_schemas::id::NAME_LEN_MAX)).unwrap();
        let id = named_of(Some(&worker), "8476a536-e9f4/ü");
        assert!(id.as_str().ends_with("8476a536-e9f4--"), "{id}");
        assert_eq!(named_of(None, "8476a536-e9f4").as_str(), "f-8476a536-e9f4");
    }
}

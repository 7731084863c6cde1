//! Peak memory of a process, read from `/proc`: resident memory in MB (2^20 bytes).

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

/// The line of the peak stands in so many first bytes of the status.
const STATUS_BYTES_MAX: usize = 4096;

/// Measures the peak memory of one process.
#[derive(Debug)]
pub(super) struct Meter {
    clear: Option<File>,
    status: Option<File>,
}

impl Meter {
    /// That of a process, by its id or `self`.
    pub fn of(process: &str) -> Self {
        Self {
            clear: OpenOptions::new().write(true).open(format!("/proc/{process}/clear_refs")).ok(),
            status: File::open(format!("/proc/{process}/status")).ok(),
        }
    }

    /// Forgets the peak so far. Where the kernel does not allow that, it stays that of the whole process.
    pub fn reset(&self) {
        // Source: proc(5), /proc/pid/clear_refs: 5 resets the peak resident set size.
        let _ = self.clear.as_ref().map(|file| file.write_at(b"5", 0));
    }

    /// The peak since the last reset; 0 where not known.
    pub fn peak_mb(&self) -> f64 {
        let mut text = [0; STATUS_BYTES_MAX];
        let len = self.status.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        let status = String::from_utf8_lossy(&text[..len]);
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
        kib.unwrap_or(0.0) / 1024.0
    }
}

static OWN: LazyLock<Meter> = LazyLock::new(|| Meter::of("self"));

/// Forgets the peak of this process so far.
pub fn reset_peak() {
    OWN.reset();
}

/// The peak of this process since the last [`reset_peak`]; 0 where not known.
#[must_use]
pub fn peak_memory_mb() -> f64 {
    OWN.peak_mb()
}

/// The peak of the largest process that this one started and has waited for.
#[must_use]
pub fn children_peak_memory_mb() -> f64 {
    // SAFETY: the structure is written by the call, which fails only for an address that is none.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    // Source: getrusage(2), ru_maxrss is in KiB.
    usage.ru_maxrss as f64 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_follows_what_is_touched() {
        let before_mb = peak_memory_mb();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(peak_memory_mb() >= before_mb.max(64.0), "{before_mb} MB before");
        drop(block);
    }
}

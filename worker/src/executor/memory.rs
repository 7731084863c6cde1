//! Peak memory of this process, read from `/proc`: resident memory in MB (2^20 bytes).

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

/// The line of the peak stands in so many first bytes of the status.
const STATUS_BYTES_MAX: usize = 4096;

/// Forgets the peak so far, so that the next reading is the peak since now. Where the kernel does not allow
/// that, the peak stays that of the whole process.
pub fn reset_peak() {
    static FILE: LazyLock<Option<File>> =
        LazyLock::new(|| OpenOptions::new().write(true).open("/proc/self/clear_refs").ok());
    // Source: proc(5), /proc/pid/clear_refs: 5 resets the peak resident set size.
    let _ = FILE.as_ref().map(|file| file.write_at(b"5", 0));
}

/// The peak since the last [`reset_peak`]; 0 where not known.
#[must_use]
pub fn peak_memory_mb() -> f64 {
    static FILE: LazyLock<Option<File>> = LazyLock::new(|| File::open("/proc/self/status").ok());
    let mut text = [0; STATUS_BYTES_MAX];
    let len = FILE.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
    let status = String::from_utf8_lossy(&text[..len]);
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
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

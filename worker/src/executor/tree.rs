//! The processes below another one, those among them that left its group or session.

use std::fs;

/// Rounds of looking and killing: a round misses what is forked while it looks.
const ROUNDS_MAX: u32 = 20;

/// Ends every process below `root`, which is stopped first, so that it starts no others meanwhile. The root
/// itself is left to the caller.
pub(super) fn kill_below(root: u32) {
    // SAFETY: a plain system call on a child that was not reaped.
    unsafe { libc::kill(root as libc::pid_t, libc::SIGSTOP) };
    for _ in 0..ROUNDS_MAX {
        let below = below(root);
        if below.is_empty() {
            return;
        }
        for pid in below {
            // SAFETY: a plain system call; the id was just read from below our own child.
            unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
        }
    }
}

/// Live processes below `root`, at any depth.
fn below(root: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let all: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, parent_of(pid)?))).collect();
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.split_off(1)
}

/// The parent of a process that is not a zombie. Source: proc(5); the name, second field, may hold blanks.
fn parent_of(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let is_alive = !matches!(fields.next()?, "Z" | "X");
    fields.next().filter(|_| is_alive)?.parse().ok()
}

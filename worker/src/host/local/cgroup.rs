//! CPU share and memory of a worker process, held by control groups (version 1 or 2) or, failing that, by
//! rlimits.
//!
//! A group per process: a quota of CPU time per 20 ms, so that even short tasks feel their share, and a hard
//! memory limit without swap. Groups are named `foresail-<pid of the host>-…`; those of dead hosts are
//! removed at the next start. Without writable groups the CPU share cannot be held, and only the memory of
//! each single process is limited; that is said once. Source: kernel documentation,
//! admin-guide/cgroup-v1/memory, scheduler/sched-bwc, admin-guide/cgroup-v2.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use foresail_schemas::config::ResourceConfig;

use super::settings::CpuShare;
use crate::ending::kill_all;
use crate::executor::command::oom_kills;

/// Period of the CPU quota in us.
const PERIOD_US: f64 = 20_000.0;
/// Least CPU quota that the kernel takes, in us.
const QUOTA_US_MIN: f64 = 1_000.0;
/// What a process may map beside its memory where only rlimits hold it: stacks and allocator reserves, in MB.
const RLIMIT_SLACK_MB: u64 = 64;
/// Prefix of the names of groups.
const PREFIX: &str = "foresail-";

/// How workers are held to their size.
#[derive(Debug, Clone)]
pub(super) enum Caps {
    /// By control groups below these directories.
    Groups(Parents),
    /// By rlimits: no CPU share.
    Rlimits,
}

/// Directories below which a host makes its groups.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Parents {
    /// Version 1: a hierarchy per controller.
    V1 { cpu: PathBuf, memory: PathBuf },
    /// Version 2: one for all.
    V2(PathBuf),
}

/// The limits of one process, ready to be entered; the groups are gone after [`Held::remove`].
#[derive(Debug)]
pub(super) struct Held {
    dirs: Vec<PathBuf>,
    memory: Option<PathBuf>,
    rlimit_mb: Option<u64>,
}

impl Caps {
    /// What this system allows; warns once where it does not allow groups.
    pub(super) fn detect() -> Self {
        let groups = candidates().into_iter().find(|parents| {
            remove_stale(parents);
            let works = probe(parents);
            if let Err(error) = &works {
                tracing::debug!(?parents, %error, "no groups here");
            }
            works.is_ok()
        });
        match groups {
            Some(parents) => Self::Groups(parents),
            None => {
                static SAID: Once = Once::new();
                SAID.call_once(|| {
                    tracing::warn!(
                        "control groups are not writable: workers get no CPU share of their size and only \
                         rlimits on memory; hint: run as root or in a delegated group"
                    );
                });
                Self::Rlimits
            }
        }
    }

    /// The limits of a new process of this size.
    pub(super) fn hold(&self, config: &ResourceConfig, cpu: CpuShare) -> io::Result<Held> {
        match self {
            Self::Groups(parents) => make(parents, config, cpu),
            Self::Rlimits => {
                let rlimit_mb = Some(u64::from(config.memory_mb) + RLIMIT_SLACK_MB);
                Ok(Held { dirs: Vec::new(), memory: None, rlimit_mb })
            }
        }
    }

    /// Whether workers are held to the CPU share of their size.
    pub(super) fn hold_cpu(&self) -> bool {
        matches!(self, Self::Groups(_))
    }
}

impl Held {
    /// Makes `command` enter the limits before it runs.
    pub(super) fn enter(&self, command: &mut Command) -> io::Result<()> {
        let open = |dir: &PathBuf| OpenOptions::new().write(true).open(dir.join("cgroup.procs"));
        let files: Vec<File> = self.dirs.iter().map(open).collect::<io::Result<_>>()?;
        let rlimit_mb = self.rlimit_mb;
        let enter = move || {
            for file in &files {
                // SAFETY: a plain write to an open descriptor, allowed between fork and exec; 0 is this
                // process.
                if unsafe { libc::write(file.as_raw_fd(), c"0".as_ptr().cast(), 1) } != 1 {
                    return Err(io::Error::last_os_error());
                }
            }
            rlimit_mb.map_or(Ok(()), limit_data)
        };
        // SAFETY: the closure makes plain system calls only and allocates nothing.
        unsafe { command.pre_exec(enter) };
        Ok(())
    }

    /// File in which the kernel counts the processes that it ended for memory.
    pub(super) fn oom_counter(&self) -> Option<PathBuf> {
        let memory = self.memory.as_ref()?;
        let names = ["memory.oom_control", "memory.events"].map(|name| memory.join(name));
        names.into_iter().find(|path| path.exists())
    }

    /// Processes ended for memory so far.
    pub(super) fn ooms(&self) -> u64 {
        self.oom_counter().map_or(0, |file| oom_kills(&file))
    }

    /// The groups.
    pub(super) fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// Removes the groups; false while a process is still inside.
    pub(super) fn remove(&mut self) -> bool {
        self.dirs.retain(|dir| matches!(fs::remove_dir(dir), Err(e) if e.kind() != io::ErrorKind::NotFound));
        self.dirs.is_empty()
    }
}

fn limit_data(mb: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: mb << 20, rlim_max: mb << 20 };
    // SAFETY: a plain system call on a valid value.
    match unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn make(parents: &Parents, config: &ResourceConfig, cpu: CpuShare) -> io::Result<Held> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let name = format!("{PREFIX}{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
    let quota_us = (config.cpu_share() * PERIOD_US).round().max(QUOTA_US_MIN);
    let memory_bytes = (u64::from(config.memory_mb) << 20).to_string();
    let mut held = Held { dirs: Vec::new(), memory: None, rlimit_mb: None };
    let filled = match parents {
        Parents::V1 { cpu: cpu_parent, memory } => held.add(memory, &name).and_then(|dir| {
            fs::write(dir.join("memory.limit_in_bytes"), &memory_bytes)?;
            // Only there where swap is accounted for.
            let _ = fs::write(dir.join("memory.memsw.limit_in_bytes"), &memory_bytes);
            held.memory = Some(dir);
            if cpu == CpuShare::Enforced {
                let dir = held.add(cpu_parent, &name)?;
                fs::write(dir.join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
                fs::write(dir.join("cpu.cfs_quota_us"), quota_us.to_string())?;
            }
            Ok(())
        }),
        Parents::V2(parent) => held.add(parent, &name).and_then(|dir| {
            fs::write(dir.join("memory.max"), &memory_bytes)?;
            let _ = fs::write(dir.join("memory.swap.max"), "0");
            if cpu == CpuShare::Enforced {
                fs::write(dir.join("cpu.max"), format!("{quota_us} {PERIOD_US}"))?;
            }
            held.memory = Some(dir);
            Ok(())
        }),
    };
    match filled {
        Ok(()) => Ok(held),
        Err(error) => {
            held.remove();
            Err(error)
        }
    }
}

impl Held {
    fn add(&mut self, parent: &Path, name: &str) -> io::Result<PathBuf> {
        let dir = parent.join(name);
        fs::create_dir(&dir)?;
        self.dirs.push(dir.clone());
        Ok(dir)
    }
}

/// Tries the whole with a process that ends at once.
fn probe(parents: &Parents) -> io::Result<()> {
    let config = ResourceConfig { memory_mb: 64, vcpu: Some(1.0) };
    let mut held = make(parents, &config, CpuShare::Enforced)?;
    let mut command = Command::new("true");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let ran = held.enter(&mut command).and_then(|()| command.status());
    held.remove();
    ran.map(drop)
}

fn remove_stale(parents: &Parents) {
    let dirs = match parents {
        Parents::V1 { cpu, memory } => vec![cpu, memory],
        Parents::V2(dir) => vec![dir],
    };
    for entry in dirs.into_iter().flat_map(fs::read_dir).flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|n| n.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Also what left its session and outlived its worker and that worker's host.
            kill_all(None, &[entry.path()]);
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Where groups may be made, the best first: beside those of the system, else below the host's own.
fn candidates() -> Vec<Parents> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let places = |controller: &str| places(&mounts, &own, controller);
    let mut found = Vec::new();
    for (cpu, memory) in places("cpu").into_iter().zip(places("memory")) {
        found.push(Parents::V1 { cpu, memory });
    }
    for dir in places("") {
        let has_both = || {
            let text = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
            ["cpu", "memory"].iter().all(|c| text.split_whitespace().any(|word| word == *c))
        };
        if !has_both() {
            let _ = fs::write(dir.join("cgroup.subtree_control"), "+cpu +memory");
        }
        if has_both() {
            found.push(Parents::V2(dir));
        }
    }
    found
}

/// The mount point of a controller (empty: version 2) and the host's own group below it.
fn places(mounts: &str, own: &str, controller: &str) -> Vec<PathBuf> {
    let Some((root, mount_point)) = mounts.lines().find_map(|line| mount(line, controller)) else {
        return Vec::new();
    };
    let own_path = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next()?;
        controllers.split(',').any(|c| c == controller).then(|| parts.next()).flatten()
    });
    let below = own_path.and_then(|path| path.strip_prefix(root.trim_end_matches('/')));
    let below = below.map(|path| mount_point.join(path.trim_start_matches('/')));
    std::iter::once(mount_point.clone()).chain(below.filter(|dir| *dir != mount_point)).collect()
}

/// Root and mount point of a line of `mountinfo` if it mounts this controller. Source: proc(5).
fn mount<'a>(line: &'a str, controller: &str) -> Option<(&'a str, PathBuf)> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(3);
    let (root, mount_point) = (fields.next()?, fields.next()?);
    let mut kind = after.split(' ');
    let (fs_type, options) = (kind.next()?, kind.nth(1)?);
    let is_it = match controller {
        "" => fs_type == "cgroup2",
        name => fs_type == "cgroup" && options.split(',').any(|option| option == name),
    };
    is_it.then(|| (root, PathBuf::from(mount_point)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
30 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
31 24 0:27 /docker/abc /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
32 24 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate";

    #[test]
    fn mounts_and_own_groups_are_found_in_both_versions() {
        let own = "4:memory:/docker/abc/x\n1:cpu,cpuacct:/\n0::/user.slice/u.scope\n";
        for (controller, expect) in [
            ("cpu", vec!["/sys/fs/cgroup/cpu,cpuacct"]),
            ("memory", vec!["/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/x"]),
            ("", vec!["/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/user.slice/u.scope"]),
            ("pids", vec![]),
        ] {
            let found = places(MOUNTS, own, controller);
            assert_eq!(found, expect.into_iter().map(PathBuf::from).collect::<Vec<_>>(), "{controller:?}");
        }
    }

    #[test]
    fn without_groups_the_memory_of_a_process_is_still_limited() {
        let config = ResourceConfig { memory_mb: 100, vcpu: None };
        let held = Caps::Rlimits.hold(&config, CpuShare::Enforced).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -d"]);
        held.enter(&mut command).unwrap();
        let limit_kib = (100 + RLIMIT_SLACK_MB) * 1024;
        let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert_eq!(said.trim(), limit_kib.to_string());
    }

    #[test]
    fn groups_go_when_they_are_removed() {
        let Caps::Groups(parents) = Caps::detect() else {
            eprintln!("skipped: control groups are not writable here");
            return;
        };
        let config = ResourceConfig { memory_mb: 128, vcpu: None };
        let mut held = make(&parents, &config, CpuShare::Enforced).unwrap();
        let dirs = held.dirs.clone();
        assert!(!dirs.is_empty() && dirs.iter().all(|dir| dir.exists()));
        assert_eq!(held.ooms(), 0);
        assert!(held.remove());
        assert!(dirs.iter().all(|dir| !dir.exists()));
    }
}

//! What follows a failed attempt: another one after a pause, one on a larger worker, or the end of the run.
//!
//! The ledger alone decides it, so that it outlives every worker: the pause and the size that a task needs
//! are part of the event that tells of the failure. An attempt that ran out of memory is repeated on the next
//! larger size and does not count among those that are limited: the menu of sizes ends by itself.

use foresail_schemas::ResourceConfig;
use foresail_schemas::id::InstanceId;
use foresail_schemas::retry::Retry;
use foresail_schemas::run::{Change, Failure, FailureKind, LargerTask, OperationResult, RunStatus};

use super::{Decision, Ledger, read};

/// What helps a task that runs out of memory where a larger size is there, or none is known of.
const MORE_MEMORY: &str = "hint: give the task more memory (`memory_mb_min`)";
/// What helps it where it had the largest.
const LARGER_SIZE: &str = "hint: offer a larger size (`foresail run --memory 442,1769,4096`, or a platform \
                           whose menu has one), split the task, or let it read its inputs in parts";
/// What helps where the failure itself says nothing of that.
const MORE_ATTEMPTS: &str =
    "hint: `attempts_max` and `retry` of the task set how often and when it is tried again";
/// Earlier failures that the last one tells of.
const TOLD_MAX: usize = 8;

/// What follows.
enum Verdict {
    Again,
    Larger(ResourceConfig),
    /// Once these inputs, which are lost, have been made again.
    MadeAgain(Vec<u32>),
    /// The end of the run, and why.
    End(String),
}

impl Ledger {
    pub(super) fn fail(
        &mut self,
        task: u32,
        attempt: u32,
        instance: &InstanceId,
        failure: &Failure,
        now_ms: f64,
    ) -> Decision {
        if self.is_over() {
            return read(OperationResult::RunOver);
        }
        if self.state.task(task).skipped {
            return read(OperationResult::Skipped);
        }
        let Some(attempt) = self.failing_attempt(task, attempt, instance) else {
            return read(self.noted_before(task, attempt, instance, now_ms));
        };
        let verdict = self.verdict(task, attempt, instance, failure);
        let pause_ms = match verdict {
            Verdict::Again => self.retry(task).pause_ms(attempt, self.draw(task, attempt, instance)),
            Verdict::Larger(_) | Verdict::MadeAgain(_) | Verdict::End(_) => 0.0,
        };
        let failed = |config| {
            let (instance, failure) = (instance.clone(), failure.clone());
            let again_ms = Some(now_ms + pause_ms).filter(|_| pause_ms > 0.0);
            vec![Change::TaskFailed { task, attempt, instance, failure, again_ms, config }]
        };
        match verdict {
            // What only the memory of its worker made ready waits for the commits of its parents now.
            Verdict::Again if self.state.task(task).idle_since_ms.is_none() => {
                (OperationResult::NotReady, failed(None))
            }
            Verdict::Again => (OperationResult::Again { in_ms: pause_ms }, failed(None)),
            Verdict::Larger(config) => (OperationResult::NeedsLarger { config }, failed(Some(config))),
            Verdict::MadeAgain(lost) => {
                let told = self.made_next(&lost);
                let mut changes = failed(None);
                changes.extend(self.taken_back(lost, task));
                (told, changes)
            }
            Verdict::End(reason) => {
                let mut changes = failed(None);
                let message = format!("{}\n{}", failure.message, self.told(task, attempt, &reason));
                let failure = Some(Failure { message, ..failure.clone() });
                changes.push(Change::RunFinished { status: RunStatus::Failed, failure });
                (OperationResult::Done, changes)
            }
        }
    }

    /// The number of the attempt that fails, where this report is the first: of one that the instance has a
    /// lease for, or of one that it began ahead of a lease, which is told as attempt 0 and counted now.
    fn failing_attempt(&self, task: u32, attempt: u32, instance: &InstanceId) -> Option<u32> {
        let state = self.state.task(task);
        match &state.lease {
            Some(lease) if lease.instance == *instance => {
                (attempt == 0 || lease.attempt == attempt).then_some(lease.attempt)
            }
            // Somebody else goes on.
            Some(_) => None,
            None => {
                let is_known = state.failed.iter().any(|failed| failed.instance == *instance);
                let is_copy = state.copiers.contains(instance);
                let has_joined = self.state.instances.contains_key(instance);
                let is_first = attempt == 0 && has_joined && !is_known && !is_copy && state.commit.is_none();
                is_first.then_some(state.attempts + 1)
            }
        }
    }

    /// A repeated report is answered as the first one was.
    fn noted_before(&self, task: u32, attempt: u32, instance: &InstanceId, now_ms: f64) -> OperationResult {
        let state = self.state.task(task);
        let is_last = state
            .failed
            .last()
            .is_some_and(|last| last.attempt == attempt || (attempt == 0 && last.instance == *instance));
        if !is_last || state.lease.is_some() || state.commit.is_some() {
            return OperationResult::Done;
        }
        match (self.too_small(task, instance), state.idle_since_ms) {
            (Some(config), _) => OperationResult::NeedsLarger { config },
            (None, Some(again_ms)) => OperationResult::Again { in_ms: (again_ms - now_ms).max(0.0) },
            (None, None) => self.made_meanwhile(task, now_ms),
        }
    }

    fn verdict(&self, task: u32, attempt: u32, instance: &InstanceId, failure: &Failure) -> Verdict {
        let kind = failure.kind;
        let lost = self.lost_parents(task, failure);
        if !lost.is_empty() {
            let reason = self.lost_for_good(&lost);
            return reason.map_or(Verdict::MadeAgain(lost), Verdict::End);
        }
        if !kind.is_retryable() {
            return Verdict::End(format!("a failure `{kind}` is not retried"));
        }
        let ran_on = self.state.instances.get(instance).map(|instance| instance.config);
        let sizes = &self.options.sizes;
        let largest = ran_on.filter(|size| !sizes.is_empty() && sizes.larger_than(*size).is_none());
        let hint = match (kind, largest) {
            (FailureKind::OutOfMemory, Some(_)) => Some(LARGER_SIZE),
            (FailureKind::OutOfMemory, None) => Some(MORE_MEMORY),
            _ if failure.message.contains("hint: ") => None,
            _ => Some(MORE_ATTEMPTS),
        };
        let with_hint = |reason: String| hint.map_or(reason.clone(), |hint| format!("{reason}; {hint}"));
        if let Some(reason) = self.retry(task).forbids(kind, &failure.message) {
            let reason = format!("{reason}, so that it is not retried");
            return Verdict::End(if kind == FailureKind::OutOfMemory { with_hint(reason) } else { reason });
        }
        if let (FailureKind::OutOfMemory, Some(size), false) = (kind, ran_on, sizes.is_empty()) {
            let at_top = || with_hint(format!("it ran on {size}, and the platform has no larger size"));
            return sizes.larger_than(size).map_or_else(|| Verdict::End(at_top()), Verdict::Larger);
        }
        let (used, most) = (attempt - self.state.task(task).raises.min(attempt), self.attempts_max(task));
        match used >= most {
            true => Verdict::End(with_hint(format!("it was the last of {most} attempts"))),
            false => Verdict::Again,
        }
    }

    /// What was tried before, in words.
    fn told(&self, task: u32, attempt: u32, reason: &str) -> String {
        let failed = &self.state.task(task).failed;
        let shown = &failed[failed.len().saturating_sub(TOLD_MAX)..];
        let before: Vec<String> =
            shown.iter().map(|f| format!("attempt {} `{}`", f.attempt, f.kind)).collect();
        let id = &self.ids[task as usize].0;
        match before.is_empty() {
            true => format!("attempt {attempt} of task `{id}`: {reason}"),
            false => format!("attempt {attempt} of task `{id}`, after {}: {reason}", before.join(", ")),
        }
    }

    /// The size that a task needs, where that is more than the instance has.
    pub(super) fn too_small(&self, task: u32, instance: &InstanceId) -> Option<ResourceConfig> {
        let needed = self.state.task(task).larger?;
        let has_mb = self.state.instances.get(instance).map_or(0, |instance| instance.config.memory_mb);
        (has_mb < needed.memory_mb).then_some(needed)
    }

    /// Which of the tasks need a larger worker than the plan says.
    pub(super) fn larger_of(&self, tasks: &[u32]) -> Vec<LargerTask> {
        let larger = |&task: &u32| Some(LargerTask { task, config: self.state.task(task).larger? });
        tasks.iter().filter_map(larger).collect()
    }

    fn retry(&self, task: u32) -> Retry {
        self.retries.get(&task).cloned().unwrap_or_default()
    }

    /// A number from 0 to 1 that differs from worker to worker, task to task and attempt to attempt, and is
    /// the same whenever it is asked for. Source: Fowler, Noll, Vo: FNV-1a, with a final mix of its upper
    /// bits.
    fn draw(&self, task: u32, attempt: u32, instance: &InstanceId) -> f64 {
        let id = self.ids[task as usize].0.as_str();
        let bytes = instance.as_str().bytes().chain([0]).chain(id.bytes()).chain(attempt.to_le_bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

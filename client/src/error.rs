//! What can go wrong between this process, metad and the host of the workers; every error has a hint.

use std::time::Duration;

use foresail_schemas::id::RunId;
use foresail_schemas::run::{Failure, RunStatus};
use foresail_schemas::{ErrorCode, Problem};

/// Why the client could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// An address is not one.
    #[error("the address `{address}` of {service} cannot be used: {reason}")]
    Address {
        /// What it should lead to.
        service: &'static str,
        /// The address as given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The token cannot be sent in a header.
    #[error("the token for {service} cannot be sent: it has characters that no header may have")]
    Token {
        /// Who wants it.
        service: &'static str,
    },
    /// Nobody answers.
    #[error("{service} at `{url}` does not answer: {reason}")]
    Unreachable {
        /// Who.
        service: &'static str,
        /// Where.
        url: String,
        /// Why, as the network said it.
        reason: String,
    },
    /// The answer is not of the expected form.
    #[error("{service} answered `{url}` with something else than expected: {reason}")]
    Unreadable {
        /// Who.
        service: &'static str,
        /// Where.
        url: String,
        /// What did not fit.
        reason: String,
    },
    /// The request was refused.
    #[error("{service} refused `{url}`: {} ({})", problem.detail, problem.code)]
    Refused {
        /// Who.
        service: &'static str,
        /// Where.
        url: String,
        /// Why.
        problem: Box<Problem>,
    },
    /// A wait was longer than its limit.
    #[error("{what} took longer than {limit:?}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// The planner found no plan.
    #[error("the planner `{planner}` gave no plan: {}", apart(reason).0)]
    NoPlan {
        /// The planner.
        planner: String,
        /// Why, with a hint behind `; hint: ` where there is one for that.
        reason: String,
    },
    /// A run ended without all results.
    #[error("run `{run}` {}", ending(*.status, .failure.as_ref()))]
    RunEnded {
        /// The run.
        run: RunId,
        /// How it ended.
        status: RunStatus,
        /// Why.
        failure: Option<Failure>,
    },
    /// The workflow has no such task or output.
    #[error("the workflow has no `{0}`")]
    NoSuchResult(String),
    /// The task has no result yet.
    #[error("task `{0}` has no result")]
    NoResult(String),
    /// An output was never stored.
    #[error("the output of task `{0}` was not kept: every task that reads it ran on the worker that made it")]
    NotKept(String),
    /// A result was changed after it was stored.
    #[error("the result of task `{task}` is damaged: its hash is `{found}`, it was stored as `{expected}`")]
    Damaged {
        /// The task.
        task: String,
        /// The hash when it was stored.
        expected: String,
        /// The hash now.
        found: String,
    },
    /// A stored result cannot be read.
    #[error("the result of task `{task}` cannot be read from `{key}`: {reason}")]
    Lost {
        /// The task.
        task: String,
        /// Where it should be.
        key: String,
        /// Why.
        reason: String,
    },
    /// A part of the local stack did not start.
    #[error("{part} did not start: {reason}")]
    Stack {
        /// Which part.
        part: &'static str,
        /// Why.
        reason: String,
    },
}

impl ClientError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Address { .. } => "write it like http://127.0.0.1:7070".to_owned(),
            Self::Token { .. } => {
                "set FORESAIL_METAD_TOKEN or --token to visible ASCII characters without blanks".to_owned()
            }
            Self::Unreachable { .. } => {
                "start the stack with `foresail up`, or give its addresses with --metad and --host".to_owned()
            }
            Self::Unreadable { .. } => {
                "look whether both sides are of the same version of Foresail".to_owned()
            }
            Self::Refused { problem, .. } => problem.hint.clone(),
            Self::TimedOut { .. } => {
                "give it more time: --timeout on the command line, ClientSettings in a program".to_owned()
            }
            Self::NoPlan { reason, .. } => {
                let other = "another planner may find one: `foresail plan --help` lists the planners";
                apart(reason).1.unwrap_or(other).to_owned()
            }
            Self::RunEnded { run, status: RunStatus::Failed, failure } => match failure {
                Some(Failure { task: Some(task), .. }) => {
                    format!(
                        "`foresail runs {run}` shows every attempt of task `{task}`; once its cause is \
                         removed `foresail resume {run}` runs what is missing, and where the workflow \
                         itself is mended `foresail run FILE --resume {run}` does"
                    )
                }
                _ => format!("`foresail runs {run}` shows what happened, `foresail resume {run}` goes on"),
            },
            Self::RunEnded { run, .. } => {
                format!("`foresail runs {run}` shows how far it came, `foresail resume {run}` goes on")
            }
            Self::NoSuchResult(_) => "name a task of the workflow, and one of its outputs".to_owned(),
            Self::NoResult(_) => "wait for the run to complete".to_owned(),
            Self::NotKept(_) => "plan with another planner, or with `wukong:none`, which keep all".to_owned(),
            Self::Damaged { .. } => "run the workflow again, and check the disk of the store".to_owned(),
            Self::Lost { .. } => {
                "results stay until the retention of the run ends, what only tasks read until it has \
                 completed: run it again, with `keep_intermediate` for the latter"
                    .to_owned()
            }
            Self::Stack { .. } => {
                "a directory must be writable and an address free; a data directory serves one stack at a \
                 time: keep one running with `foresail up`, or choose another with --data"
                    .to_owned()
            }
        }
    }

    /// As it is of the result of a task: without the directory of the stack that is taken for a blob, which
    /// it is not where workers keep files.
    #[must_use]
    pub(crate) fn of_blob(mut self, task: &str) -> Self {
        if let Self::Refused { problem, .. } = &mut self
            && problem.code == ErrorCode::BlobNotFound
        {
            problem.detail = format!("the result of `{task}` lies in files of the host, or is kept no more");
            problem.hint = "name that directory with --data, or start `foresail up` with --store".to_owned();
        }
        self
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { problem, .. } => problem.code.is_retryable(),
            _ => false,
        }
    }

    /// Whether the service has understood the request and will never do it.
    #[must_use]
    pub fn is_final_refusal(&self) -> bool {
        match self {
            Self::Refused { problem, .. } => {
                !problem.code.is_retryable() && (400..500).contains(&problem.status)
            }
            _ => false,
        }
    }

    /// The code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { problem, .. } => Some(problem.code),
            _ => None,
        }
    }
}

/// What is wrong, and the hint that comes with it.
pub(crate) fn apart(reason: &str) -> (&str, Option<&str>) {
    reason.split_once("; hint: ").map_or((reason, None), |(what, hint)| (what, Some(hint)))
}

fn ending(status: RunStatus, failure: Option<&Failure>) -> String {
    let how = match status {
        RunStatus::Running => "has not ended",
        RunStatus::Completed => "completed",
        RunStatus::Failed => "failed",
        RunStatus::Cancelled => "was cancelled",
    };
    match failure {
        None => how.to_owned(),
        Some(Failure { task: None, message, .. }) => format!("{how}: {message}"),
        Some(Failure { task: Some(task), attempt, message, .. }) => {
            format!("{how} at attempt {attempt} of task `{task}`: {message}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foresail_schemas::run::FailureKind;

    #[test]
    fn a_plan_that_cannot_be_has_the_one_hint_that_fits() {
        let no_plan = |reason: &str| {
            let error = ClientError::NoPlan { planner: "auto".to_owned(), reason: reason.to_owned() };
            (error.to_string(), error.hint())
        };
        let (text, hint) = no_plan("task `a` needs 20480 MB; hint: split the task");
        assert_eq!(text, "the planner `auto` gave no plan: task `a` needs 20480 MB");
        assert_eq!(hint, "split the task");
        let (text, hint) = no_plan("the program ended with exit status: 1");
        assert!(text.ends_with("exit status: 1") && hint.contains("lists the planners"), "{hint}");
    }

    #[test]
    fn a_failed_run_names_task_attempt_and_cause() {
        let failure = Failure {
            task: Some("count-3".parse().unwrap()),
            attempt: 3,
            kind: FailureKind::TaskError,
            message: "no such word".to_owned(),
            exception: None,
            lost: Vec::new(),
        };
        let error = ClientError::RunEnded {
            run: "r-1".parse().unwrap(),
            status: RunStatus::Failed,
            failure: Some(failure),
        };
        assert_eq!(error.to_string(), "run `r-1` failed at attempt 3 of task `count-3`: no such word");
        assert!(error.hint().contains("foresail runs r-1"));
    }
}

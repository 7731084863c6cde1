//! What a command ends with when it did not succeed: a text, a hint, an exit code.

use std::io;
use std::process::ExitCode;

use foresail_schemas::ErrorCode;
use foresail_schemas::id::RunId;

use super::interrupt;
use crate::error::ClientError;
use crate::examples::ExampleError;
use crate::text::TextError;

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Arguments or an input file are wrong.
    #[error("{what}")]
    Input {
        /// What is wrong.
        what: String,
        /// What to do next.
        hint: String,
    },
    /// The library said no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Runs of the same workflow over the same input had different results.
    #[error("the runs had different results: {0}")]
    Differ(String),
    /// Planners gave no plan.
    #[error("{failed} of {plans} problems have no plan; the first, {first}")]
    Unplanned {
        /// How many problems.
        failed: usize,
        /// Of how many.
        plans: usize,
        /// The first of them, and why.
        first: String,
        /// What to do about that one.
        hint: String,
    },
    /// Lines of a file were not taken.
    #[error("{refused} of {lines} lines were refused; the others are stored")]
    Refused {
        /// How many.
        refused: u64,
        /// Of how many.
        lines: u64,
    },
    /// A run that was to be cancelled had ended.
    #[error("run `{run}` is {status}; nothing was left to cancel")]
    Over {
        /// The run.
        run: RunId,
        /// How it ended.
        status: &'static str,
    },
    /// Parts of a deployment are not as they shall be.
    #[cfg(feature = "aws")]
    #[error("{0} parts of the deployment are not as they shall be")]
    Broken(usize),
    /// The user interrupted a run, which was cancelled.
    #[error("interrupted; the run was cancelled")]
    Interrupted,
    /// A run was to be cancelled and could not be.
    #[error("run `{run}` was to be cancelled and was not, it may go on: {cause}")]
    NotCancelled {
        /// The run.
        run: RunId,
        /// Why it was to be cancelled.
        asked: Box<CliError>,
        /// Why it was not.
        cause: Box<ClientError>,
    },
    /// A run cannot be followed any more.
    #[error("run `{run}` cannot be followed any more, and was not cancelled: {error}")]
    OutOfSight {
        /// The run.
        run: RunId,
        /// Why.
        error: Box<ClientError>,
    },
    /// The user interrupted something else than a run.
    #[error("interrupted")]
    Stopped {
        /// What that leaves behind.
        hint: &'static str,
    },
    /// stdout or a file cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    /// Wrong arguments or a wrong input file.
    pub fn input(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Input { what: what.into(), hint: hint.into() }
    }

    /// A part of the program that this build is without.
    #[cfg(not(feature = "aws"))]
    pub fn without_aws(what: &str) -> Self {
        Self::input(
            format!("{what} needs AWS, and this program was built without the feature `aws`"),
            "`cargo build --release -p foresail` builds it with all features; `make demo` and \
             `--no-default-features` leave this one out, `--features aws` adds it",
        )
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Input { hint, .. } | Self::Unplanned { hint, .. } => hint.clone(),
            Self::Client(error) => hint_of(error),
            Self::Differ(_) => "a task is not deterministic, or its input changed meanwhile".to_owned(),
            Self::Refused { .. } => {
                "correct the lines and import them from a file of their own; this file is not read twice"
                    .to_owned()
            }
            Self::Over { run, .. } => format!("`foresail runs {run}` shows what it did"),
            #[cfg(feature = "aws")]
            Self::Broken(_) => "each of them says above what to do".to_owned(),
            Self::Interrupted => String::new(),
            Self::NotCancelled { run, .. } => {
                format!("`foresail cancel {run}` ends it once metad answers, `foresail runs {run}` shows it")
            }
            Self::OutOfSight { run, error } if error.may_pass() => format!(
                "workers go on by themselves where metad comes back: `foresail runs {run}` shows how far \
                 they are, `foresail resume {run}` goes on where they were ended"
            ),
            Self::OutOfSight { error, .. } => hint_of(error),
            Self::Stopped { hint } => (*hint).to_owned(),
            Self::Output(_) => "is the disk full, or was the reader of the pipe closed?".to_owned(),
        }
    }

    /// The exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Differ(_)
            | Self::Unplanned { .. }
            | Self::Refused { .. }
            | Self::Over { .. }
            | Self::Output(_) => 1,
            #[cfg(feature = "aws")]
            Self::Broken(_) => 1,
            Self::Input { .. } => 2,
            Self::Interrupted | Self::Stopped { .. } => interrupt::EXIT_CODE,
            Self::NotCancelled { asked, .. } => return asked.exit_code(),
            Self::OutOfSight { error, .. } => return exit_code_of(error),
            Self::Client(error) => return exit_code_of(error),
        })
    }
}

fn exit_code_of(error: &ClientError) -> ExitCode {
    ExitCode::from(match error {
        ClientError::RunEnded { .. }
        | ClientError::TimedOut { .. }
        | ClientError::NoResult(_)
        | ClientError::NotKept(_)
        | ClientError::Lost { .. }
        | ClientError::Damaged { .. } => 1,
        ClientError::NoPlan { .. }
        | ClientError::Address { .. }
        | ClientError::Token { .. }
        | ClientError::NoSuchResult(_)
        | ClientError::Refused { .. } => 2,
        ClientError::Unreachable { .. } | ClientError::Unreadable { .. } | ClientError::Stack { .. } => 3,
    })
}

/// metad's hints name its endpoints; here commands do the same.
fn hint_of(error: &ClientError) -> String {
    match error.code() {
        Some(ErrorCode::RunNotFound) => "`foresail runs` lists the runs".to_owned(),
        Some(ErrorCode::Unauthorized) => "give the token with FORESAIL_METAD_TOKEN or --token".to_owned(),
        _ => error.hint(),
    }
}

impl From<ExampleError> for CliError {
    fn from(error: ExampleError) -> Self {
        let hint = match &error {
            ExampleError::Text(TextError::Build(e)) | ExampleError::Build(e) => e.hint(),
            ExampleError::Size { .. } => "give another --size",
            ExampleError::Text(_) => "give a folder with source or text files",
        };
        Self::input(error.to_string(), hint)
    }
}

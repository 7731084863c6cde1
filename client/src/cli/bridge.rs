//! `foresail bridge`: the local stack and the client for one program of another language.

use std::path::PathBuf;
use std::time::Duration;

use super::args::{BridgeArgs, Global};
use super::error::CliError;
use super::interrupt::Interrupt;
use super::session::{Session, check_host_named, data_dir};
use crate::bridge::{self, Place, Served};
use crate::error::ClientError;
use crate::settings::ClientSettings;

/// Programs that work at the same time, each with a stack of its own: the data directory serves the first,
/// directories inside it the others, so that each of them finds what it learned the next time.
const STACKS_MAX: usize = 16;
/// Time between two looks whether the parent lives.
const PARENT_LOOK: Duration = Duration::from_millis(500);

/// Serves until stdin is closed, the parent ends or the process is told to end.
///
/// # Errors
/// [`CliError`] when a stack was named that does not answer, or none can be started.
pub async fn bridge(global: &Global, args: &BridgeArgs, interrupt: &Interrupt) -> Result<(), CliError> {
    check_host_named(global)?;
    let parent = std::os::unix::process::parent_id();
    let (session, data) = open(global, args).await?;
    let place = match session.is_embedded() {
        true => Place::Embedded(data),
        false => Place::Running,
    };
    let served = Served {
        client: session.client.clone(),
        platform: session.platform.clone(),
        place,
        metad: session.addresses.metad.clone(),
        host: session.addresses.host.clone(),
    };
    let ended = async {
        tokio::select! {
            () = interrupt.asked() => {}
            () = orphaned(parent) => {}
        }
    };
    let done = bridge::serve(served, ended).await;
    session.close().await;
    Ok(done?)
}

/// Completes once the process that started this one is gone: others may hold the pipe to stdin open.
async fn orphaned(parent: u32) {
    while std::os::unix::process::parent_id() == parent {
        tokio::time::sleep(PARENT_LOOK).await;
    }
}

/// A running stack, or one of this process on a directory that no other one works in.
async fn open(global: &Global, args: &BridgeArgs) -> Result<(Session, PathBuf), CliError> {
    let first = data_dir(global);
    let mut data = first.clone();
    for number in 2..=STACKS_MAX {
        let here = Global { data: Some(data.clone()), ..global.clone() };
        match Session::open(&here, &args.workers, ClientSettings::default()).await {
            Err(CliError::Client(error)) if is_in_use(&error) => {
                data = first.join(format!("beside-{number}"));
            }
            opened => return Ok((opened?, data)),
        }
    }
    let hint = "end some of them, or let them share one stack: `foresail up`";
    Err(CliError::input(format!("{STACKS_MAX} programs use `{}` already", first.display()), hint))
}

/// Whether the directory of a stack serves another one: both parts say so in these words.
fn is_in_use(error: &ClientError) -> bool {
    let words = ["another metad has it open", "is used by another host"];
    matches!(error, ClientError::Stack { reason, .. } if words.iter().any(|w| reason.contains(w)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::{LocalStack, StackSettings};

    #[tokio::test]
    async fn a_directory_that_serves_another_stack_is_told_apart_from_one_that_is_none() {
        let data = tempfile::tempdir().unwrap();
        let settings = || StackSettings { data: Some(data.path().to_owned()), ..StackSettings::default() };
        let stack = LocalStack::start(settings()).await.unwrap();
        assert!(is_in_use(&LocalStack::start(settings()).await.unwrap_err()));
        stack.stop().await;
        let file = data.path().join("file");
        std::fs::write(&file, "").unwrap();
        let wrong = StackSettings { data: Some(file), ..StackSettings::default() };
        assert!(!is_in_use(&LocalStack::start(wrong).await.unwrap_err()));
    }
}

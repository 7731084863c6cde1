//! The stack a command works with: one that is running, or one that lives as long as the command.
//!
//! Looked for in this order: `--metad` and `--host` (or `FORESAIL_METAD` and `FORESAIL_HOST`); the file
//! `stack.json` that `foresail up` writes into the data directory, if that stack still answers; otherwise a
//! stack is started in this process on the data directory, so that what it measures is there the next time.
//!
//! The token is that of `stack.json` where one is found there, otherwise `--token`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::platform::Platform;
use foresail_worker::data::s3::S3Settings;
use foresail_worker::host::local::ObjectPlace;
use serde::{Deserialize, Serialize};

use super::args::{Global, HostArgs};
use super::error::CliError;
use crate::client::Client;
use crate::error::ClientError;
use crate::settings::ClientSettings;
use crate::stack::{LocalStack, StackSettings};

/// Name of the file that tells where a stack runs.
pub const STACK_FILE: &str = "stack.json";
/// How long a stack that was written down may take to answer.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// Longest wait until all workers are idle.
pub const QUIET_LIMIT: Duration = Duration::from_secs(20);
/// Pause between two looks at the host.
const QUIET_LOOK: Duration = Duration::from_millis(20);

/// Where a stack runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StackFile {
    /// Address of metad.
    pub metad: String,
    /// Address of the host of the workers.
    pub host: String,
    /// Where its workers keep large objects, where that is on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<PathBuf>,
    /// Bucket in which they do, where that is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<S3Settings>,
    /// Its platform: sizes and lanes of its workers as they were asked for. The local one where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Token that it wants, where it wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Process that runs it.
    pub pid: u32,
}

/// A stack to work with.
#[derive(Debug)]
pub struct Session {
    /// The connection.
    pub client: Client,
    /// The platform its workers are.
    pub platform: Platform,
    /// Addresses of the stack.
    pub addresses: StackFile,
    embedded: Option<LocalStack>,
}

impl Session {
    /// Finds or starts a stack.
    ///
    /// # Errors
    /// [`CliError`] when one was named that does not answer, or none can be started.
    pub async fn open(global: &Global, workers: &HostArgs, limits: ClientSettings) -> Result<Self, CliError> {
        let data = data_dir(global);
        if let Some(addresses) = named(global)? {
            let bucket = match &workers.store {
                ObjectPlace::S3(bucket) => Some(bucket.clone()),
                ObjectPlace::Files | ObjectPlace::Metad => None,
            };
            return Self::connect(StackFile { bucket, ..addresses }, limits).await;
        }
        if let Some(found) = running(&data, global.token.as_ref()).await {
            return Self::connect(found, limits).await;
        }
        let settings = StackSettings { data: Some(data), ..stack_settings(global, workers) };
        Self::embed(LocalStack::start(settings).await?, limits).await
    }

    /// Finds or starts a stack for a command that runs nothing.
    ///
    /// # Errors
    /// [`CliError`] when one was named that does not answer, or none can be started.
    pub async fn look(global: &Global) -> Result<Self, CliError> {
        Self::open(global, &HostArgs::default(), ClientSettings::default()).await
    }

    /// A session on a stack of this process.
    ///
    /// # Errors
    /// [`CliError`] when it does not answer.
    pub async fn embed(stack: LocalStack, limits: ClientSettings) -> Result<Self, CliError> {
        let addresses = stack_file(&stack);
        let client = stack.client_with(limits).await?;
        let platform = stack.platform().clone();
        Ok(Self { client, platform, addresses, embedded: Some(stack) })
    }

    async fn connect(addresses: StackFile, limits: ClientSettings) -> Result<Self, CliError> {
        let (objects, bucket) = (addresses.objects.clone(), addresses.bucket.clone());
        let limits = ClientSettings { objects, bucket, token: addresses.token.clone(), ..limits };
        let client = Client::connect_with(&addresses.metad, &addresses.host, limits).await?;
        let mut platform = addresses.platform.clone().unwrap_or_else(local_platform);
        // Commands that only look work without a host; those that run say themselves that it is missing.
        if let Ok(status) = client.host_status().await {
            platform.concurrency_max = u32::try_from(status.concurrency_max).unwrap_or(u32::MAX).max(1);
        }
        Ok(Self { client, platform, addresses, embedded: None })
    }

    /// Whether the stack ends with this command.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// Waits until no worker is busy: they send their measurements at the end of their lives.
    ///
    /// # Errors
    /// [`CliError`] when the host does not answer, or after [`QUIET_LIMIT`].
    pub async fn quiet(&self) -> Result<(), CliError> {
        let began = Instant::now();
        loop {
            let status = self.client.host_status().await?;
            if status.busy == 0 && status.queued == 0 {
                return Ok(());
            }
            if began.elapsed() > QUIET_LIMIT {
                let what = "the end of the workers after a run".to_owned();
                return Err(ClientError::TimedOut { what, limit: QUIET_LIMIT }.into());
            }
            tokio::time::sleep(QUIET_LOOK).await;
        }
    }

    /// Ends the stack if it is one of this process.
    pub async fn close(self) {
        if let Some(stack) = self.embedded {
            stack.stop().await;
        }
    }
}

/// The platform of local workers.
#[must_use]
pub fn local_platform() -> Platform {
    Platform::built_in().swap_remove(0)
}

/// Settings of a stack with these workers.
#[must_use]
pub fn stack_settings(global: &Global, workers: &HostArgs) -> StackSettings {
    let mut settings = StackSettings {
        token: global.token.clone(),
        python: workers.python.clone(),
        objects: workers.store.clone(),
        coordination: workers.state.coordination.clone(),
        ..StackSettings::default()
    };
    if let Some(concurrency) = workers.concurrency {
        settings.platform.concurrency_max = concurrency;
    }
    if let Some(lanes) = workers.lanes {
        settings.platform.lanes = lanes;
    }
    if !workers.memory.is_empty() {
        offer(&mut settings.platform, &workers.memory);
    }
    if let Some(ms) = workers.cold_start_ms {
        settings.cold_start = Duration::try_from_secs_f64(ms / 1000.0).unwrap_or_default();
    }
    settings
}

/// Makes these the sizes of a platform, in MB. What is not known of a task is run on the middle one.
pub(super) fn offer(platform: &mut Platform, memory_mb: &[u32]) {
    let mut sizes = memory_mb.to_vec();
    sizes.sort_unstable();
    sizes.dedup();
    platform.menu = sizes.into_iter().map(|memory_mb| ResourceConfig { memory_mb, vcpu: None }).collect();
    platform.default_config = platform.menu[platform.menu.len() / 2];
}

/// What is written down about a stack of this process.
#[must_use]
pub fn stack_file(stack: &LocalStack) -> StackFile {
    let (metad, host) = (stack.metad_address().to_owned(), stack.host_address().to_owned());
    let token = stack.token().map(str::to_owned);
    let (objects, bucket) = (stack.objects_dir(), stack.bucket().cloned());
    let platform = Some(stack.platform().clone());
    StackFile { metad, host, objects, bucket, platform, token, pid: std::process::id() }
}

/// Where measurements and runs are kept.
#[must_use]
pub fn data_dir(global: &Global) -> PathBuf {
    let home = || std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let share = || std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let default = || share().unwrap_or_else(|| home().join(".local/share")).join("foresail");
    global.data.clone().unwrap_or_else(default)
}

/// Whether a command that runs something can: a metad that was named has no workers of its own.
///
/// # Errors
/// [`CliError::Input`] when metad was named and the host of the workers was not.
pub fn check_host_named(global: &Global) -> Result<(), CliError> {
    match (&global.metad, &global.host) {
        (Some(metad), None) => Err(CliError::input(
            format!("metad was named as `{metad}`, the host of the workers was not"),
            "give its address with --host or FORESAIL_HOST; `foresail up` prints both",
        )),
        _ => Ok(()),
    }
}

fn named(global: &Global) -> Result<Option<StackFile>, CliError> {
    match (&global.metad, &global.host) {
        (None, None) => Ok(None),
        // A host is needed to run, not to look; the address of metad refuses invocations with a clear 404.
        (Some(metad), host) => {
            let host = host.clone().unwrap_or_else(|| metad.clone());
            let token = global.token.clone();
            Ok(Some(StackFile {
                metad: metad.clone(),
                host,
                objects: None,
                bucket: None,
                platform: None,
                token,
                pid: 0,
            }))
        }
        (None, Some(_)) => Err(CliError::input(
            "--host was given without --metad",
            "give both addresses, or none to use a running or an embedded stack",
        )),
    }
}

/// The stack that was written down in `data`, if it answers.
async fn running(data: &Path, token: Option<&String>) -> Option<StackFile> {
    let text = std::fs::read_to_string(data.join(STACK_FILE)).ok()?;
    let mut found: StackFile = serde_json::from_str(&text).ok()?;
    found.token = found.token.or_else(|| token.cloned());
    let limits = ClientSettings {
        connect_limit: LOOK_LIMIT,
        request_limit: LOOK_LIMIT,
        attempts_max: 1,
        token: found.token.clone(),
        ..ClientSettings::default()
    };
    match Client::connect_with(&found.metad, &found.host, limits).await {
        Ok(_) => Some(found),
        Err(ClientError::Unreachable { .. }) => {
            tracing::info!("the stack written down in {} has ended", data.display());
            None
        }
        Err(error) => {
            tracing::warn!("{error}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Color, Format};

    fn global(metad: Option<&str>, host: Option<&str>) -> Global {
        Global {
            format: Format::Table,
            color: Color::Never,
            metad: metad.map(str::to_owned),
            host: host.map(str::to_owned),
            token: None,
            data: None,
            verbose: 0,
        }
    }

    #[test]
    fn the_sizes_that_were_asked_for_are_the_menu_in_order() {
        let mut platform = local_platform();
        offer(&mut platform, &[4096, 512, 1024, 512]);
        assert_eq!(platform.menu.iter().map(|size| size.memory_mb).collect::<Vec<_>>(), [512, 1024, 4096]);
        assert_eq!(platform.default_config.memory_mb, 1024);
    }

    #[test]
    fn a_host_without_metad_is_refused() {
        assert!(named(&global(None, Some("http://127.0.0.1:1"))).is_err());
        assert_eq!(named(&global(None, None)).unwrap(), None);
    }

    #[test]
    fn a_command_that_runs_something_needs_a_host_where_metad_is_named() {
        let url = Some("http://127.0.0.1:1");
        assert!(check_host_named(&global(url, None)).is_err());
        assert!(check_host_named(&global(url, url)).is_ok() && check_host_named(&global(None, None)).is_ok());
    }

    #[tokio::test]
    async fn a_stack_that_has_ended_is_not_found() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(running(dir.path(), None).await, None);
        let gone = StackFile {
            metad: "http://127.0.0.1:9".to_owned(),
            host: "http://127.0.0.1:9".to_owned(),
            objects: None,
            bucket: None,
            platform: None,
            token: None,
            pid: 1,
        };
        std::fs::write(dir.path().join(STACK_FILE), serde_json::to_vec(&gone).unwrap()).unwrap();
        assert_eq!(running(dir.path(), None).await, None);
    }
}

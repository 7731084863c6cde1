//! The local stack: metad and a host of workers, inside this program. The workers are processes of this
//! machine, or functions of AWS Lambda.

use std::fs::DirBuilder;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
#[cfg(feature = "aws")]
use std::sync::Arc;
use std::time::Duration;

use foresail_metad as metad;
use foresail_schemas::platform::Platform;
use foresail_worker::coordination::CoordinationSettings;
use foresail_worker::data::s3::S3Settings;
#[cfg(feature = "aws")]
use foresail_worker::host::Host;
#[cfg(feature = "aws")]
use foresail_worker::host::gateway::{Gateway, GatewayError, GatewaySettings};
use foresail_worker::host::local::{ObjectPlace, WorkerCommand};
use foresail_worker::{LocalFaas, LocalSettings};

use crate::client::Client;
use crate::error::ClientError;
use crate::settings::ClientSettings;

/// Settings of a [`LocalStack`].
#[derive(Debug, Clone, PartialEq)]
pub struct StackSettings {
    /// Where measurements, runs and objects are kept; a temporary directory, deleted at the end, where
    /// absent.
    pub data: Option<PathBuf>,
    /// Address of metad; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Sizes and limits of the workers; as many at a time as this machine has processors by default.
    pub platform: Platform,
    /// Delay added to every cold start, as a platform far away would have it.
    pub cold_start: Duration,
    /// What a worker process runs; this very program where absent.
    pub worker: Option<WorkerCommand>,
    /// The Python interpreter of the workers; `FORESAIL_PYTHON`, else `python3`, where absent.
    pub python: Option<PathBuf>,
    /// Token that every request to metad and to the host must bring; anybody may ask where absent.
    pub token: Option<String>,
    /// Where workers put objects too large for a commit record; blobs of metad where files are named and the
    /// workers are elsewhere.
    pub objects: ObjectPlace,
    /// Where the state of runs is kept.
    pub coordination: CoordinationSettings,
    /// Where the workers are.
    pub workers: Workers,
    /// Address of metad as workers reach it; that which it listens on where absent.
    pub advertise: Option<String>,
}

/// Where the workers of a stack are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Workers {
    /// Processes of this machine.
    #[default]
    Here,
    /// Functions of AWS Lambda, one per size of the platform.
    #[cfg(feature = "aws")]
    Lambda {
        /// Begin of their names.
        prefix: String,
        /// Their region; that of the environment where absent.
        region: Option<String>,
    },
}

/// The host of a stack.
#[derive(Debug)]
enum Hosting {
    Here(LocalFaas),
    // Kept for its end.
    #[cfg(feature = "aws")]
    Elsewhere(#[expect(dead_code, reason = "it ends when dropped")] Gateway),
}

impl Default for StackSettings {
    fn default() -> Self {
        let mut platform = Platform::built_in().swap_remove(0);
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        platform.concurrency_max = u32::try_from(processors).unwrap_or(u32::MAX);
        Self {
            data: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            platform,
            cold_start: Duration::ZERO,
            worker: None,
            python: None,
            token: None,
            objects: ObjectPlace::Files,
            workers: Workers::Here,
            advertise: None,
            coordination: CoordinationSettings::Metad,
        }
    }
}

/// metad and workers of this machine, running inside this process.
///
/// The program must call [`worker`](crate::worker) first thing in `main`: workers are this very program,
/// unless [`StackSettings::worker`] names another.
#[derive(Debug)]
pub struct LocalStack {
    // Dropped in this order: workers still have something to tell metad when they end, and both use the data.
    host: Hosting,
    _metad: metad::Server,
    metad_address: String,
    host_address: String,
    platform: Platform,
    data: PathBuf,
    objects_dir: PathBuf,
    objects: ObjectPlace,
    token: Option<String>,
    _scratch: Option<tempfile::TempDir>,
}

impl LocalStack {
    /// Starts both.
    ///
    /// # Errors
    /// [`ClientError::Stack`] with the part that did not start; what had started is stopped again.
    pub async fn start(settings: StackSettings) -> Result<Self, ClientError> {
        // Starting waits for threads and disks.
        blocking("the local stack", move || Self::start_blocking(settings)).await?
    }

    fn start_blocking(settings: StackSettings) -> Result<Self, ClientError> {
        let failed = |part: &'static str, reason: String| ClientError::Stack { part, reason };
        let no_place = |reason: std::io::Error| failed("the data directory", reason.to_string());
        let (data, scratch) = match settings.data {
            Some(data) => (data, None),
            None => {
                let scratch = tempfile::Builder::new().prefix("foresail-").tempdir().map_err(no_place)?;
                (scratch.path().to_owned(), Some(scratch))
            }
        };
        // For its owner alone, where it is made here.
        DirBuilder::new().recursive(true).mode(0o700).create(&data).map_err(no_place)?;
        let mut metad_settings = metad::Settings::embedded(data.join("metad"));
        metad_settings.listen = settings.listen;
        metad_settings.token.clone_from(&settings.token);
        if let CoordinationSettings::Redis(url) = &settings.coordination {
            metad_settings.coordination = Some(url.clone());
        }
        let metad = metad::Server::start(metad_settings).map_err(|e| failed("metad", e.to_string()))?;
        let metad_address = settings.advertise.unwrap_or_else(|| format!("http://{}", metad.address()));
        #[cfg(feature = "aws")]
        if let Workers::Lambda { prefix, region } = settings.workers {
            let objects = match settings.objects {
                ObjectPlace::Files => ObjectPlace::Metad,
                elsewhere => elsewhere,
            };
            let of_gateway = GatewaySettings {
                token: settings.token.clone(),
                objects: objects.clone(),
                ..GatewaySettings::new(metad_address.clone())
            };
            let host = lambda(of_gateway, prefix, region, &settings.platform)?;
            return Ok(Self {
                host_address: host.url().to_owned(),
                host: Hosting::Elsewhere(host),
                _metad: metad,
                metad_address,
                platform: settings.platform,
                data,
                objects_dir: PathBuf::new(),
                objects,
                token: settings.token,
                _scratch: scratch,
            });
        }
        let host_settings = LocalSettings {
            cold_start_ms: settings.cold_start.as_secs_f64() * 1000.0,
            worker: settings.worker,
            python: settings.python,
            token: settings.token.clone(),
            objects: settings.objects.clone(),
            coordination: settings.coordination.clone(),
            ..LocalSettings::new(&metad_address, data.join("workers")).for_platform(&settings.platform)
        };
        let objects_dir = host_settings.objects_dir();
        let host =
            LocalFaas::start(host_settings).map_err(|e| failed("the host of the workers", e.to_string()))?;
        let host_address = host.url().to_owned();
        Ok(Self {
            host: Hosting::Here(host),
            _metad: metad,
            metad_address,
            host_address,
            platform: settings.platform,
            data,
            objects_dir,
            objects: settings.objects,
            token: settings.token,
            _scratch: scratch,
        })
    }

    /// A client of this stack.
    ///
    /// # Errors
    /// [`ClientError`] when the stack does not answer.
    pub async fn client(&self) -> Result<Client, ClientError> {
        self.client_with(ClientSettings::default()).await
    }

    /// A client of this stack with other limits.
    ///
    /// # Errors
    /// [`ClientError`] when the stack does not answer.
    pub async fn client_with(&self, settings: ClientSettings) -> Result<Client, ClientError> {
        let token = self.token.clone();
        let (objects, bucket) = (self.objects_dir(), self.bucket().cloned());
        let settings = ClientSettings { objects, bucket, token, ..settings };
        Client::connect_with(&self.metad_address, &self.host_address, settings).await
    }

    /// Address of metad.
    #[must_use]
    pub fn metad_address(&self) -> &str {
        &self.metad_address
    }

    /// Address of the host of the workers.
    #[must_use]
    pub fn host_address(&self) -> &str {
        &self.host_address
    }

    /// Sizes, limits and prices of its workers.
    #[must_use]
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Whether a larger worker is really faster here: the system holds workers to the CPU share of their
    /// size.
    #[must_use]
    pub fn holds_cpu_share(&self) -> bool {
        match &self.host {
            Hosting::Here(host) => host.holds_cpu_share(),
            #[cfg(feature = "aws")]
            Hosting::Elsewhere(_) => true,
        }
    }

    /// Where it keeps everything.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Directory in which its workers keep large objects, where they lie in files.
    #[must_use]
    pub fn objects_dir(&self) -> Option<PathBuf> {
        (self.objects == ObjectPlace::Files).then(|| self.objects_dir.clone())
    }

    /// Bucket in which its workers keep large objects, where they lie in one.
    #[must_use]
    pub fn bucket(&self) -> Option<&S3Settings> {
        match &self.objects {
            ObjectPlace::S3(settings) => Some(settings),
            ObjectPlace::Files | ObjectPlace::Metad => None,
        }
    }

    /// The token that its metad and its host want.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Stops the workers, then metad: what the workers still have to tell is stored.
    pub async fn stop(self) {
        // Dropping stops, in the order of the fields, and waits for threads and processes.
        let _ = blocking("the local stack", move || drop(self)).await;
    }
}

/// Serves functions of AWS Lambda as a host, so that clients of this stack need no credentials.
#[cfg(feature = "aws")]
fn lambda(
    settings: GatewaySettings,
    prefix: String,
    region: Option<String>,
    platform: &Platform,
) -> Result<Gateway, ClientError> {
    let memory_mb = platform.menu.iter().map(|config| config.memory_mb).collect();
    let make = move || async move {
        let config = foresail_aws::connect(region.as_deref()).await;
        let functions = foresail_aws::LambdaSettings { prefix, memory_mb };
        Ok(Arc::new(foresail_aws::LambdaHost::new(&config, functions)) as Arc<dyn Host>)
    };
    let failed =
        |e: GatewayError| ClientError::Stack { part: "the host of the workers", reason: e.to_string() };
    Gateway::start(settings, make).map_err(failed)
}

async fn blocking<T: Send + 'static>(
    part: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ClientError> {
    let failed = |e: tokio::task::JoinError| ClientError::Stack { part, reason: e.to_string() };
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

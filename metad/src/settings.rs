//! The settings of metad: one list with every default, read from flags, environment, a TOML file, in this
//! order.
//!
//! [`Settings`] is what the daemon uses: every value is there. [`Overrides`] is what a user says: every value
//! may be missing. Names are the same everywhere: the field `body_bytes_max` is the flag `--body-bytes-max`,
//! the variable `FORESAIL_METAD_BODY_BYTES_MAX` and the key `body_bytes_max` of the file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use foresail_schemas::metric::RECORDS_PER_BATCH_MAX;
use foresail_schemas::prediction::QUERIES_PER_REQUEST_MAX;
use foresail_schemas::run::OPERATIONS_PER_REQUEST_MAX;
use serde::Deserialize;

use crate::batch_log::Address;

/// Why settings were refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("the settings file `{path}` cannot be read: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("the settings file `{path}` is wrong: {reason}\nhint: `metad serve --help` names every setting")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Everybody in the network could read and write.
    #[error(
        "`{listen}` can be reached from other machines, and no token is set\n\
         hint: set FORESAIL_METAD_TOKEN (or --token), or listen on 127.0.0.1"
    )]
    TokenNeeded {
        /// The address.
        listen: SocketAddr,
    },
    /// A limit of 0 refuses everything.
    #[error("the setting `{name}` is 0, it must be at least 1")]
    Zero {
        /// The setting.
        name: &'static str,
    },
    /// Every request that waits for events to the end would be broken off.
    #[error(
        "the setting `wait_ms_max` is {wait_ms_max}, it must be less than `request_ms_max`, which is \
         {request_ms_max}\nhint: a request that waits for events must have time left for its answer"
    )]
    WaitTooLong {
        /// Longest wait for events, in ms.
        wait_ms_max: u64,
        /// Longest request, in ms.
        request_ms_max: u64,
    },
    /// The address of Redis is none.
    #[error("the setting `coordination`: {0}")]
    Coordination(String),
    /// The address of the log is none, or this build has no log.
    #[error("the setting `batch_log`: {0}")]
    BatchLog(String),
    /// The token cannot be sent in a header.
    #[error("the token must be 1 to 4096 visible ASCII characters without blanks")]
    Token,
}

macro_rules! settings {
    ($($name:ident: $type:ty = $default:expr, $shown:literal, $env:literal, $help:literal;)*) => {
        /// Everything that can be set, with the value in use.
        #[derive(Debug, Clone)]
        pub struct Settings {
            $(#[doc = concat!($help, " Default: `", $shown, "`.")] pub $name: $type,)*
        }

        /// What a user sets; the rest keeps its default.
        #[derive(Debug, Clone, Default, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields, default)]
        pub struct Overrides {
            $(
                #[doc = $help]
                #[arg(long, env = $env, hide_env_values = true)]
                #[arg(help = concat!($help, " [default: ", $shown, "]"))]
                pub $name: Option<<$type as Plain>::Plain>,
            )*
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Overrides {
            /// These, and where they are missing those of `weaker`.
            #[must_use]
            pub fn or(self, weaker: Self) -> Self {
                Self { $($name: self.$name.or(weaker.$name),)* }
            }

            /// These, and where they are missing the defaults.
            #[must_use]
            pub fn into_settings(self) -> Settings {
                let default = Settings::default();
                Settings { $($name: <$type as Plain>::set(self.$name, default.$name),)* }
            }
        }
    };
}

/// How a setting is given: an optional one is given by its value alone.
pub trait Plain: Sized {
    /// What is given.
    type Plain;
    /// What is given, or the default.
    fn set(given: Option<Self::Plain>, default: Self) -> Self;
}

macro_rules! plain {
    ($($type:ty),*) => {
        $(impl Plain for $type {
            type Plain = Self;
            fn set(given: Option<Self>, default: Self) -> Self {
                given.unwrap_or(default)
            }
        })*
    };
}
plain!(u64, SocketAddr, PathBuf);

impl Plain for Option<String> {
    type Plain = String;
    fn set(given: Option<String>, default: Self) -> Self {
        given.or(default)
    }
}

settings! {
    listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7070)), "127.0.0.1:7070", "FORESAIL_METAD_LISTEN",
        "Address to listen on; port 0 lets the system choose one.";
    data: PathBuf = PathBuf::from("foresail-data"), "foresail-data", "FORESAIL_METAD_DATA",
        "Directory of the store; made where it does not exist.";
    token: Option<String> = None, "none", "FORESAIL_METAD_TOKEN",
        "Token that every request but /livez must bring as `Authorization: Bearer TOKEN`; \
         needed unless metad listens on a loopback address.";
    coordination: Option<String> = None, "none", "FORESAIL_COORDINATION",
        "Redis or Valkey that has the state of runs, as redis://USER:PASSWORD@HOST:PORT/DB; \
         metad itself has it where none is set. Workers must be told the same.";
    batch_log: Option<String> = None, "none", "FORESAIL_METAD_BATCH_LOG",
        "Stream of NATS JetStream that batches go through, as nats://HOST:PORT?stream=NAME, so that every \
         metad that follows it learns the same; needs a build with the feature `nats`.";
    body_bytes_max: u64 = 64 << 20, "67108864", "FORESAIL_METAD_BODY_BYTES_MAX",
        "Largest body in bytes, both as sent and unpacked.";
    body_bytes_waiting_max: u64 = 256 << 20, "268435456", "FORESAIL_METAD_BODY_BYTES_WAITING_MAX",
        "Largest sum in bytes of all bodies that are being read or wait to be stored.";
    blob_bytes_max: u64 = 16 << 20, "16777216", "FORESAIL_METAD_BLOB_BYTES_MAX",
        "Largest blob in bytes.";
    run_blob_bytes_max: u64 = 8 << 30, "8589934592", "FORESAIL_METAD_RUN_BLOB_BYTES_MAX",
        "Largest sum in bytes of the blobs of one run.";
    batch_records_max: u64 = RECORDS_PER_BATCH_MAX as u64, "100000", "FORESAIL_METAD_BATCH_RECORDS_MAX",
        "Most records in one batch.";
    queries_max: u64 = QUERIES_PER_REQUEST_MAX as u64, "100000", "FORESAIL_METAD_QUERIES_MAX",
        "Most questions in one prediction request.";
    operations_max: u64 = OPERATIONS_PER_REQUEST_MAX as u64, "10000", "FORESAIL_METAD_OPERATIONS_MAX",
        "Most run operations in one request.";
    events_page_max: u64 = 1000, "1000", "FORESAIL_METAD_EVENTS_PAGE_MAX",
        "Most events in one answer.";
    list_max: u64 = 1000, "1000", "FORESAIL_METAD_LIST_MAX",
        "Most entries in one answer that lists workflows, tasks, runs or quarantined records.";
    export_records_max: u64 = 16_384, "16384", "FORESAIL_METAD_EXPORT_RECORDS_MAX",
        "Records that a download of samples reads at a time (whole batches), and most rows in a row group \
         of a Parquet file.";
    workflows_max: u64 = 10_000, "10000", "FORESAIL_METAD_WORKFLOWS_MAX",
        "Most workflows whose metrics are kept.";
    running_runs_max: u64 = 1000, "1000", "FORESAIL_METAD_RUNNING_RUNS_MAX",
        "Most runs that have not ended.";
    finished_runs_max: u64 = 1000, "1000", "FORESAIL_METAD_FINISHED_RUNS_MAX",
        "Finished runs that are kept with their events and blobs; the oldest go first.";
    workflow_records_max: u64 = 1_000_000, "1000000", "FORESAIL_METAD_WORKFLOW_RECORDS_MAX",
        "Raw records that are kept per workflow; the oldest batches go first, what was learnt stays.";
    workflow_batch_ids_max: u64 = 200_000, "200000", "FORESAIL_METAD_WORKFLOW_BATCH_IDS_MAX",
        "Batch ids that are kept per workflow to recognise repeated batches; the oldest go first.";
    workflow_quarantine_max: u64 = 10_000, "10000", "FORESAIL_METAD_WORKFLOW_QUARANTINE_MAX",
        "Quarantined records that are kept per workflow; the oldest go first.";
    connections_max: u64 = 4096, "4096", "FORESAIL_METAD_CONNECTIONS_MAX",
        "Most open connections; more wait to be accepted.";
    requests_max: u64 = 512, "512", "FORESAIL_METAD_REQUESTS_MAX",
        "Most requests at the same time besides those that listen for events; past it the answer is 429.";
    listeners_max: u64 = 4096, "4096", "FORESAIL_METAD_LISTENERS_MAX",
        "Most requests at the same time that listen for events; past it the answer is 429.";
    exports_max: u64 = 16, "16", "FORESAIL_METAD_EXPORTS_MAX",
        "Most downloads of samples and models at the same time; past it the answer is 503.";
    queue_max: u64 = 1024, "1024", "FORESAIL_METAD_QUEUE_MAX",
        "Most changes that wait for the writer; past it the answer is 429.";
    group_max: u64 = 512, "512", "FORESAIL_METAD_GROUP_MAX",
        "Most changes that share one commit.";
    head_ms_max: u64 = 30_000, "30000", "FORESAIL_METAD_HEAD_MS_MAX",
        "Longest time in ms that a connection may take to send the head of its next request; \
         then it is closed.";
    request_ms_max: u64 = 60_000, "60000", "FORESAIL_METAD_REQUEST_MS_MAX",
        "Longest time in ms for one request, from its head to the head of the answer.";
    send_ms_max: u64 = 30_000, "30000", "FORESAIL_METAD_SEND_MS_MAX",
        "Longest time in ms that a client takes nothing of its answer; then its connection is closed.";
    wait_ms_max: u64 = 30_000, "30000", "FORESAIL_METAD_WAIT_MS_MAX",
        "Longest time in ms that a request for events waits for one.";
    stop_ms_max: u64 = 10_000, "10000", "FORESAIL_METAD_STOP_MS_MAX",
        "Longest time in ms that a graceful stop waits for requests under way.";
    journal_ms_max: u64 = 1000, "1000", "FORESAIL_METAD_JOURNAL_MS_MAX",
        "Longest time in ms until the database has durably what so far only the journal has.";
    checkpoint_records: u64 = 50_000, "50000", "FORESAIL_METAD_CHECKPOINT_RECORDS",
        "Records after which the model of a workflow is written to the store.";
    checkpoint_ms: u64 = 60_000, "60000", "FORESAIL_METAD_CHECKPOINT_MS",
        "Time in ms after which a changed model is written to the store.";
}

/// Longest token in bytes.
const TOKEN_LEN_MAX: usize = 4096;

impl Overrides {
    /// Reads the settings file at `path`.
    ///
    /// # Errors
    /// [`SettingsError`] when it cannot be read, is no TOML, or names a setting that does not exist.
    pub fn from_file(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|reason| SettingsError::Unreadable { path: path.to_owned(), reason })?;
        toml::from_str(&text)
            .map_err(|e| SettingsError::Malformed { path: path.to_owned(), reason: e.to_string() })
    }
}

impl Settings {
    /// The defaults with a store in `data` and a port of the system's choice, as used inside another process.
    #[must_use]
    pub fn embedded(data: impl Into<PathBuf>) -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 0)), data: data.into(), ..Self::default() }
    }

    /// The Redis that has the state of runs, where it is not metad.
    #[must_use]
    pub fn redis(&self) -> Option<&str> {
        self.coordination.as_deref().filter(|place| *place != "metad")
    }

    /// Checks what the types alone do not hold.
    ///
    /// # Errors
    /// [`SettingsError`] with the setting that cannot be.
    pub fn check(&self) -> Result<(), SettingsError> {
        let at_least_one = [
            ("body_bytes_max", self.body_bytes_max),
            ("body_bytes_waiting_max", self.body_bytes_waiting_max),
            ("batch_records_max", self.batch_records_max),
            ("queries_max", self.queries_max),
            ("operations_max", self.operations_max),
            ("events_page_max", self.events_page_max),
            ("list_max", self.list_max),
            ("export_records_max", self.export_records_max),
            ("workflows_max", self.workflows_max),
            ("running_runs_max", self.running_runs_max),
            ("finished_runs_max", self.finished_runs_max),
            ("workflow_records_max", self.workflow_records_max),
            ("workflow_batch_ids_max", self.workflow_batch_ids_max),
            ("connections_max", self.connections_max),
            ("requests_max", self.requests_max),
            ("listeners_max", self.listeners_max),
            ("exports_max", self.exports_max),
            ("queue_max", self.queue_max),
            ("group_max", self.group_max),
            ("head_ms_max", self.head_ms_max),
            ("send_ms_max", self.send_ms_max),
            ("request_ms_max", self.request_ms_max),
            ("journal_ms_max", self.journal_ms_max),
            ("checkpoint_records", self.checkpoint_records),
            ("checkpoint_ms", self.checkpoint_ms),
        ];
        if let Some((name, _)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return Err(SettingsError::Zero { name });
        }
        let (wait_ms_max, request_ms_max) = (self.wait_ms_max, self.request_ms_max);
        if wait_ms_max >= request_ms_max {
            return Err(SettingsError::WaitTooLong { wait_ms_max, request_ms_max });
        }
        if let Some(url) = self.redis() {
            foresail_redis::Runs::open(url).map_err(|e| SettingsError::Coordination(e.to_string()))?;
        }
        if let Some(text) = &self.batch_log {
            Address::read(text).map_err(SettingsError::BatchLog)?;
            if cfg!(not(feature = "nats")) {
                let hint = "hint: build it with `--features nats`";
                return Err(SettingsError::BatchLog(format!("this metad was built without NATS\n{hint}")));
            }
        }
        let legal =
            |t: &String| !t.is_empty() && t.len() <= TOKEN_LEN_MAX && t.bytes().all(|b| b.is_ascii_graphic());
        match &self.token {
            Some(token) if !legal(token) => Err(SettingsError::Token),
            None if !self.listen.ip().is_loopback() => {
                Err(SettingsError::TokenNeeded { listen: self.listen })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_nearer_to_the_command_wins() {
        let flags = Overrides { queue_max: Some(1), ..Overrides::default() };
        let file: Overrides = toml::from_str("queue_max = 2\nlist_max = 3\ntoken = \"t\"").unwrap();
        let settings = flags.or(file).into_settings();
        assert_eq!((settings.queue_max, settings.list_max, settings.group_max), (1, 3, 512));
        assert_eq!(settings.token.as_deref(), Some("t"));
    }

    #[test]
    fn an_unknown_setting_in_the_file_is_refused() {
        assert!(toml::from_str::<Overrides>("colour = 1").unwrap_err().to_string().contains("colour"));
    }

    #[test]
    fn an_open_address_needs_a_token() {
        let open = Settings { listen: "0.0.0.0:0".parse().unwrap(), ..Settings::default() };
        assert!(matches!(open.check(), Err(SettingsError::TokenNeeded { .. })));
        assert!(Settings { token: Some("t".into()), ..open.clone() }.check().is_ok());
        assert!(matches!(Settings { token: Some("a b".into()), ..open }.check(), Err(SettingsError::Token)));
        assert!(Settings::default().check().is_ok());
    }

    #[test]
    fn a_log_needs_an_address_and_a_build_that_has_one() {
        let with = |text: &str| Settings { batch_log: Some(text.to_owned()), ..Settings::default() }.check();
        assert!(with("nats://127.0.0.1:4222").unwrap_err().to_string().contains("stream is missing"));
        let checked = with("nats://127.0.0.1:4222?stream=s").map_err(|error| error.to_string());
        match cfg!(feature = "nats") {
            true => assert_eq!(checked, Ok(())),
            false => assert!(checked.unwrap_err().contains("--features nats")),
        }
    }

    #[test]
    fn a_limit_of_zero_is_refused_by_name() {
        let refused = Settings { queue_max: 0, ..Settings::default() }.check().unwrap_err();
        assert!(refused.to_string().contains("`queue_max`"));
        let refused = Settings { finished_runs_max: 0, ..Settings::default() }.check().unwrap_err();
        assert!(refused.to_string().contains("`finished_runs_max`"));
    }

    #[test]
    fn a_wait_that_no_request_outlives_is_refused() {
        let equal = Settings { wait_ms_max: 500, request_ms_max: 500, ..Settings::default() };
        let refused = equal.check().unwrap_err().to_string();
        assert!(
            refused.contains("`wait_ms_max` is 500") && refused.contains("`request_ms_max`"),
            "{refused}"
        );
        assert!(Settings { wait_ms_max: 499, ..equal }.check().is_ok());
    }

    #[test]
    fn the_help_shows_the_default_in_use() {
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            _all: Overrides,
        }
        let help = <Command as clap::CommandFactory>::command().render_long_help().to_string();
        let default = Settings::default();
        for shown in [
            default.listen.to_string(),
            default.body_bytes_max.to_string(),
            default.run_blob_bytes_max.to_string(),
            default.batch_records_max.to_string(),
            default.checkpoint_ms.to_string(),
        ] {
            assert!(help.contains(&format!("[default: {shown}]")), "{shown}");
        }
    }
}

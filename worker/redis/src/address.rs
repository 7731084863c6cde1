//! Where Redis is: an address as users write it, and connections to it.
//!
//! `redis://` is one server, `rediss://` one over TLS, `redis+cluster://` and `rediss+cluster://` a cluster
//! of which some nodes are named. A cluster is named as such and not found out: what an address means does
//! not depend on whether somebody answers. `?ca=FILE` names the authority that signed the certificate of
//! the server; without it the system's authorities count, or those of `SSL_CERT_FILE`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig, PubSub};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::{Client, Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult, ServerErrorKind, Value};
use tokio::time::{sleep, timeout};

use crate::error::{ADDRESS_HINT, CoordinationError};

/// Longest time until a connection stands.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Longest time until a request is answered, repetitions within a cluster included.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Longest time until one node of a cluster answers: one that is gone is asked again elsewhere.
const NODE_ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// Tries to connect anew before a request fails.
const CONNECTS_MAX: usize = 3;
/// Times a request is sent again whose connection broke.
const BREAKS_MAX: u32 = 5;
/// Pause before that; the connection is made anew meanwhile.
const BREAK_PAUSE: Duration = Duration::from_millis(10);
/// Tries of a request to a cluster, which may be choosing a new node for the run.
const CLUSTER_TRIES_MAX: u32 = 30;
/// Longest pause between them, in ms.
const CLUSTER_PAUSE_MS_MAX: u64 = 500;
/// Most nodes of a cluster that are named.
const NODES_MAX: usize = 64;
/// What marks the address of a cluster.
const CLUSTER: &str = "+cluster";
#[cfg(not(feature = "tls"))]
const NO_TLS_HINT: &str = "build with the feature `s3` (foresail, its workers) or `tls` (metad), or leave \
                           out the second s of `rediss`";

/// A Redis, and the ways to it.
#[derive(Debug)]
pub(crate) struct Address {
    /// How it is named in messages, without a password.
    pub shown: String,
    /// Its nodes; one where it is no cluster.
    nodes: Vec<Client>,
    cluster: Option<ClusterClient>,
    /// Subscriptions so far: each takes the next node, as one may be gone.
    subscriptions: AtomicUsize,
}

/// A connection for requests; clones share it. A request whose connection breaks is sent again, in a cluster
/// by the client library: what is asked of a run may be asked twice, and who waits for the answer would find
/// a connection that broke meanwhile each time, because it is noticed by who uses it.
#[derive(Clone)]
pub(crate) enum Link {
    One(ConnectionManager),
    Cluster(ClusterConnection),
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(link) => Box::pin(async move {
                let mut breaks = 0;
                loop {
                    let done = link.req_packed_command(cmd).await;
                    if !may_pass(&done, &mut breaks).await {
                        return done;
                    }
                }
            }),
            Self::Cluster(link) => link.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(link) => Box::pin(async move {
                let mut breaks = 0;
                loop {
                    let done = link.req_packed_commands(cmd, offset, count).await;
                    if !may_pass(&done, &mut breaks).await {
                        return done;
                    }
                }
            }),
            Self::Cluster(link) => link.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(link) => link.get_db(),
            Self::Cluster(link) => link.get_db(),
        }
    }
}

/// Whether a request is to be sent again, after a pause. A server that is not there or does not answer has
/// been waited for already.
async fn may_pass<T>(done: &RedisResult<T>, breaks: &mut u32) -> bool {
    let is_broken = |error: &RedisError| error.is_connection_dropped() && !error.is_connection_refusal();
    let may_pass = *breaks < BREAKS_MAX && done.as_ref().is_err_and(is_broken);
    if may_pass {
        *breaks += 1;
        sleep(BREAK_PAUSE).await;
    }
    may_pass
}

/// What an address says.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    /// One address per node, as the client library takes it.
    nodes: Vec<String>,
    is_cluster: bool,
    is_tls: bool,
    /// File of the authority.
    ca: Option<String>,
}

impl Address {
    /// The Redis at `url`; nothing is asked yet.
    pub fn new(url: &str) -> Result<Self, CoordinationError> {
        let shown = url.rsplit_once('@').map_or(url, |(_, host)| host).to_owned();
        let wrong = |cause: String, hint| CoordinationError::Settings { shown: shown.clone(), cause, hint };
        let parts = parts(url).map_err(|cause| wrong(cause, ADDRESS_HINT))?;
        #[cfg(not(feature = "tls"))]
        if parts.is_tls {
            return Err(wrong(
                "it asks for TLS, which this program was built without".to_owned(),
                NO_TLS_HINT,
            ));
        }
        let refused = |e: RedisError| wrong(e.to_string(), ADDRESS_HINT);
        let root =
            match &parts.ca {
                None => None,
                Some(file) => Some(std::fs::read(file).map_err(|e| {
                    wrong(format!("`ca={file}`: {e}"), "name a file with a certificate in PEM")
                })?),
            };
        let nodes: RedisResult<Vec<Client>> =
            parts.nodes.iter().map(|node| client(node, root.clone())).collect();
        let cluster = parts.is_cluster.then(|| cluster(&parts, root)).transpose().map_err(refused)?;
        let nodes = nodes.map_err(refused)?;
        let at = nodes.iter().map(|node| node.get_connection_info().addr().to_string());
        let shown = at.collect::<Vec<_>>().join(",");
        Ok(Self { shown, nodes, cluster, subscriptions: AtomicUsize::new(0) })
    }

    /// A connection for requests, made anew where it breaks.
    pub async fn link(&self) -> RedisResult<Link> {
        if let Some(cluster) = &self.cluster {
            let connected = timeout(ANSWER_LIMIT, cluster.get_async_connection()).await;
            let late = || RedisError::from((ErrorKind::Io, "no node of the cluster answers"));
            return connected.map_err(|_elapsed| late())?.map(Link::Cluster);
        }
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_LIMIT))
            .set_response_timeout(Some(ANSWER_LIMIT))
            .set_number_of_retries(CONNECTS_MAX);
        self.nodes[0].get_connection_manager_with_config(config).await.map(Link::One)
    }

    /// A connection for subscriptions. In a cluster any node will do: what is published on one is told on
    /// all.
    pub async fn subscription(&self) -> RedisResult<PubSub> {
        let at = self.subscriptions.fetch_add(1, Ordering::Relaxed) % self.nodes.len();
        self.nodes[at].get_async_pubsub().await
    }

    /// The failure of a request in words.
    pub fn unreachable(&self, error: &RedisError) -> CoordinationError {
        let (at, cause) = (self.shown.clone(), error.to_string());
        let hint = match error.kind() {
            ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::CrossSlot) => {
                "it is a node of a cluster; write redis+cluster://HOST:PORT,HOST:PORT"
            }
            _ if cause.contains("certificate") => {
                "name the authority that signed its certificate: rediss://HOST:PORT?ca=FILE"
            }
            _ => "is it running, and is the address right?",
        };
        CoordinationError::Unreachable { at, cause, hint }
    }
}

/// What an address says, or why it is none.
fn parts(url: &str) -> Result<Parts, String> {
    let (scheme, rest) = url.split_once("://").ok_or("it has no `://`")?;
    let (plain, is_cluster) = scheme.strip_suffix(CLUSTER).map_or((scheme, false), |plain| (plain, true));
    let is_tls = matches!(plain, "rediss" | "valkeys");
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (mut ca, mut kept) = (None, String::new());
    for setting in query.split('&').filter(|setting| !setting.is_empty()) {
        match setting.strip_prefix("ca=") {
            Some(file) => ca = Some(file.to_owned()),
            None => kept = format!("{kept}{}{setting}", if kept.is_empty() { '?' } else { '&' }),
        }
    }
    if ca.is_some() && !is_tls {
        return Err("`ca` is of use with TLS alone, which is `rediss://`".to_owned());
    }
    if !is_cluster {
        return Ok(Parts { nodes: vec![format!("{scheme}://{rest}{kept}")], is_cluster, is_tls, ca });
    }
    let (who, rest) =
        rest.rsplit_once('@').map_or((String::new(), rest), |(who, at)| (format!("{who}@"), at));
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let nodes: Vec<String> =
        hosts.split(',').map(|host| format!("{plain}://{who}{host}/{path}{kept}")).collect();
    match nodes.len() {
        ..=NODES_MAX => Ok(Parts { nodes, is_cluster, is_tls, ca }),
        len => Err(format!("it names `{len}` nodes, at most {NODES_MAX} are taken; the others are found")),
    }
}

#[cfg(not(feature = "tls"))]
fn client(node: &str, _root: Option<Vec<u8>>) -> RedisResult<Client> {
    Client::open(node)
}

/// Over TLS the one stack that this program has anyway is taken, whatever others it is linked with.
#[cfg(feature = "tls")]
fn client(node: &str, root_cert: Option<Vec<u8>>) -> RedisResult<Client> {
    // One that was installed before is as good.
    let _before = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match root_cert {
        None => Client::open(node),
        root_cert => Client::build_with_tls(node, redis::TlsCertificates { client_tls: None, root_cert }),
    }
}

fn cluster(parts: &Parts, root_cert: Option<Vec<u8>>) -> RedisResult<ClusterClient> {
    let builder = ClusterClientBuilder::new(parts.nodes.iter().map(String::as_str))
        .connection_timeout(CONNECT_LIMIT)
        .response_timeout(NODE_ANSWER_LIMIT)
        .overall_response_timeout(Some(ANSWER_LIMIT))
        .retries(CLUSTER_TRIES_MAX)
        .max_retry_wait(CLUSTER_PAUSE_MS_MAX);
    #[cfg(feature = "tls")]
    let builder = match root_cert {
        None => builder,
        root_cert => builder.certs(redis::TlsCertificates { client_tls: None, root_cert }),
    };
    #[cfg(not(feature = "tls"))]
    let _none = root_cert;
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(url: &str, is_tls: bool, ca: Option<&str>) -> Result<Parts, String> {
        let ca = ca.map(str::to_owned);
        Ok(Parts { nodes: vec![url.to_owned()], is_cluster: false, is_tls, ca })
    }

    #[test]
    fn addresses_say_how_redis_is_reached() {
        for (url, expect) in [
            ("redis://h:1/2", node("redis://h:1/2", false, None)),
            ("rediss://u:p@h", node("rediss://u:p@h", true, None)),
            ("rediss://h?ca=/a/b.pem", node("rediss://h", true, Some("/a/b.pem"))),
            ("redis://h?protocol=3&x=1", node("redis://h?protocol=3&x=1", false, None)),
            ("rediss://h?ca=a&protocol=3", node("rediss://h?protocol=3", true, Some("a"))),
        ] {
            assert_eq!(parts(url), expect, "{url}");
        }
        for bad in ["h:1", "redis://h?ca=a", &format!("redis+cluster://{}", ["h"; 65].join(","))] {
            assert!(parts(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cluster_has_one_address_per_node() {
        let found = parts("rediss+cluster://u:p@a:1,b:2/0?ca=c&protocol=3").unwrap();
        assert_eq!(found.nodes, ["rediss://u:p@a:1/0?protocol=3", "rediss://u:p@b:2/0?protocol=3"]);
        assert!(found.is_cluster && found.is_tls && found.ca.as_deref() == Some("c"));
        let address = Address::new("redis+cluster://u:secret@a:1,b:2").unwrap();
        assert_eq!(address.shown, "a:1,b:2");
        assert!(address.cluster.is_some() && address.nodes.len() == 2);
    }

    #[test]
    fn what_is_no_address_is_refused_without_its_password() {
        for bad in ["http://u:secret@h", "redis+cluster://u:secret@", "redis://u:secret@h/db", "secret"] {
            let told = Address::new(bad).unwrap_err().to_string();
            assert!(told.contains("hint:") && !told.contains("u:secret"), "{bad}: {told}");
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn a_build_without_tls_names_the_feature_that_brings_it() {
        for url in ["rediss://h", "rediss+cluster://h", "valkeys://h"] {
            let told = Address::new(url).unwrap_err().to_string();
            assert!(told.contains("TLS") && told.contains("feature `s3`"), "{url}: {told}");
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn an_authority_that_is_not_there_is_named() {
        let told = Address::new("rediss://h?ca=/nowhere/ca.pem").unwrap_err().to_string();
        assert!(told.contains("/nowhere/ca.pem") && told.contains("PEM"), "{told}");
    }
}

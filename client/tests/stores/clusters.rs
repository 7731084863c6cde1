//! Runs in a cluster of Redis: three nodes and a replica of each, one of which dies, and a slot that moves.

use std::thread;
use std::time::{Duration, Instant};

use foresail::schemas::RunId;
use foresail::schemas::run::{RunOptions, RunStatus};
use foresail::{LocalStack, RunHandle};
use foresail_worker::coordination::CoordinationSettings;
use foresail_worker::host::local::ObjectPlace;

use crate::coordination::{Subject, conforms};
use crate::servers::{Redis, free_address};
use crate::shared_runs::{LIMIT, is_under_way, rounds, stack_at};
use crate::workloads::submit;

/// Nodes with slots; each has a replica.
const PARTS: usize = 3;
/// Slots of a cluster.
const SLOTS: usize = 16_384;
/// How long a node may be silent before the others take it for dead, in ms.
const SILENCE_MS: &str = "1000";

/// Nodes with slots, then their replicas in the same order.
struct Cluster(Vec<Redis>);

impl Cluster {
    fn start() -> Option<Self> {
        let node = || {
            let bus = free_address().port().to_string();
            let node = Redis::start_with(&[
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                SILENCE_MS,
                "--repl-diskless-sync-delay",
                "0",
            ])?;
            Some((node, bus))
        };
        let nodes: Vec<(Redis, String)> = (0..2 * PARTS).map(|_| node()).collect::<Option<_>>()?;
        let first = &nodes[0].0;
        for (other, bus) in &nodes[1..] {
            let port = other.address().port();
            assert_eq!(first.ask(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}")), "+OK");
        }
        let cluster = Self(nodes.into_iter().map(|(node, _)| node).collect());
        for part in 0..PARTS {
            let (from, to) = (part * SLOTS / PARTS, (part + 1) * SLOTS / PARTS - 1);
            assert_eq!(cluster.0[part].ask(&format!("CLUSTER ADDSLOTSRANGE {from} {to}")), "+OK");
        }
        for part in 0..PARTS {
            let (id, replica) = (id(&cluster.0[part]), &cluster.0[PARTS + part]);
            until(|| replica.ask(&format!("CLUSTER REPLICATE {id}")) == "+OK");
        }
        let is_ready = |node: &Redis| {
            let state = node.ask_all("CLUSTER INFO");
            let nodes = node.ask_all("CLUSTER NODES");
            state.contains("cluster_state:ok") && nodes.matches("slave ").count() == PARTS
        };
        until(|| cluster.0.iter().all(is_ready));
        until(|| {
            cluster.0[PARTS..].iter().all(|node| node.ask_all("INFO").contains("master_link_status:up"))
        });
        Some(cluster)
    }

    fn coordination(&self) -> CoordinationSettings {
        let hosts: Vec<String> = self.0[..PARTS].iter().map(|node| node.address().to_string()).collect();
        CoordinationSettings::Redis(format!("redis+cluster://{}", hosts.join(",")))
    }

    /// Which node has the log of a run, and its slot.
    fn place(&self, run: &RunId) -> (usize, usize) {
        let slot = self.0[0].ask(&format!("CLUSTER KEYSLOT {{{run}}}"));
        let slot: usize = slot.trim_start_matches(':').parse().unwrap();
        let has = |node: &Redis| node.ask(&format!("EXISTS foresail:{{{run}}}:log")) == ":1";
        (self.0[..PARTS].iter().position(has).expect("a node has the log"), slot)
    }

    fn kill_connections(&self) -> u64 {
        self.0[..PARTS].iter().map(Redis::kill_connections).sum()
    }
}

fn id(node: &Redis) -> String {
    node.ask_all("CLUSTER MYID").lines().nth(1).unwrap().to_owned()
}

/// Waits for what comes of itself.
fn until(is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LIMIT, "it does not become so");
        thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_redis_conforms() {
    let Some(cluster) = Cluster::start() else { return };
    let subject = Subject::new(cluster.coordination()).await;
    conforms(&subject).await;
    subject.stop().await;
    let of_nodes: Vec<String> = cluster.0[..PARTS].iter().map(|node| node.ask("DBSIZE")).collect();
    assert!(of_nodes.iter().filter(|keys| *keys != ":0").count() > 1, "runs lie on several: {of_nodes:?}");
}

/// A run that has begun, on a stack of its own.
async fn under_way(cluster: &Cluster) -> (LocalStack, RunHandle) {
    let stack = stack_at(cluster.coordination(), ObjectPlace::Files).await;
    let client = stack.client().await.unwrap();
    let limits = RunOptions { lease_ms: 3_000.0, heartbeat_ms: 300.0, ..RunOptions::default() };
    let run = submit(&stack, &client, &rounds(), limits).await;
    is_under_way(&run).await;
    (stack, run)
}

async fn ends_well(run: &RunHandle) {
    let outcome = run.wait().await.unwrap().completed().unwrap();
    assert_eq!((outcome.status, outcome.progress.committed), (RunStatus::Completed, 40));
    assert_eq!(run.result("t9x1").await.unwrap(), "9 1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_when_the_node_that_has_it_dies() {
    let Some(mut cluster) = Cluster::start() else { return };
    let (stack, run) = under_way(&cluster).await;
    let (part, slot) = cluster.place(run.id());
    // What no replica has yet is lost with a node, whatever asks it: so it is given time to pass it on.
    assert_eq!(cluster.0[part].ask("CLIENT PAUSE 60000 WRITE"), "+OK");
    until(|| {
        let told = cluster.0[part].ask_all("INFO replication");
        let number = |name: &str| {
            let rest = told.split_once(name).unwrap().1;
            rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse::<u64>().unwrap()
        };
        number(",offset=") == number("master_repl_offset:")
    });
    cluster.0[part].kill();
    ends_well(&run).await;
    let alive = if part == 0 { 1 } else { 0 };
    let promoted = cluster.0[PARTS + part].address().port();
    let nodes = cluster.0[alive].ask_all("CLUSTER SHARDS");
    assert!(nodes.contains(&promoted.to_string()), "slot {slot}: {nodes}");
    assert!(cluster.0[PARTS + part].ask_all("INFO replication").contains("role:master"));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_while_its_slot_moves_and_connections_break() {
    let Some(cluster) = Cluster::start() else { return };
    let (stack, run) = under_way(&cluster).await;
    let (from, slot) = cluster.place(run.id());
    let to = (from + 1) % PARTS;
    let (source, target) = (&cluster.0[from], &cluster.0[to]);
    let (source_id, target_id) = (id(source), id(target));
    assert_eq!(target.ask(&format!("CLUSTER SETSLOT {slot} IMPORTING {source_id}")), "+OK");
    assert_eq!(source.ask(&format!("CLUSTER SETSLOT {slot} MIGRATING {target_id}")), "+OK");
    let mut broken = cluster.kill_connections();
    // One key after another, so that they lie on two nodes for a while.
    let port = target.address().port();
    until(|| {
        let keys = source.ask_all(&format!("CLUSTER GETKEYSINSLOT {slot} 1"));
        let key = keys.lines().find(|line| line.starts_with("foresail:")).map(str::to_owned);
        if let Some(key) = &key {
            source.ask(&format!("MIGRATE 127.0.0.1 {port} {key} 0 5000"));
            thread::sleep(Duration::from_millis(50));
        }
        key.is_none()
    });
    for node in [target, source] {
        assert_eq!(node.ask(&format!("CLUSTER SETSLOT {slot} NODE {target_id}")), "+OK");
    }
    broken += cluster.kill_connections();
    ends_well(&run).await;
    assert!(broken > 3, "{broken} connections were broken");
    assert_eq!(cluster.place(run.id()), (to, slot));
    stack.stop().await;
}

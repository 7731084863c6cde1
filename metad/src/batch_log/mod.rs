//! One log of batches for several metad: every replica learns the same from it, in the same order.
//!
//! With `--batch-log nats://HOST:PORT?stream=NAME` a batch is not stored by the metad that takes it, but
//! published to a stream of NATS JetStream and acknowledged once the stream has it. Every replica follows the
//! stream and hands each batch to its own writer ([`crate::write`]), as if it had been posted there, with the
//! time of its arrival where it was taken.
//!
//! - **The epoch is the place in the log**, not a count of commit groups: what a replica groups into one
//!   commit depends on its load. So the epoch, which is stored with the batch in one transaction, also says
//!   where to go on after a restart, and two replicas at one epoch have learnt the same batches.
//! - A batch counts once: JetStream passes over an id that it had a moment ago, and the receipts of the
//!   writer, which every replica has alike, pass over those of earlier.
//! - A data directory belongs to one stream ([`home`]): a stream that was made anew, or put back to an
//!   earlier state, numbers other batches alike, and is refused.
//!
//! Only a build with the feature `nats` can do so; the others refuse the setting.

#[cfg(feature = "nats")]
mod follow;
mod home;
#[cfg(feature = "nats")]
mod message;
#[cfg(feature = "nats")]
mod nats;

pub use home::check;
#[cfg(feature = "nats")]
pub use nats::{BatchLog, take_up};

/// Most servers of one cluster that may be named.
const SERVERS_MAX: usize = 16;
/// Longest name of a stream.
const NAME_LEN_MAX: usize = 64;
/// Most copies that JetStream keeps of a stream.
const COPIES_MAX: usize = 5;

/// How far a replica is, for `/metrics`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Sequence in the log up to which everything is learnt.
    pub applied: u64,
    /// Last sequence that the log is known to have.
    pub last: u64,
    /// 1 while there is a connection to the log.
    pub connected: u64,
}

/// Where the log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The servers, each as `nats://…`.
    pub servers: Vec<String>,
    /// The stream.
    pub stream: String,
    /// Copies of the stream that its cluster keeps, where this metad makes it.
    pub copies: usize,
}

impl Address {
    /// Reads `nats://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…]?stream=NAME[&copies=N]`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let form = "nats://HOST:PORT[,HOST:PORT]?stream=NAME[&copies=N]";
        let Some(rest) = text.strip_prefix("nats://") else {
            return Err(format!("`{}` is no {form}", without_password(text)));
        };
        let (hosts, query) = rest.split_once('?').unwrap_or((rest, ""));
        let servers: Vec<_> = hosts.split(',').map(|host| format!("nats://{host}")).collect();
        if servers.len() > SERVERS_MAX || hosts.split(',').any(str::is_empty) || hosts.contains('/') {
            return Err(format!("it must name 1 to {SERVERS_MAX} servers, as in {form}"));
        }
        let (mut stream, mut copies) = (None, 1);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("stream", name)) => stream = Some(name.to_owned()),
                Some(("copies", n)) => copies = n.parse().unwrap_or(0),
                _ => return Err(format!("`{pair}` is neither stream=NAME nor copies=N")),
            }
        }
        if !(1..=COPIES_MAX).contains(&copies) {
            return Err(format!("copies must be 1 to {COPIES_MAX}"));
        }
        let stream = stream.ok_or_else(|| format!("the stream is missing, as in {form}"))?;
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if stream.is_empty() || stream.len() > NAME_LEN_MAX || !stream.chars().all(legal) {
            return Err(format!(
                "the stream `{stream}` must be 1 to {NAME_LEN_MAX} letters, digits, _ and -"
            ));
        }
        Ok(Self { servers, stream, copies })
    }
}

fn without_password(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(front), Some(end)) if front + 3 <= end => format!("{}…{}", &text[..front + 3], &text[end..]),
        _ => text.to_owned(),
    }
}

/// What stands for the log in a build that has none; no value of it exists.
#[cfg(not(feature = "nats"))]
#[derive(Debug)]
pub enum BatchLog {}

#[cfg(not(feature = "nats"))]
mod absent {
    use std::sync::Arc;

    use foresail_schemas::Problem;
    use foresail_schemas::metric::BatchAnswer;

    use super::{BatchLog, Place};
    use crate::shared::Shared;
    use crate::write::Ingest;

    impl BatchLog {
        /// Nothing: there is no log without the feature `nats`.
        pub fn open(_: &str, _: u64) -> Option<Self> {
            None
        }

        /// Publishes a batch.
        pub async fn post(&self, _: &Arc<Shared>, _: Ingest) -> Result<BatchAnswer, Problem> {
            match *self {}
        }

        /// How far this replica is.
        pub fn place(&self) -> Place {
            match *self {}
        }

        /// Why this replica should not be asked.
        pub fn unready(&self) -> Option<Problem> {
            match *self {}
        }
    }

    /// Follows nothing.
    pub fn take_up(_: &Arc<Shared>) {}
}
#[cfg(not(feature = "nats"))]
pub use absent::take_up;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_servers_and_a_stream() {
        let one = Address::read("nats://127.0.0.1:4222?stream=foresail").unwrap();
        assert_eq!((one.servers, one.copies), (vec!["nats://127.0.0.1:4222".to_owned()], 1));
        let three = Address::read("nats://a:1,b:2,u:p@c:3?copies=3&stream=f_1-x").unwrap();
        assert_eq!((three.servers.len(), three.copies, three.stream.as_str()), (3, 3, "f_1-x"));
        assert_eq!(three.servers[2], "nats://u:p@c:3");
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said_without_its_password() {
        for (text, said) in [
            ("redis://127.0.0.1?stream=a", "nats://"),
            ("http://user:secret@host", "http://…@host"),
            ("nats://127.0.0.1", "stream is missing"),
            ("nats://?stream=a", "servers"),
            ("nats://a,,b?stream=a", "servers"),
            ("nats://a/b?stream=a", "servers"),
            ("nats://a?stream=a.b", "`a.b`"),
            ("nats://a?stream=", "``"),
            ("nats://a?stream=a&copies=0", "copies"),
            ("nats://a?stream=a&copies=many", "copies"),
            ("nats://a?stream=a&colour=red", "`colour=red`"),
        ] {
            let error = Address::read(text).unwrap_err();
            assert!(error.contains(said) && !error.contains("secret"), "{text}: {error}");
        }
    }
}

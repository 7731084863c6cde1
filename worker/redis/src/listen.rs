//! News of a run: a subscription that rings a bell. It only makes a look come sooner; looks come without it
//! too.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use foresail_schemas::RunId;
use futures_util::StreamExt;
use redis::RedisError;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::address::{Address, CONNECT_LIMIT};
use crate::fold::Fold;
use crate::keys;

/// Pause before a broken subscription is made anew.
const SUBSCRIBE_PAUSE: Duration = Duration::from_secs(1);
/// How often it is seen whether anybody still waits for news of a run.
const SUBSCRIBER_LOOK: Duration = Duration::from_secs(5);

/// What this process has of a run.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    /// The fold.
    pub fold: tokio::sync::Mutex<Option<Fold>>,
    /// Entries that were folded.
    pub folded: AtomicU64,
    /// Entries of the log that were told of.
    told: AtomicU64,
    /// Rings when there may be news: entries that were told of, or that this process has folded.
    pub bell: Notify,
    has_subscriber: AtomicBool,
    /// Whether the run has ended.
    pub is_over: AtomicBool,
}

impl Followed {
    /// Whether there are entries that this process has not folded, as far as it was told.
    pub fn is_behind(&self) -> bool {
        self.told.load(Ordering::SeqCst) > self.folded.load(Ordering::SeqCst)
    }

    /// Notes that the log has so many entries; rings where that is news.
    fn hear(&self, entries: u64) {
        self.told.fetch_max(entries, Ordering::SeqCst);
        if self.is_behind() {
            self.bell.notify_waiters();
        }
    }

    /// Forgets what was told: the log is another one.
    pub fn begin_anew(&self) {
        self.told.store(0, Ordering::SeqCst);
        self.folded.store(0, Ordering::SeqCst);
    }
}

/// Rings the bell of a run when something was appended, as long as anybody may wait for it.
pub(crate) fn subscribe(address: &Arc<Address>, run: &RunId, followed: &Arc<Followed>) {
    if followed.is_over.load(Ordering::SeqCst) || followed.has_subscriber.swap(true, Ordering::SeqCst) {
        return;
    }
    let (address, channel, followed) = (Arc::clone(address), keys::channel(run), Arc::downgrade(followed));
    tokio::spawn(async move {
        while listen(&address, &channel, &followed).await {
            sleep(SUBSCRIBE_PAUSE).await;
        }
    });
}

/// Listens until the connection breaks; false where nobody waits any more.
async fn listen(address: &Address, channel: &str, followed: &Weak<Followed>) -> bool {
    let is_needed = || followed.upgrade().filter(|followed| !followed.is_over.load(Ordering::SeqCst));
    let subscribed = timeout(CONNECT_LIMIT, async {
        let mut subscription = address.subscription().await?;
        subscription.subscribe(channel).await?;
        Ok::<_, RedisError>(subscription)
    });
    let Ok(Ok(mut subscription)) = subscribed.await else { return is_needed().is_some() };
    let mut news = subscription.on_message();
    loop {
        let told = timeout(SUBSCRIBER_LOOK, news.next()).await;
        let Some(followed) = is_needed() else { return false };
        match told {
            Ok(Some(message)) => message.get_payload().into_iter().for_each(|entries| followed.hear(entries)),
            Ok(None) => return true,
            Err(_elapsed) => {}
        }
    }
}

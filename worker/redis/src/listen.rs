//! News of a run: a subscription that rings a bell. It only makes a look come sooner; looks come without it
//! too.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use foresail_schemas::RunId;
use futures_util::StreamExt;
use redis::{Client, RedisError};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::fold::Fold;
use crate::keys;
use crate::runs::CONNECT_LIMIT;

/// Pause before a broken subscription is made anew.
const SUBSCRIBE_PAUSE: Duration = Duration::from_secs(1);
/// How often it is seen whether anybody still waits for news of a run.
const SUBSCRIBER_LOOK: Duration = Duration::from_secs(5);

/// What this process has of a run.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    /// The fold.
    pub fold: tokio::sync::Mutex<Option<Fold>>,
    /// Rings when the log may have grown.
    pub bell: Notify,
    has_subscriber: AtomicBool,
    /// Whether the run has ended.
    pub is_over: AtomicBool,
}

/// Rings the bell of a run when something was appended, as long as anybody may wait for it.
pub(crate) fn subscribe(client: &Client, run: &RunId, followed: &Arc<Followed>) {
    if followed.is_over.load(Ordering::SeqCst) || followed.has_subscriber.swap(true, Ordering::SeqCst) {
        return;
    }
    let (client, channel, followed) = (client.clone(), keys::channel(run), Arc::downgrade(followed));
    tokio::spawn(async move {
        while listen(&client, &channel, &followed).await {
            sleep(SUBSCRIBE_PAUSE).await;
        }
    });
}

/// Listens until the connection breaks; false where nobody waits any more.
async fn listen(client: &Client, channel: &str, followed: &Weak<Followed>) -> bool {
    let is_needed = || followed.upgrade().filter(|followed| !followed.is_over.load(Ordering::SeqCst));
    let subscribed = timeout(CONNECT_LIMIT, async {
        let mut subscription = client.get_async_pubsub().await?;
        subscription.subscribe(channel).await?;
        Ok::<_, RedisError>(subscription)
    });
    let Ok(Ok(mut subscription)) = subscribed.await else { return is_needed().is_some() };
    let mut news = subscription.on_message();
    loop {
        let told = timeout(SUBSCRIBER_LOOK, news.next()).await;
        let Some(followed) = is_needed() else { return false };
        match told {
            Ok(Some(_)) => followed.bell.notify_waiters(),
            Ok(None) => return true,
            Err(_elapsed) => {}
        }
    }
}

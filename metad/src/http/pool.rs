//! Work that would hold up the event loop, on the blocking pool.
//!
//! There is one event loop, and most answers take it about a microsecond. Work that takes longer is done on
//! threads beside it: large texts, reads of the store, and cold questions, whose answer needs a fit over many
//! measurements first (the first one about transfers after a batch, or one that asks up to 24 other tasks
//! about the shape: up to some 20 ms). Such a question is answered where it is asked, once it is asked. The
//! learner could fit in advance instead, but it would fit after every batch what nobody may ask for, on the
//! cores that the writer needs, and a question that comes before it has finished would wait on the event loop
//! all the same.
//!
//! Guarantees: at most [`COLD_MAX`](crate::shared::COLD_MAX) cold questions are worked on at once, the others
//! wait without a thread and find the answer warm; work whose request has run out of its time or has gone is
//! not begun, and where it runs already it keeps what it holds (its place among the cold ones, its memory)
//! exactly as long as it runs. Its end is counted (`foresail_metad_overtime_total`).

use std::sync::Arc;

use foresail_schemas::ErrorCode;

use super::reply::Failure;
use super::take::App;
use crate::meter::add;
use crate::world::World;

/// Longest text that is parsed between two other requests (about 0.3 ms).
pub const INLINE_BYTES_MAX: usize = 32 << 10;

/// Runs `work` on the blocking pool when it is about more than [`INLINE_BYTES_MAX`] bytes, else here.
///
/// # Errors
/// Internal, when `work` panics on the pool.
pub async fn by_size<T: Send + 'static>(
    app: &App,
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    if bytes <= INLINE_BYTES_MAX {
        return Ok(work());
    }
    blocking(app, work).await
}

/// Runs `work` on the blocking pool.
///
/// # Errors
/// Internal, when `work` panics.
pub async fn blocking<T: Send + 'static>(
    app: &App,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let asking = Arc::new(());
    let (asker, counted) = (Arc::downgrade(&asking), Arc::clone(app));
    let task = tokio::task::spawn_blocking(move || {
        let is_alone = || asker.strong_count() == 0;
        let made = (!is_alone()).then(work);
        if is_alone() {
            add(&counted.meter.overtime, 1);
        }
        made
    });
    let made = task.await.map_err(|e| Failure::new(ErrorCode::Internal, e.to_string()))?;
    drop(asking);
    made.ok_or_else(|| Failure::new(ErrorCode::Internal, "work was left out while its request waited for it"))
}

/// Answers what is cold, once there is a place: with `warm` where it is warm by then, else with `answer` on
/// the blocking pool.
///
/// # Errors
/// Internal, when `answer` panics.
pub async fn cold<T: Send + 'static>(
    app: &App,
    warm: impl Fn(&World) -> Option<T>,
    answer: impl FnOnce(&World) -> T + Send + 'static,
) -> Result<T, Failure> {
    let closed = |_| Failure::new(ErrorCode::Internal, "the places of cold questions are closed");
    let place = Arc::clone(&app.cold).acquire_owned().await.map_err(closed)?;
    let world = app.world.load_full();
    if let Some(made) = warm(&world) {
        return Ok(made);
    }
    add(&app.meter.cold, 1);
    let work = move || {
        let made = answer(&world);
        drop(place);
        made
    };
    blocking(app, work).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;

    use futures_util::FutureExt;

    use super::*;
    use crate::board::Boards;
    use crate::settings::Settings;
    use crate::shared::{COLD_MAX, Shared};
    use crate::store::testing;

    fn app() -> App {
        let (_, store) = testing::in_memory();
        Shared::new(Settings::default(), store, World::default(), Boards::default()).0
    }

    #[test]
    fn work_whose_request_has_gone_keeps_its_place_until_it_ends_and_is_counted() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (app, (go, wait)) = (app(), mpsc::channel::<()>());
        runtime.block_on(async {
            let begun = Box::pin(cold(&app, |_| None, move |_| wait.recv().is_ok()));
            assert!(begun.now_or_never().is_none(), "it was begun and is dropped under way");
            assert_eq!(app.cold.available_permits(), COLD_MAX - 1);
            assert_eq!(app.meter.overtime.load(Ordering::Relaxed), 0);
            go.send(()).unwrap_or_default();
            // All places: this waits for the end of the work.
            let all = app.cold.acquire_many(COLD_MAX as u32).await.unwrap();
            drop(all);
            blocking(&app, || ()).await.unwrap();
        });
        drop(runtime);
        assert_eq!(app.meter.overtime.load(Ordering::Relaxed), 1);
        assert_eq!(app.meter.cold.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn work_whose_request_has_gone_before_its_turn_is_not_begun() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let (app, (go, wait), ran) = (app(), mpsc::channel::<()>(), Arc::new(AtomicBool::new(false)));
        let holder = runtime.spawn_blocking(move || wait.recv());
        runtime.block_on(async {
            let ran = Arc::clone(&ran);
            let waits = Box::pin(blocking(&app, move || ran.store(true, Ordering::Relaxed)));
            assert!(waits.now_or_never().is_none());
            go.send(()).unwrap();
            holder.await.unwrap().unwrap();
            blocking(&app, || ()).await.unwrap();
        });
        assert!(!ran.load(Ordering::Relaxed));
        assert_eq!(app.meter.overtime.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn cold_questions_wait_for_a_place_and_warm_ones_are_answered_without_a_thread() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let (app, (go, wait)) = (app(), mpsc::channel::<()>());
        let holder = runtime.spawn_blocking(move || wait.recv());
        runtime.block_on(async {
            assert!(Box::pin(cold(&app, |_| Some(()), |_| ())).now_or_never().is_some());
            let all = app.cold.acquire_many(COLD_MAX as u32).await.unwrap();
            assert!(Box::pin(cold(&app, |_| Some(()), |_| ())).now_or_never().is_none());
            drop(all);
            assert!(Box::pin(cold(&app, |_| None, |_| ())).now_or_never().is_none());
            go.send(()).unwrap();
            holder.await.unwrap().unwrap();
            cold(&app, |_| None, |_| ()).await.unwrap();
        });
    }
}

//! What list scheduling knows of each task and of each object, in rows that lie in one cache line: a large
//! schedule waits for memory, so that what is asked together stands together.

use crate::dense::{NONE, fetch};
use crate::tracks::Tracks;

/// Copies of one object that are remembered.
const COPIES_MAX: usize = 8;

/// Copies of an object beyond its maker's: those first that were first, then [`NONE`].
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
pub(super) struct Copies {
    pub tracks: [u32; COPIES_MAX],
}

impl Copies {
    pub const NOWHERE: Self = Self { tracks: [NONE; COPIES_MAX] };

    pub fn tracks(&self) -> impl Iterator<Item = u32> {
        self.tracks.iter().copied().take_while(|&track| track != NONE)
    }

    /// One more, unless there are too many to remember.
    pub fn add(&mut self, track: u32) {
        if let Some(free) = self.tracks.iter_mut().find(|track| **track == NONE) {
            *free = track;
        }
    }
}

/// Where a task is placed. In one row, since its children ask for all of it.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
pub(super) struct Placed {
    pub end_ms: f64,
    pub track: u32,
    pub worker: u32,
    pub size: u32,
    pub rank: u32,
    /// Parents that are not placed.
    pub missing: u32,
}

/// A task that is not placed yet.
pub(super) const NOT_PLACED: Placed =
    Placed { end_ms: 0.0, track: NONE, worker: NONE, size: 0, rank: 0, missing: 0 };

impl Tracks<'_, '_> {
    /// Asks for what is needed about a task that comes some time after so many others.
    #[inline(always)]
    pub(super) fn look_ahead(&self, placed: usize) {
        let plane = self.plane;
        let Some(later) = plane.dense.later(placed) else { return };
        plane.look_at(later);
        fetch(&self.placed, later as usize);
        fetch(plane.dense.graph.parents(later), 0);
        if let Some(object) = plane.dense.look_at(later) {
            fetch(&self.copies, object);
        }
    }
}

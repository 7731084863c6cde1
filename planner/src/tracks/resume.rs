//! List scheduling of what is left of a run: containers of living workers are tracks that hold what is in
//! their memory, and nothing begins before now. Of what was made before a worker does not know under the new
//! plan that it was made there, so that whatever reads it waits for its lease.

use std::cmp::Reverse;

use crate::dense::NONE;
use crate::standing::{Stage, Standing};
use crate::tracks::Tracks;

impl Tracks<'_, '_> {
    /// Brings everything to where the run stands.
    pub(super) fn resume(&mut self, standing: &Standing) {
        let dense = self.plane.dense;
        self.workers = standing.workers;
        let first = self.tracks.len() as u32;
        for living in &standing.living {
            let start_ms = if living.is_up { 0.0 } else { dense.startup_ms(living.size, true) };
            let free_ms = standing.now_ms.max(living.start_ms + start_ms);
            let track = self.add_track(living.size, free_ms);
            let at = &mut self.tracks[track as usize];
            (at.worker, at.worker_from_ms) = (living.worker, living.start_ms);
            for &object in &living.objects {
                self.copies[object as usize].add(track);
            }
        }
        for (t, stage) in (0..).zip(&standing.tasks) {
            let (track, end_ms) = match *stage {
                Stage::Open => continue,
                Stage::Done { end_ms, .. } => (NONE, end_ms),
                Stage::Running { living, computed_ms, .. } => {
                    let track = first + living;
                    self.placed[t as usize].worker = standing.living[living as usize].worker;
                    let at = &mut self.tracks[track as usize];
                    let end_ms = (computed_ms + dense.upload_ms(at.size, t)).max(standing.now_ms);
                    if end_ms > at.free_ms || at.is_idle {
                        (at.free_ms, at.last_task, at.is_idle) = (end_ms, t, false);
                    }
                    (track, end_ms)
                }
            };
            let placed = &mut self.placed[t as usize];
            (placed.track, placed.end_ms) = (track, end_ms);
            dense.graph.children(t).iter().for_each(|&c| self.placed[c as usize].missing -= 1);
        }
        for track in first..self.tracks.len() as u32 {
            let at = &self.tracks[track as usize];
            if dense.is_pool(at.size) {
                continue;
            }
            // Until it has left, a worker that only waits has a place too.
            self.tracks[track as usize].is_idle = false;
            let at = &self.tracks[track as usize];
            self.busy[at.size as usize].push(Reverse((at.free_ms.to_bits(), track, at.uses)));
            self.busy_count += 1;
        }
        for t in 0..dense.len() {
            if !standing.has_begun(t) && self.placed[t as usize].missing == 0 {
                let ends = dense.graph.parents(t).iter().map(|&p| self.placed[p as usize].end_ms);
                let ready_ms = ends.fold(standing.now_ms, f64::max);
                self.make_ready(t, ready_ms);
            }
        }
    }
}

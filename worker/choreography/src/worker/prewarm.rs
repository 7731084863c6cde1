//! Pre-warm: workers that this one starts some time after a task of its own has begun.
//!
//! The planner hangs a start on a task that runs at that time, so nothing waits for it: what is not due when
//! the invocation leaves is dropped, and a worker starts cold that would have started warm.

use foresail_schemas::config::ResourceConfig;

use crate::plan_view::TimedStart;
use crate::protocol::Action;

/// Starts whose time has not come; bounded by the plan.
#[derive(Debug, Clone, Default)]
pub(super) struct PreWarms {
    due: Vec<(f64, ResourceConfig)>,
}

impl PreWarms {
    /// The clock of these starts begins.
    pub fn begin(&mut self, starts: &[TimedStart], now_ms: f64) {
        self.due.extend(starts.iter().map(|start| (now_ms + start.delay_ms, start.config)));
    }

    pub fn start_due(&mut self, now_ms: f64, out: &mut Vec<Action>) {
        let due = self.due.extract_if(.., |(at, _)| *at <= now_ms);
        out.extend(due.map(|(_, config)| Action::PreWarm { config }));
    }

    pub fn clear(&mut self) {
        self.due.clear();
    }

    /// When the next is due.
    pub fn next_ms(&self) -> Option<f64> {
        self.due.iter().map(|(at, _)| *at).reduce(f64::min)
    }
}

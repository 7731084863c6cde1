//! What no plan can beat that goes on from where a run stands.
//!
//! Nothing that is open begins before now, and a task that runs may be overtaken by a copy. Every task takes
//! its least time on any size; what has been spent is spent.

use crate::dense::Dense;
use crate::standing::{Stage, Standing};

/// Least makespan in ms, from the start of the run, and least cost in USD of the whole run.
pub(crate) fn residual(dense: &Dense, standing: &Standing) -> (f64, f64) {
    let mut end_ms = vec![0.0_f64; dense.len() as usize];
    let (mut last_ms, mut usd) = (0.0_f64, standing.spent_usd);
    for &t in dense.graph.order() {
        let end = match standing.tasks[t as usize] {
            Stage::Done { end_ms, .. } => end_ms,
            stage => {
                let sizes = 0..dense.size_count();
                let (mut run_ms, mut code_usd) = (f64::INFINITY, f64::INFINITY);
                for c in sizes {
                    let exec_ms = dense.exec_ms(c, t);
                    run_ms = run_ms.min(exec_ms + dense.upload_ms(c, t));
                    code_usd = code_usd.min(exec_ms * dense.size(c).usd_per_ms);
                }
                let parents = dense.graph.parents(t).iter().map(|&p| end_ms[p as usize]);
                let from_ms = parents.fold(standing.now_ms, f64::max);
                match stage {
                    Stage::Running { computed_ms, .. } => {
                        computed_ms.clamp(standing.now_ms, standing.now_ms + run_ms)
                    }
                    _ => {
                        usd += code_usd / f64::from(dense.lanes);
                        from_ms + run_ms
                    }
                }
            }
        };
        end_ms[t as usize] = end;
        last_ms = last_ms.max(end);
    }
    (last_ms + dense.dispatch_ms / 2.0, usd)
}

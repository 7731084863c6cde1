//! What the driver of an invocation keeps of what happens: measurements of tasks, transfers, decisions and of
//! the engine itself.

use foresail_choreography::Event;
use foresail_schemas::metric::{Forecast, Record, TaskRecord, TransferRecord};
use foresail_schemas::plan::Plan;
use foresail_schemas::run::Measured;
use foresail_schemas::{ResourceConfig, TaskName};
use jiff::Timestamp;

use super::{Driver, Running, UnderWay};
use crate::data::Transfer;
use crate::metrics::Recorder;
use crate::runtime::engine::{Stored, lane_ms};

impl Driver {
    /// Keeps what an event says besides what the machine makes of it.
    pub(super) fn note_event(&self, event: &Event, under_way: &mut UnderWay, recorder: &mut Recorder) {
        match event {
            Event::Computed { task, .. } => {
                if let Some(running) = under_way.running.get_mut(task) {
                    running.stored = Stored::Meanwhile;
                    under_way.engine.freed(self.clock.now_ms());
                }
            }
            Event::Held { task, attempt, executed } => {
                let forecast = self.note_end(*task, Some(&executed.measured), under_way);
                recorder.record(self.task_record(*task, *attempt, &executed.measured, forecast));
                under_way.held.insert(*task, executed.clone());
                self.record_transfers(recorder);
            }
            Event::Executed { task, attempt, outcome } => {
                let measured = outcome.as_ref().ok().map(|executed| &executed.measured);
                let forecast = self.note_end(*task, measured, under_way);
                // What was held is measured already.
                let was_held = under_way.held.remove(task).is_some();
                if let (Ok(executed), false) = (outcome, was_held) {
                    recorder.record(self.task_record(*task, *attempt, &executed.measured, forecast));
                }
                self.record_transfers(recorder);
            }
            Event::Answered { request, answer } => {
                under_way.engine.answered(*request, self.clock.now_ms());
                let decided = under_way.decided.remove(request).unwrap_or_default();
                decided.standing(answer).for_each(|record| recorder.record(record));
            }
            Event::PlanRead { epoch, plan } => {
                under_way.newer_plan = Some((*epoch, Plan::clone(plan)));
            }
            _ => {}
        }
        recorder.send_early();
    }

    /// An attempt does not run any more; gives what its plan said of it.
    fn note_end(&self, task: u32, measured: Option<&Measured>, under_way: &mut UnderWay) -> Option<Forecast> {
        let Running { stored, forecast, .. } = under_way.running.remove(&task)?;
        if stored == Stored::InTheLane {
            under_way.engine.freed(self.clock.now_ms());
        }
        match measured {
            Some(measured) => under_way.engine.measured(lane_ms(measured, stored)),
            None => under_way.engine.failed(),
        }
        forecast
    }

    /// Gives an attempt up.
    pub(super) fn abort(&self, task: u32, under_way: &mut UnderWay) {
        under_way.running.get(&task).into_iter().for_each(|running| running.cancel.set());
        self.note_end(task, None, under_way);
    }

    fn task_record(
        &self,
        task: u32,
        attempt: u32,
        measured: &Measured,
        forecast: Option<Forecast>,
    ) -> Record {
        let config = self.invocation.config;
        Record::Task(TaskRecord {
            task: self.workflow.task(task).name.clone(),
            memory_mb: config.memory_mb,
            vcpu: config.vcpu,
            input_bytes: measured.input_bytes,
            output_bytes: Some(measured.output_bytes),
            exec_ms: measured.exec_ms,
            peak_memory_mb: Some(measured.peak_memory_mb).filter(|mb| *mb > 0.0),
            // A copy took as long as a first attempt does.
            attempt: attempt.max(1),
            at: Some(Timestamp::now()),
            forecast,
        })
    }

    pub(super) fn record_transfers(&self, recorder: &mut Recorder) {
        let config = self.invocation.config;
        for Transfer { direction, bytes, time_ms, store } in self.data.take_transfers() {
            recorder.record(Record::Transfer(TransferRecord {
                direction,
                bytes,
                time_ms,
                memory_mb: config.memory_mb,
                vcpu: config.vcpu,
                store: TaskName::new(store).ok(),
                at: Some(Timestamp::now()),
            }));
        }
    }
}

/// What the plan predicted for a task on workers of this size; nothing where it planned another size.
pub(super) fn forecast(plan: &Plan, task: u32, config: ResourceConfig) -> Option<Forecast> {
    let planned = plan.tasks.get(task as usize).filter(|planned| planned.config.key() == config.key())?;
    planned.forecast
}

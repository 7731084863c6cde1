//! What the engine itself takes, as one invocation sees it: means over the invocation, so that they cost two
//! records however many tasks it ran.
//!
//! *Lane*: the time that attempts hold lanes, from being given to the driver until their end is known to it,
//! beside downloads, code and uploads. Counted is only while there is an attempt for the lane: waiting for
//! the run's state is another matter. *State*: round trips to the run's state on which the worker waits with
//! nothing else to do. Times in ms of the clock of the machine.

use std::collections::HashMap;

use foresail_schemas::metric::{
    Direction, Record, STORE_OF_INIT, STORE_OF_LANES, STORE_OF_STATE, TransferRecord,
};
use foresail_schemas::run::Measured;
use foresail_schemas::{ResourceConfig, TaskName};
use jiff::Timestamp;

/// The sums of one invocation.
#[derive(Debug)]
pub(super) struct Engine {
    lanes: u32,
    /// Attempts that hold a lane or wait for one.
    busy: u32,
    since_ms: f64,
    held_ms: f64,
    measured_ms: f64,
    attempts: u32,
    /// Whether some attempt has no measurements: then what lanes were held for is not known.
    is_spoiled: bool,
    /// When the request was sent that is waited for, by its number.
    asked: HashMap<u64, f64>,
    waited_ms: f64,
    trips: u32,
}

impl Engine {
    pub fn new(lanes: u32) -> Self {
        Self {
            lanes: lanes.max(1),
            busy: 0,
            since_ms: 0.0,
            held_ms: 0.0,
            measured_ms: 0.0,
            attempts: 0,
            is_spoiled: false,
            asked: HashMap::new(),
            waited_ms: 0.0,
            trips: 0,
        }
    }

    fn pass(&mut self, now_ms: f64) {
        self.held_ms += f64::from(self.busy.min(self.lanes)) * (now_ms - self.since_ms).max(0.0);
        self.since_ms = now_ms;
    }

    /// An attempt is given to the lanes.
    pub fn begun(&mut self, now_ms: f64) {
        self.pass(now_ms);
        self.busy += 1;
        // Whoever has work does not wait for the state.
        self.asked.clear();
    }

    /// An attempt has given its lane back: it has ended, or its outputs are stored meanwhile.
    pub fn freed(&mut self, now_ms: f64) {
        self.pass(now_ms);
        self.busy = self.busy.saturating_sub(1);
    }

    /// What an attempt took; `lane_ms` of it held the lane.
    pub fn measured(&mut self, lane_ms: f64) {
        self.measured_ms += lane_ms;
        self.attempts += 1;
    }

    /// An attempt has ended of which nothing is known.
    pub fn failed(&mut self) {
        self.is_spoiled = true;
    }

    /// A request to the run's state is sent.
    pub fn asked(&mut self, request: u64, now_ms: f64) {
        if self.busy == 0 {
            self.asked.insert(request, now_ms);
        }
    }

    /// It is answered.
    pub fn answered(&mut self, request: u64, now_ms: f64) {
        if let Some(sent_ms) = self.asked.remove(&request) {
            self.waited_ms += (now_ms - sent_ms).max(0.0);
            self.trips += 1;
        }
    }

    /// The means as measurements.
    pub fn records(&self, config: ResourceConfig) -> Vec<Record> {
        let mean = |sum_ms: f64, count: u32| (count > 0).then(|| sum_ms.max(0.0) / f64::from(count));
        let lane_ms = mean(self.held_ms - self.measured_ms, self.attempts).filter(|_| !self.is_spoiled);
        let state_ms = mean(self.waited_ms, self.trips);
        let record = |(way, time_ms): (&str, Option<f64>)| record(config, way, time_ms?);
        [(STORE_OF_LANES, lane_ms), (STORE_OF_STATE, state_ms)].into_iter().filter_map(record).collect()
    }
}

/// What the start of a worker took before anything was asked of it.
pub(super) fn init_record(config: ResourceConfig, init_ms: f64) -> Option<Record> {
    record(config, STORE_OF_INIT, init_ms)
}

/// A way inside the engine, as a transfer of 0 bytes.
fn record(config: ResourceConfig, way: &str, time_ms: f64) -> Option<Record> {
    Some(Record::Transfer(TransferRecord {
        direction: Direction::Upload,
        bytes: 0,
        time_ms,
        memory_mb: config.memory_mb,
        vcpu: config.vcpu,
        store: Some(TaskName::new(way).ok()?),
        at: Some(Timestamp::now()),
    }))
}

/// What of the times of an attempt held its lane.
pub(super) fn lane_ms(measured: &Measured, stored_meanwhile: Stored) -> f64 {
    let upload_ms = match stored_meanwhile {
        Stored::InTheLane => measured.upload_ms,
        Stored::Meanwhile => 0.0,
    };
    measured.download_ms + measured.exec_ms + upload_ms
}

/// Where the outputs of an attempt were stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// While it held its lane.
    InTheLane,
    /// While the next attempt ran.
    Meanwhile,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(engine: &Engine) -> Vec<(String, f64)> {
        let config = ResourceConfig { memory_mb: 1769, vcpu: None };
        let records = engine.records(config).into_iter();
        records
            .map(|record| match record {
                Record::Transfer(r) => (r.store.unwrap().to_string(), r.time_ms),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn what_lanes_are_held_beyond_the_measurements_is_the_engines() {
        let mut engine = Engine::new(1);
        // Two that wait for one lane: 10 ms are held, 8 of them measured.
        engine.begun(0.0);
        engine.begun(1.0);
        engine.freed(5.0);
        engine.measured(4.0);
        engine.freed(10.0);
        engine.measured(4.0);
        // Then there is nothing to do for a while.
        engine.begun(100.0);
        engine.freed(104.0);
        engine.measured(3.0);
        assert_eq!(times(&engine), [(STORE_OF_LANES.to_owned(), 1.0)]);
        engine.failed();
        assert_eq!(times(&engine), [], "an attempt without measurements spoils the sum");
    }

    #[test]
    fn lanes_count_each_and_no_more_than_there_are() {
        let mut engine = Engine::new(2);
        (0..3).for_each(|_| engine.begun(0.0));
        for _ in 0..3 {
            engine.freed(6.0);
            engine.measured(3.0);
        }
        assert_eq!(times(&engine), [(STORE_OF_LANES.to_owned(), 1.0)]);
    }

    #[test]
    fn only_answers_that_nobody_could_work_before_are_waited_for() {
        let mut engine = Engine::new(1);
        engine.asked(1, 0.0);
        engine.answered(1, 2.0);
        engine.asked(2, 2.0);
        engine.begun(3.0);
        engine.answered(2, 50.0);
        engine.asked(3, 50.0);
        engine.freed(51.0);
        engine.answered(3, 90.0);
        engine.asked(4, 100.0);
        engine.answered(4, 104.0);
        assert_eq!(times(&engine), [(STORE_OF_STATE.to_owned(), 3.0)]);
        assert_eq!(times(&Engine::new(1)), [], "nothing measured is no measurement of 0");
    }

    #[test]
    fn an_upload_counts_where_it_kept_the_lane() {
        let measured = Measured { download_ms: 1.0, exec_ms: 2.0, upload_ms: 4.0, ..Measured::default() };
        assert_eq!(lane_ms(&measured, Stored::InTheLane), 7.0);
        assert_eq!(lane_ms(&measured, Stored::Meanwhile), 3.0);
    }
}

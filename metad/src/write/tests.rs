//! The writer and the learner over stores in memory, one of which fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use foresail_model::SavedTask;
use foresail_schemas::metric::{BatchAnswer, Record, Rejected, StartState, StartupRecord, TaskRecord};
use foresail_schemas::run::{Operation, OperationResult, Resume, RunStatus};
use foresail_schemas::{ErrorCode, Problem, RunId, TaskName, examples};
use jiff::Timestamp;

use super::{Command, Ingest, NewRun, Writer};
use crate::board::Recent;
use crate::recover::{Recovered, recover};
use crate::settings::Settings;
use crate::shared::Shared;
use crate::store::batches::StoredBatch;
use crate::store::models::{self, Former, Piece, Saved};
use crate::store::{self, StoreReader, StoreWriter, crash_tests, testing};

struct Rig {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    runtime: tokio::runtime::Runtime,
}

impl Rig {
    fn new(writer: StoreWriter, reader: StoreReader, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::default();
        change(&mut settings);
        let Recovered { world, boards, catalog, models, runs, .. } = recover(&reader).unwrap();
        let (shared, queue) = Shared::new(settings, reader, world, boards);
        let writer = Writer::spawn(Arc::clone(&shared), writer, queue, catalog, models, runs).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { shared, writer: Some(writer), runtime }
    }

    fn ingest(&self, batch: Ingest) -> Result<BatchAnswer, Problem> {
        self.runtime.block_on(self.shared.change(|reply| Command::Ingest(Box::new(batch), reply)))
    }

    fn stop(&mut self) {
        self.shared.stop_writer();
        self.writer.take().unwrap().join().unwrap();
    }
}

fn batch(workflow: &str, id: &str, exec_ms: f64) -> Ingest {
    let task = TaskRecord {
        task: TaskName::new("count").unwrap(),
        memory_mb: 1769,
        vcpu: None,
        input_bytes: 1000,
        output_bytes: Some(10),
        exec_ms,
        peak_memory_mb: None,
        attempt: 1,
        at: None,
        forecast: None,
    };
    let start =
        StartupRecord { state: StartState::Cold, time_ms: exec_ms, memory_mb: 1769, vcpu: None, at: None };
    let rejected = Rejected { index: 2, code: ErrorCode::InvalidRecord, detail: "bad".into() };
    Ingest {
        workflow: workflow.parse().unwrap(),
        batch_id: id.parse().unwrap(),
        run: None,
        worker: None,
        arrival: Timestamp::from_second(1_700_000_000 + exec_ms as i64).unwrap(),
        records: vec![Record::Task(task), Record::Startup(start)],
        rejected: vec![(rejected, serde_json::json!("x"))],
        place: None,
    }
}

fn new_run() -> NewRun {
    let request = examples::run_request();
    NewRun {
        run: request.run,
        workflow_json: serde_json::to_vec(&request.workflow).unwrap(),
        plan_json: serde_json::to_vec(&request.plan).unwrap(),
        workflow: request.workflow,
        plan: request.plan,
        options: request.options,
        resume: request.resume,
    }
}

#[test]
fn after_a_failed_commit_nothing_is_taken_and_nothing_of_it_is_seen() {
    let (writer, reader, fails) = testing::failing();
    let mut rig = Rig::new(writer, reader, |_| {});
    assert_eq!(rig.ingest(batch("w", "b-1", 5.0)).unwrap().accepted, 2);
    fails.store(true, Ordering::SeqCst);
    assert_eq!(rig.ingest(batch("w", "b-2", 6.0)).unwrap_err().code, ErrorCode::StoreFailed);
    assert_eq!(rig.shared.health.problem().unwrap().code, ErrorCode::StoreFailed);
    fails.store(false, Ordering::SeqCst);
    let late = rig.ingest(batch("w", "b-3", 7.0)).unwrap_err();
    assert_eq!(late.code, ErrorCode::StoreFailed, "memory may be ahead of the disk until a restart");
    let run = rig.runtime.block_on(rig.shared.change(|reply| Command::CreateRun(Box::new(new_run()), reply)));
    assert_eq!(run.unwrap_err().code, ErrorCode::StoreFailed);
    let world = rig.shared.world.load();
    assert_eq!((world.epoch, world.get("w").unwrap().row.batches), (1, 1));
    rig.stop();
}

#[test]
fn what_a_crash_leaves_gives_the_same_models_as_were_in_memory() {
    let (writer, reader) = testing::in_memory();
    let mut rig = Rig::new(writer, reader.clone(), |s| s.checkpoint_records = 7);
    for n in 0..30 {
        let workflow = ["a", "b"][n % 2];
        rig.ingest(batch(workflow, &format!("b-{n}"), n as f64)).unwrap();
        // As a crash would find it: checkpoints of some batches, raw values of the others, no orderly stop.
        let found = recover(&reader).unwrap();
        let world = rig.shared.world.load();
        assert_eq!(found.world.epoch, world.epoch);
        for view in world.views() {
            let again = found.world.get(view.name.as_str()).unwrap();
            assert_eq!((&again.row, &again.predictor), (&view.row, &view.predictor));
        }
    }
    rig.stop();
    assert!(reader.view().unwrap().saved_rest(0).unwrap().is_some_and(|c| c.sequence == 15));
}

#[test]
fn a_crash_with_changes_that_only_the_journal_has_loses_nothing_that_was_answered() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let (writer, reader) = store::open(directory.path()).unwrap();
        Rig::new(writer, reader, |s| s.journal_ms_max = 3_600_000)
    };
    let mut rig = open();
    rig.ingest(batch("a", "b-0", 3.0)).unwrap();
    // The stop writes a checkpoint, so that the rest comes on top of one.
    rig.stop();
    drop(rig.shared);
    let mut rig = open();
    let run = examples::run_request().run.unwrap();
    let create = rig.shared.change(|reply| Command::CreateRun(Box::new(new_run()), reply));
    rig.runtime.block_on(create).unwrap();
    for n in 1..12 {
        let id = format!("b-{n}");
        assert!(!rig.ingest(batch(["a", "b"][n % 2], &id, n as f64)).unwrap().duplicate);
        assert!(rig.ingest(batch(["a", "b"][n % 2], &id, n as f64)).unwrap().duplicate);
        let copy = crash_tests::copy(directory.path());
        let (_writer, reader) = store::open(copy.path()).unwrap();
        let found = recover(&reader).unwrap();
        let (world, boards) = (rig.shared.world.load(), rig.shared.boards.load());
        assert_eq!(found.world.epoch, world.epoch);
        for view in world.views() {
            let again = found.world.get(view.name.as_str()).unwrap();
            assert_eq!((&again.row, &again.predictor), (&view.row, &view.predictor));
        }
        let (shown, again) = (boards.get(&run).unwrap().summary(), found.boards.get(&run).unwrap().summary());
        assert_eq!((again.status, again.last_event), (shown.status, shown.last_event));
    }
    rig.stop();
}

#[test]
fn a_checkpoint_that_was_cut_off_is_completed_from_the_raw_batches() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, reader) = store::open(directory.path()).unwrap();
    let mut rig = Rig::new(writer, reader, |_| {});
    rig.ingest(batch("w", "b-1", 5.0)).unwrap();
    rig.stop();
    drop(rig.shared);
    let (writer, reader) = store::open(directory.path()).unwrap();
    let Ingest { arrival, records, .. } = batch("w", "b-2", 50.0);
    let stored = StoredBatch { batch_id: "b-2".into(), run: None, worker: None, arrival, records };
    let group = writer.begin().unwrap();
    group.put_batch(0, 2, &stored).unwrap();
    group.commit().unwrap();
    let mut whole = recover(&reader).unwrap().models.remove(0);
    assert_eq!((whole.sequence, whole.unsaved, whole.model.samples()), (2, 2, 4));
    // The task of a second checkpoint, but not the rest, which would have come with a later piece.
    let saved = |(name, task): (TaskName, SavedTask)| {
        (name, Saved { sequence: 2, part: postcard::to_allocvec(&task).unwrap() })
    };
    let tasks: Vec<_> = whole.model.take_changed().into_iter().map(saved).collect();
    assert_eq!(tasks.len(), 1);
    let group = writer.begin().unwrap();
    group.put_piece(&Piece { workflow: 0, former: Former::Kept, tasks, rest: None }).unwrap();
    group.commit().unwrap();
    assert_eq!(reader.view().unwrap().saved_rest(0).unwrap().unwrap().sequence, 1);
    let again = recover(&reader).unwrap().models.remove(0);
    assert!(again.model == whole.model, "the task took its second record twice or never");
}

#[test]
fn changes_that_wait_share_a_commit_and_all_are_answered() {
    let (writer, reader) = testing::in_memory();
    let Recovered { world, boards, catalog, models, runs, .. } = recover(&reader).unwrap();
    let (shared, queue) = Shared::new(Settings::default(), reader, world, boards);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let waiting: Vec<_> = (0..20)
        .map(|n| {
            let shared = Arc::clone(&shared);
            let batch = Box::new(batch("w", &format!("b-{}", n % 10), 1.0));
            runtime.spawn(async move { shared.change(|reply| Command::Ingest(batch, reply)).await })
        })
        .collect();
    // Lets every task put its change into the queue before the writer starts.
    runtime.block_on(async { tokio::task::yield_now().await });
    assert_eq!(shared.queue_depth(), 20);
    let writer = Writer::spawn(Arc::clone(&shared), writer, queue, catalog, models, runs).unwrap();
    let answers: Vec<_> = waiting.into_iter().map(|w| runtime.block_on(w).unwrap().unwrap()).collect();
    assert_eq!(answers.iter().filter(|a| a.duplicate).count(), 10);
    assert!(answers.iter().all(|a| a.epoch == 1 && a.accepted == 2), "one group is one epoch");
    shared.stop_writer();
    writer.join().unwrap();
    assert!(shared.meter.text(&crate::meter::Gauges::default()).contains("commit_seconds_count 2\n"));
}

#[test]
fn a_full_queue_is_overload_and_not_a_wait() {
    let (_writer, reader) = testing::in_memory();
    let Recovered { world, boards, .. } = recover(&reader).unwrap();
    let settings = Settings { queue_max: 1, ..Settings::default() };
    let (shared, _queue) = Shared::new(settings, reader, world, boards);
    shared.wake_writer();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let refused =
        runtime.block_on(shared.change(|reply| Command::Ingest(Box::new(batch("w", "b", 1.0)), reply)));
    let refused = refused.unwrap_err();
    assert_eq!((refused.code, refused.limit), (ErrorCode::Overloaded, Some(1)));
}

#[test]
fn a_finished_run_needs_no_ledger_until_somebody_asks_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, reader) = store::open(directory.path()).unwrap();
    let mut rig = Rig::new(writer, reader, |_| {});
    let created =
        rig.runtime.block_on(rig.shared.change(|reply| Command::CreateRun(Box::new(new_run()), reply)));
    let run = created.unwrap().run;
    let operate = |rig: &Rig, operation: Operation| {
        let change = rig.shared.change(|reply| Command::Operate(run.clone(), vec![operation], reply));
        rig.runtime.block_on(change).unwrap()
    };
    operate(&rig, Operation::Cancel { reason: "enough".into() });
    rig.stop();
    drop(rig.shared);
    let (writer, reader) = store::open(directory.path()).unwrap();
    let mut rig = Rig::new(writer, reader, |_| {});
    let shown = rig.shared.boards.load().get(&run).unwrap().summary();
    assert_eq!((shown.status, shown.failure.unwrap().message), (RunStatus::Cancelled, "enough".to_owned()));
    let late = operate(&rig, Operation::Cancel { reason: "late".into() });
    assert_eq!((late.status, &late.results[0]), (RunStatus::Cancelled, &OperationResult::RunOver));
    rig.stop();
}

#[test]
fn an_ended_run_is_brought_back_within_a_group_that_writes() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, reader) = store::open(directory.path()).unwrap();
    let mut rig = Rig::new(writer, reader, |_| {});
    let id = |n: usize| RunId::new(format!("r-{n}")).unwrap();
    let create = |n: usize, resume: Option<usize>| {
        let resume = resume.map(|n| Resume { run: id(n), without: Vec::new() });
        let new = Box::new(NewRun { run: Some(id(n)), resume, ..new_run() });
        move |reply| Command::CreateRun(new, reply)
    };
    let cancel = || vec![Operation::Cancel { reason: "enough".into() }];
    for n in [0, 1] {
        rig.runtime.block_on(rig.shared.change(create(n, None))).unwrap();
        let ended = rig.shared.change(|reply| Command::Operate(id(n), cancel(), reply));
        rig.runtime.block_on(ended).unwrap();
    }
    rig.stop();
    drop(rig.shared);
    let (writer, reader) = store::open(directory.path()).unwrap();
    let Recovered { world, boards, catalog, models, runs, .. } = recover(&reader).unwrap();
    let settings = Settings { group_max: 2, ..Settings::default() };
    let (shared, queue) = Shared::new(settings, reader, world, boards);
    // The first group is stored and not shown when the others, which write before they read, are applied.
    let mut created = Vec::new();
    for (n, resume) in [(2, None), (3, None), (4, None)] {
        let (shared, new) = (Arc::clone(&shared), create(n, resume));
        created.push(rig.runtime.spawn(async move { shared.change(new).await }));
    }
    let (asked, old) = (Arc::clone(&shared), id(0));
    let late = async move { asked.change(|reply| Command::Operate(old, cancel(), reply)).await };
    let late = rig.runtime.spawn(late);
    for (n, resume) in [(5, None), (6, Some(1))] {
        let (shared, new) = (Arc::clone(&shared), create(n, resume));
        created.push(rig.runtime.spawn(async move { shared.change(new).await }));
    }
    rig.runtime.block_on(async { tokio::task::yield_now().await });
    assert_eq!(shared.queue_depth(), 6);
    let writer = Writer::spawn(Arc::clone(&shared), writer, queue, catalog, models, runs).unwrap();
    for created in created {
        assert!(!rig.runtime.block_on(created).unwrap().unwrap().duplicate);
    }
    let late = rig.runtime.block_on(late).unwrap().unwrap();
    assert_eq!((late.status, &late.results[0]), (RunStatus::Cancelled, &OperationResult::RunOver));
    shared.stop_writer();
    writer.join().unwrap();
}

#[test]
fn a_run_under_an_id_that_retention_freed_keeps_its_ledger() {
    let (writer, reader) = testing::in_memory();
    let mut rig = Rig::new(writer, reader, |s| s.finished_runs_max = 1);
    let id = |n: usize| RunId::new(format!("r-{n}")).unwrap();
    let create = |n: usize| {
        let new = NewRun { run: Some(id(n)), ..new_run() };
        let change = rig.shared.change(|reply| Command::CreateRun(Box::new(new), reply));
        assert!(!rig.runtime.block_on(change).unwrap().duplicate);
    };
    let operate = |n: usize, operation: Operation| {
        let change = rig.shared.change(|reply| Command::Operate(id(n), vec![operation], reply));
        rig.runtime.block_on(change).unwrap().results.remove(0)
    };
    let finish = |n: usize| {
        create(n);
        operate(n, Operation::Cancel { reason: "enough".into() });
    };
    finish(0);
    finish(1);
    create(0);
    let worker = new_run().plan.workers.remove(0);
    let instance = Some("i-1".parse().unwrap());
    let join = Operation::Join {
        worker: Some(worker.id.clone()),
        instance: "i-1".parse().unwrap(),
        config: worker.config,
        start: StartState::Cold,
    };
    assert_eq!(operate(0, join), OperationResult::Joined { before: foresail_schemas::run::Before::Left });
    for n in 2..42 {
        finish(n);
    }
    let alive = operate(0, Operation::WhoIs { worker: worker.id });
    assert_eq!(alive, OperationResult::Instance { instance });
    // Events are forgotten together with the ledger.
    let recent = rig.shared.boards.load().get(&id(0)).unwrap().recent(0, 9);
    assert!(matches!(recent, Recent::Held(_)), "the ledger was let go and read again, without its leases");
    rig.stop();
}

/// What a start finds of task `a`, of task `b`, and altogether after one row was damaged, before which three
/// batches were learnt, the first of which retention dropped; and how many rows it finds damaged.
fn after_damage(task: Option<&str>) -> ((u64, u64, u64), u64) {
    let directory = tempfile::tempdir().unwrap();
    let open = || store::open(directory.path()).unwrap();
    let (writer, reader) = open();
    let mut rig = Rig::new(writer, reader, |_| {});
    for n in 1..4 {
        let mut batch = batch("w", &format!("b-{n}"), f64::from(n));
        batch.records.remove(1);
        batch.records.push(batch.records[0].clone());
        for (record, name) in batch.records.iter_mut().zip(["a", "b"]) {
            let Record::Task(task) = record else { unreachable!() };
            task.task = TaskName::new(name).unwrap();
        }
        rig.ingest(batch).unwrap();
    }
    rig.stop();
    drop(rig.shared);
    let (writer, reader) = open();
    let group = writer.begin().unwrap();
    assert_eq!(group.drop_oldest_batch(0, 3).unwrap(), Some(2));
    group.commit().unwrap();
    models::tests::damage(&writer, 0, task);
    let found = recover(&reader).unwrap();
    let samples = |found: &Recovered| {
        let predictor = &found.world.get("w").unwrap().predictor;
        let of = |name: &str| predictor.task_samples(&TaskName::new(name).unwrap());
        (of("a"), of("b"), predictor.samples())
    };
    let (first, damaged) = (samples(&found), found.damaged_rows);
    // The next checkpoint mends the row.
    let mut rig = Rig::new(writer, reader, |_| {});
    rig.stop();
    drop(rig.shared);
    let again = recover(&open().1).unwrap();
    assert_eq!((samples(&again), again.damaged_rows), (first, 0));
    (first, damaged)
}

#[test]
fn a_damaged_row_of_a_model_costs_what_only_it_knew() {
    assert_eq!(after_damage(Some("b")), ((3, 2, 6), 1), "the other task knows what the dropped batch said");
    assert_eq!(after_damage(None), ((3, 3, 4), 1), "all tasks know it, the sum is that of the kept batches");
}

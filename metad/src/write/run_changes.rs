//! What is done to runs: create, operate, re-plan, blobs.

use std::sync::atomic::{AtomicU64, Ordering};

use foresail_schemas::run::{Operation, OperationAnswer, RunCreated, RunStatus};
use foresail_schemas::{ErrorCode, Problem, RunId, WorkflowName};
use jiff::Timestamp;

use super::live_runs::LiveRun;
use super::{Group, Mirrored, NewPlan, NewRun, Reply, Runs, Standing};
use crate::meter::add;
use crate::shared::{Shared, overloaded};
use crate::store::StoreError;
use crate::store::documents::SUGGESTED;
use crate::store::runs::RunHeader;

/// Longest part of a run id that comes from the name of the workflow, in bytes.
const ID_STEM_MAX: usize = 200;

impl Runs {
    /// Starts keeping a run, unless it is there.
    pub(super) fn create(
        &mut self,
        new: NewRun,
        reply: Reply<RunCreated>,
        group: &mut Group,
        shared: &Shared,
    ) -> Result<(), StoreError> {
        if let Some(id) = &new.run
            && let Ok(run) = self.get(id, group, shared)?
        {
            let result = repeated(run, &new, group)?;
            group.answer(reply, result);
            return Ok(());
        }
        let limit = shared.settings.running_runs_max;
        if self.running() as u64 >= limit {
            group.answer(reply, Err(overloaded("too many runs have not ended; cancel some", limit)));
            return Ok(());
        }
        let taken = match &new.resume {
            Some(resume) => match self.take_over(resume, &new.workflow, group, shared)? {
                Ok(taken) => Some(taken),
                Err(problem) => {
                    group.answer(reply, Err(problem));
                    return Ok(());
                }
            },
            None => None,
        };
        let id = new.run.clone().unwrap_or_else(|| self.choose_id(new.workflow.name(), shared));
        self.last_number += 1;
        let number = self.last_number;
        let header = RunHeader {
            run: id.clone(),
            workflow: new.workflow.name().clone(),
            tasks: new.workflow.tasks().len() as u64,
            created_at: Timestamp::now(),
            options: new.options,
            planner: new.plan.planner.clone(),
            predicted: new.plan.predicted,
            resume: new.resume,
        };
        let writes = group.writes()?;
        writes.put_run(number, &header)?;
        writes.put_workflow_document(number, &new.workflow_json)?;
        writes.put_plan_document(number, 1, &new.plan_json)?;
        let reused = taken.as_ref().map_or(0, |taken| taken.results.len() as u64);
        if let Some(taken) = &taken {
            taken.copy_blobs(number, group)?;
        }
        self.live.insert(id.clone(), LiveRun::begin(number, header, new.workflow, taken));
        self.touched.insert(id.clone());
        self.created.push(id.clone());
        group.answer(reply, Ok(RunCreated { run: id, duplicate: false, reused }));
        Ok(())
    }

    /// `{workflow}-{ms since 1970 in base 36}-{counter}`; the counter keeps ids of the same ms apart.
    fn choose_id(&self, workflow: &WorkflowName, shared: &Shared) -> RunId {
        static COUNTER: AtomicU64 = AtomicU64::new(1);
        let stem = &workflow.as_str()[..workflow.as_str().len().min(ID_STEM_MAX)];
        let ms = base36(Timestamp::now().as_millisecond().unsigned_abs());
        loop {
            let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
            let id = RunId::new(format!("{stem}-{ms}-{counter}"))
                .expect("a workflow's name begins as a run's may, and is cut before it gets too long");
            if !self.live.contains_key(&id) && !shared.boards.load().contains_key(&id) {
                return id;
            }
        }
    }

    /// Applies operations in order.
    pub(super) fn operate(
        &mut self,
        id: &RunId,
        operations: &[Operation],
        reply: Reply<OperationAnswer>,
        group: &mut Group,
        shared: &Shared,
    ) -> Result<(), StoreError> {
        let run = match self.get(id, group, shared)? {
            Ok(run) => run,
            Err(problem) => {
                group.answer(reply, Err(problem));
                return Ok(());
            }
        };
        let now_ms = run.clock.now_ms();
        let mut results = Vec::with_capacity(operations.len());
        for operation in operations {
            let (result, events) = run.ledger.apply(operation, now_ms);
            run.staged.extend(events);
            results.push(result);
        }
        add(&shared.meter.operations, operations.len() as u64);
        let (status, plan_epoch) = (run.ledger.status(), run.ledger.plan_epoch());
        self.touched.insert(id.clone());
        group.answer(reply, Ok(OperationAnswer { status, plan_epoch, results }));
        Ok(())
    }

    /// Takes a plan if the one in force is still the one expected.
    pub(super) fn replan(
        &mut self,
        new: NewPlan,
        reply: Reply<u64>,
        group: &mut Group,
        shared: &Shared,
    ) -> Result<(), StoreError> {
        let run = match self.get(&new.run, group, shared)? {
            Ok(run) => run,
            Err(problem) => {
                group.answer(reply, Err(problem));
                return Ok(());
            }
        };
        let result = take_plan(run, &new, group)?;
        if result.is_ok() {
            self.touched.insert(new.run);
        }
        group.answer(reply, result);
        Ok(())
    }

    /// Takes what was decided elsewhere. It counts as a sign of the run also where it is nothing.
    pub(super) fn mirror(
        &mut self,
        mirrored: Mirrored,
        reply: Reply<()>,
        group: &mut Group,
        shared: &Shared,
    ) -> Result<(), StoreError> {
        let Mirrored { run: id, events, plans } = mirrored;
        let run = match self.get(&id, group, shared)? {
            Ok(run) => run,
            Err(problem) => {
                group.answer(reply, Err(problem));
                return Ok(());
            }
        };
        for event in events {
            if event.seq == run.ledger.last_seq() + 1 {
                run.ledger.replay(&event);
                run.staged.push(event);
            }
        }
        for plan in &plans {
            keep_plan(run, plan, plan.expected_epoch + 1, group)?;
        }
        self.touched.insert(id);
        group.answer(reply, Ok(()));
        Ok(())
    }

    /// Stores a blob.
    pub(super) fn put_blob(
        &mut self,
        id: &RunId,
        key: &str,
        content: &[u8],
        reply: Reply<()>,
        group: &mut Group,
        shared: &Shared,
    ) -> Result<(), StoreError> {
        let result = match self.get(id, group, shared)? {
            Err(problem) => Err(problem),
            Ok(run) => {
                let limit = shared.settings.run_blob_bytes_max;
                if group.writes()?.put_blob(run.number, key, content, limit)? {
                    Ok(())
                } else {
                    let detail = format!(
                        "with blob `{key}` the blobs of run `{id}` would have more than {limit} bytes"
                    );
                    Err(Problem::new(ErrorCode::TooLarge, detail).with_limit(limit))
                }
            }
        };
        group.answer(reply, result);
        Ok(())
    }

    /// Removes a blob.
    pub(super) fn drop_blob(
        &mut self,
        id: &RunId,
        key: &str,
        reply: Reply<()>,
        group: &mut Group,
        shared: &Shared,
    ) -> Result<(), StoreError> {
        let result = match self.get(id, group, shared)? {
            Err(problem) => Err(problem),
            Ok(run) => {
                group.writes()?.drop_blob(run.number, key)?;
                Ok(())
            }
        };
        group.answer(reply, result);
        Ok(())
    }
}

/// Whether a run that is there is the one that is asked for again.
fn repeated(
    run: &LiveRun,
    new: &NewRun,
    group: &mut Group,
) -> Result<Result<RunCreated, Problem>, StoreError> {
    let writes = group.writes()?;
    let same = run.header.options == new.options
        && run.header.resume == new.resume
        && writes.workflow_document(run.number)?.is_some_and(|d| d == new.workflow_json)
        && writes.plan_document(run.number, 1)?.is_some_and(|d| d == new.plan_json);
    let (run, reused) = (run.header.run.clone(), run.ledger.reused());
    Ok(match same {
        true => Ok(RunCreated { run, duplicate: true, reused }),
        false => {
            let detail = format!("run `{run}` is there with another workflow, plan or other options");
            Err(Problem::new(ErrorCode::RunExists, detail))
        }
    })
}

/// Puts a plan in force or keeps it beside that; the epoch that is then in force.
fn take_plan(
    run: &mut LiveRun,
    new: &NewPlan,
    group: &mut Group,
) -> Result<Result<u64, Problem>, StoreError> {
    let (expected, current) = (new.expected_epoch, run.ledger.plan_epoch());
    let (id, now_ms) = (&new.run, run.clock.now_ms());
    if matches!(new.standing, Standing::InForce(_))
        && expected.checked_add(1) == Some(current)
        && group.writes()?.plan_document(run.number, current)?.is_some_and(|d| d == new.json)
    {
        // The same request again: its first answer was lost on the way.
        return Ok(Ok(current));
    }
    if let Err(error) = new.plan.check(&run.workflow) {
        return Ok(Err(Problem::new(ErrorCode::InvalidPlan, error.to_string())));
    }
    let taken = match new.standing.clone() {
        Standing::InForce(why) => run.ledger.replan(expected, why, now_ms),
        Standing::Suggested(why) => run.ledger.suggest(expected, why, now_ms),
    };
    let events = match taken {
        Ok(events) => events,
        Err(_) if run.ledger.status() != RunStatus::Running => {
            return Ok(Err(Problem::new(ErrorCode::RunOver, format!("run `{id}` has ended"))));
        }
        Err(current) => {
            let detail =
                format!("run `{id}` follows plan `{current}`, the new one would replace plan `{expected}`");
            return Ok(Err(Problem::new(ErrorCode::PlanEpochConflict, detail)));
        }
    };
    run.staged.extend(events);
    let epoch = run.ledger.plan_epoch();
    keep_plan(run, new, epoch, group)?;
    Ok(Ok(epoch))
}

/// Stores the plan of `epoch`, or one that is suggested.
fn keep_plan(run: &mut LiveRun, new: &NewPlan, epoch: u64, group: &mut Group) -> Result<(), StoreError> {
    let writes = group.writes()?;
    if let Standing::Suggested(_) = new.standing {
        return writes.put_plan_document(run.number, SUGGESTED, &new.json);
    }
    run.header.planner = new.plan.planner.clone();
    run.header.predicted = new.plan.predicted;
    writes.put_plan_document(run.number, epoch, &new.json)?;
    writes.put_run(run.number, &run.header)
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit((number % 36) as u32, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_36_reads_back() {
        for number in [0, 35, 36, 1_700_000_000_123, u64::MAX] {
            assert_eq!(u64::from_str_radix(&base36(number), 36).unwrap(), number);
        }
    }
}

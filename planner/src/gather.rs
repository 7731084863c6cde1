//! Gathers: what one task reads of many makers comes over the link of one worker, one object after the other.
//! Where that decides how long a run takes, a part of the makers belongs on the worker of the reader: what
//! they make is there without a fetch, and while they run the link brings the rest. What such a maker reads
//! is fetched while earlier tasks run, or made on that worker too.
//!
//! The right part balances the lane, the up-link (what is made there is stored before anybody reads it) and
//! the down-link, and depends on who waits for whom in between. So a few parts are tried, in every gather of
//! a workflow alike, and timed. Moves of single tasks do not find them: one maker moved gains next to
//! nothing as long as other gathers of the same workflow end later.
//!
//! It is the split of inputs over lanes and links by which `bounds::inflow` bounds the makespan, made a plan.

use std::collections::HashSet;

use foresail_schemas::optimization::OptimizationKind;

use crate::assignment::Assignment;
use crate::dense::{Dense, NONE};
use crate::extras::PRE_LOAD;
use crate::search::Search;

/// Fewest makers of a gather.
const MAKERS_MIN: usize = 4;
/// Least part of the makespan that fetching everything takes.
const SHARE_MIN: f64 = 0.02;
/// Parts of the makers that run on the worker of their reader.
const MAKERS: [f64; 5] = [0.5, 0.25, 0.4, 0.65, 1.0];
/// Parts of those whose own input is made there too.
const SOURCES: [f64; 4] = [0.15, 0.3, 0.6, 0.0];
/// Tasks timed in all tries.
const TASKS_TIMED_MAX: usize = 200_000;

/// Tasks that belong on one worker.
#[derive(Debug, Default)]
struct Home {
    /// Those that read what the makers make.
    readers: Vec<u32>,
    /// The makers, those first whose source takes least time to make, each with that source or [`NONE`].
    makers: Vec<(u32, u32)>,
}

/// Offers the best plan so far with parts of all large gathers on one worker each.
pub(crate) fn offer(search: &mut Search) {
    let dense = search.dense;
    let base = search.best().assignment.clone();
    let homes = homes(dense, &base, search.best().timed.summary.makespan_ms);
    if homes.is_empty() {
        return;
    }
    let tries = TASKS_TIMED_MAX / dense.len().max(1) as usize;
    let parts = MAKERS.into_iter().flat_map(|of_makers| SOURCES.map(|of_sources| (of_makers, of_sources)));
    for (of_makers, of_sources) in parts.take(tries) {
        let label = format!(
            "gather: {:.0} % of what is gathered made there, {:.0} % of that from the start",
            100.0 * of_makers,
            100.0 * of_sources
        );
        search.offer(label, gathered(dense, &base, &homes, (of_makers, of_sources)));
    }
}

/// The gathers; those that read the same share a worker.
fn homes(dense: &Dense, base: &Assignment, makespan_ms: f64) -> Vec<Home> {
    let mut home_of = vec![NONE; dense.len() as usize];
    let mut homes: Vec<Home> = Vec::new();
    let mut makers: Vec<u32> = Vec::new();
    for &reader in dense.graph.order() {
        let size = base.size[reader as usize];
        let fetches_ms: f64 = dense.stored_reads(reader).iter().map(|&o| dense.download_ms(size, o)).sum();
        if dense.is_pooled(reader) || fetches_ms < SHARE_MIN * makespan_ms {
            continue;
        }
        makers.clear();
        let objects = dense.graph.objects();
        makers.extend(dense.stored_reads(reader).iter().filter_map(|&o| objects[o as usize].producer));
        makers.sort_unstable();
        makers.dedup();
        if makers.len() < MAKERS_MIN {
            continue;
        }
        let known = makers.iter().map(|&m| home_of[m as usize]).find(|&home| home != NONE);
        let home = known.unwrap_or(homes.len() as u32);
        if known.is_none() {
            homes.push(Home::default());
        }
        homes[home as usize].readers.push(reader);
        makers.retain(|&maker| home_of[maker as usize] == NONE);
        for &maker in &makers {
            home_of[maker as usize] = home;
            homes[home as usize].makers.push((maker, source(dense, maker, size)));
        }
    }
    for home in &mut homes {
        let size = home.readers.first().map_or(0, |&reader| base.size[reader as usize]);
        let made_ms = |source: u32| if source == NONE { 0.0 } else { dense.exec_ms(size, source) };
        home.makers.sort_by(|a, b| made_ms(a.1).total_cmp(&made_ms(b.1)).then(a.0.cmp(&b.0)));
    }
    homes
}

/// The maker of what takes longest to fetch of all that a task reads.
fn source(dense: &Dense, task: u32, size: u32) -> u32 {
    let made = dense.stored_reads(task).iter().filter_map(|&o| {
        let producer = dense.maker(o)?;
        Some((dense.download_ms(size, o), producer))
    });
    made.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1))).map_or(NONE, |(_, producer)| producer)
}

/// `base` with a part of the makers of every home, and of their sources, on its worker.
fn gathered(
    dense: &Dense,
    base: &Assignment,
    homes: &[Home],
    (of_makers, of_sources): (f64, f64),
) -> Assignment {
    let mut plan = base.clone();
    let may_load = !dense.problem.without.contains(&OptimizationKind::PreLoad);
    for home in homes {
        let (worker, size) = (plan.workers, base.size[home.readers[0] as usize]);
        plan.workers += 1;
        let makers = (of_makers * home.makers.len() as f64).round() as usize;
        let sources = (of_sources * makers as f64).round() as usize;
        let here = home.makers[..makers].iter();
        let here = here.enumerate().flat_map(|(at, &(maker, source))| {
            [Some(maker), (at < sources && source != NONE).then_some(source)]
        });
        let here: Vec<u32> = home.readers.iter().copied().chain(here.flatten()).collect();
        let sources =
            home.makers[..makers].iter().map(|&(_, source)| source).filter(|&s| s != NONE).collect();
        let between = between(dense, &sources);
        for task in here.into_iter().chain(between) {
            if dense.allows(size, task) {
                (plan.worker[task as usize], plan.size[task as usize]) = (worker, size);
                if may_load {
                    plan.extras.give(task, PRE_LOAD, dense.len());
                }
            }
        }
    }
    plan
}

/// Tasks that read nothing that is stored but of `sources`. They keep the worker alive while it fetches what
/// its makers read, and need no fetch of their own.
fn between(dense: &Dense, sources: &HashSet<u32>) -> Vec<u32> {
    let objects = dense.graph.objects();
    let is_here = |&o: &u32| objects[o as usize].producer.is_none_or(|p| sources.contains(&p));
    let children = sources.iter().flat_map(|&s| dense.graph.children(s).iter().copied());
    let mut found: Vec<u32> = children.filter(|&t| dense.stored_reads(t).iter().all(is_here)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use foresail_schemas::plan::{Objective, Problem};
    use foresail_schemas::workflow::{Input, Output, Task, Work, WorkflowSpec};
    use foresail_schemas::{ObjectName, Platform, Sla, TaskName, Workflow};

    use super::*;
    use crate::blind::blind_table;
    use crate::{simple, sweep};

    fn add(tasks: &mut Vec<Task>, kind: &str, exec_ms: f64, bytes: u64, parents: &[usize]) -> usize {
        let name = TaskName::new(kind).unwrap();
        let work = Work::Function { function: name.clone(), params: Default::default() };
        let mut task = Task::new(format!("{kind}{}", tasks.len()).parse().unwrap(), name, work);
        task.hint.exec_ms = Some(exec_ms);
        task.outputs.push(Output { name: ObjectName::default(), bytes: Some(bytes) });
        let of = |&p: &usize| Input::task(tasks[p].id.clone(), ObjectName::default());
        task.inputs.extend(parents.iter().map(of));
        tasks.push(task);
        tasks.len() - 1
    }

    /// A mosaic: images are projected, neighbours compared, a model is made of that, by which each image is
    /// corrected, and one task puts all together.
    fn mosaic(images: usize) -> Workflow {
        let (mut tasks, large) = (Vec::new(), 100_000_000);
        let projected: Vec<usize> =
            (0..images).map(|_| add(&mut tasks, "project", 2_000.0, large, &[])).collect();
        let pairs = projected.windows(2);
        let compared: Vec<usize> = pairs.map(|pair| add(&mut tasks, "compare", 10.0, 100, pair)).collect();
        let model = add(&mut tasks, "model", 20.0, 100, &compared);
        let corrected: Vec<usize> =
            projected.iter().map(|&p| add(&mut tasks, "correct", 10.0, large, &[p, model])).collect();
        add(&mut tasks, "join", 20.0, 100, &corrected);
        let name = "mosaic".parse().unwrap();
        WorkflowSpec { name, description: None, tasks, code: Default::default() }.check().unwrap()
    }

    #[test]
    fn a_mosaic_ends_earlier_where_a_part_of_its_images_is_made_where_they_are_joined() {
        let (workflow, platform) = (mosaic(24), Platform::built_in().remove(0));
        let predictions = blind_table(&workflow, &platform, Sla::MEDIAN);
        let (objective, seed, without) = (Objective::Fastest, 1, Vec::new());
        let problem = Problem { workflow, platform, predictions, objective, seed, without };
        let dense = Dense::new(&problem).unwrap();
        let mut search = Search::new(&dense);
        simple::offer_sizes(&mut search);
        sweep::offer(&mut search);
        let before_ms = search.best().timed.summary.makespan_ms;
        offer(&mut search);
        let after_ms = search.best().timed.summary.makespan_ms;
        assert!(after_ms < 0.97 * before_ms, "{after_ms} after {before_ms} ms");
    }
}

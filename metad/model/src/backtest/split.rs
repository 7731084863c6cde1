//! What each protocol lets the methods learn and asks them about.
//!
//! A trial's rows stand in measured order; no row is both learned and asked about in one trial. A trial
//! learns and asks no more than the maxima below, and trials over a growing history share its rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use super::{Protocol, Quantity, Settings, Table};

/// Other tasks of the workflow that are known beside the one in question, and rows of each of them.
const OTHER_TASKS_MAX: usize = 32;
const OTHER_ROWS_MAX: usize = 1024;
/// Configs of a task that are left out in turn.
const CONFIGS_LEFT_OUT_MAX: usize = 64;
/// Runs of a workflow that are predicted.
const RUNS_ASKED_MAX: usize = 200;
/// Repetitions of a drawing.
const DRAWINGS: usize = 10;
/// Samples learned where the data tell training runs from test runs.
const TRAINING_ROWS_MAX: usize = 6;
/// Rows of one task that a trial learns, and rows where it learns all tasks of a workflow.
const LEARNED_ROWS_MAX: usize = 4096;
const LEARNED_ROWS_OF_ALL_MAX: usize = 16_384;
/// Rows that a trial is asked about.
const ASKED_ROWS_MAX: usize = 4096;
/// Fits of the coverage protocol, over all tasks, beyond which more rows are predicted from one fit.
const COVERAGE_FITS_MAX: usize = 16_384;
/// Largest number of rows predicted from one fit of the coverage protocol, and fits per task beyond which it
/// grows.
const REFIT_ROWS_MAX: usize = 16;
const REFITS_MAX: usize = 256;
/// Largest factor between the config learned and the one predicted, with room for rounded shares.
const JUMP_MAX: f64 = 2.02;

/// One fit and the questions put to it.
pub struct Trial {
    /// Rows of other tasks that the model knows; shared by consecutive trials.
    pub base: Arc<Vec<usize>>,
    /// Rows learned on top of them.
    learn: Learn,
    /// Rows asked about.
    pub ask: Vec<usize>,
}

enum Learn {
    /// These.
    Rows(Vec<usize>),
    /// The newest `most` of the first `count` rows of a history.
    Newest { history: Arc<Vec<usize>>, count: usize, most: usize },
}

impl Trial {
    /// The rows learned on top of the base.
    pub fn learned(&self, table: &Table) -> Vec<usize> {
        match &self.learn {
            Learn::Rows(rows) => rows.clone(),
            Learn::Newest { history, count, most } => {
                let rows = &history[..*count];
                level(table, rows, *most, |series, kept| series[series.len() - kept..].to_vec())
            }
        }
    }
}

/// At most `most` of `rows`: every config of every task keeps all its rows or as many as the others, as
/// `choose` picks them.
fn level(
    table: &Table,
    rows: &[usize],
    most: usize,
    choose: fn(&[usize], usize) -> Vec<usize>,
) -> Vec<usize> {
    if rows.len() <= most {
        return rows.to_vec();
    }
    let mut series: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for place in rows {
        let case = &table.cases[*place];
        series.entry((case.task, case.config())).or_default().push(*place);
    }
    let mut series: Vec<Vec<usize>> = series.into_values().collect();
    series.sort_by_key(Vec::len);
    let (mut left, mut kept, count) = (most, Vec::with_capacity(most), series.len());
    for (place, one) in series.iter().enumerate() {
        let part = one.len().min(left / (count - place));
        kept.extend(choose(one, part));
        left -= part;
    }
    let order: BTreeSet<usize> = kept.into_iter().collect();
    rows.iter().copied().filter(|row| order.contains(row)).collect()
}

/// All trials of a protocol.
pub struct Split {
    pub trials: Vec<Trial>,
    pub thinned: Vec<String>,
}

impl Split {
    /// One more trial over rows that stand in no order of time.
    fn push(&mut self, table: &Table, base: &Arc<Vec<usize>>, learn: &[usize], ask: &[usize], most: usize) {
        if learn.len() > most {
            self.thinned
                .push(format!("a fit learns at most {most} rows, spread over the configs of each task"));
        }
        let learn = Learn::Rows(level(table, learn, most, thin));
        let ask = self.asked(ask);
        self.trials.push(Trial { base: Arc::clone(base), learn, ask });
    }

    /// One more trial over the first `count` rows of a history.
    fn push_history(&mut self, history: &Arc<Vec<usize>>, count: usize, ask: &[usize], most: usize) {
        if count > most {
            self.thinned
                .push(format!("a fit learns the newest {most} rows, spread over the configs of each task"));
        }
        let learn = Learn::Newest { history: Arc::clone(history), count, most };
        let ask = self.asked(ask);
        self.trials.push(Trial { base: Arc::default(), learn, ask });
    }

    fn asked(&mut self, ask: &[usize]) -> Vec<usize> {
        if ask.len() > ASKED_ROWS_MAX {
            self.thinned.push(format!("a fit is asked about {ASKED_ROWS_MAX} rows, evenly spaced"));
        }
        thin(ask, ASKED_ROWS_MAX)
    }
}

/// The trials.
pub fn split(table: &Table, settings: &Settings) -> Split {
    let mut split = Split { trials: Vec::new(), thinned: Vec::new() };
    match settings.protocol {
        Protocol::Memory => memory(table, &mut split, Known::AllOthers),
        Protocol::MemoryOne => memory(table, &mut split, Known::One),
        Protocol::Joint(count) => joint(table, &mut split, count, settings.seed),
        Protocol::Extrapolate => extrapolate(table, &mut split),
        Protocol::NextRun => next_run(table, &mut split),
        Protocol::Coverage(count) => coverage(table, &mut split, count),
    }
    split.trials.retain(|trial| !trial.ask.is_empty());
    split.thinned.sort();
    split.thinned.dedup();
    split
}

/// What the rows lack where no trial came of them, and what would help.
pub fn lacking(table: &Table, protocol: Protocol) -> (&'static str, &'static str) {
    match protocol {
        _ if table.cases.is_empty() && table.quantity == Quantity::OutputSize => {
            ("there are no output sizes", "give rows with the column `output_bytes`")
        }
        _ if table.cases.is_empty() => ("there are no rows", "give measurements"),
        Protocol::Memory | Protocol::MemoryOne => {
            ("no task has two configs near each other", "give rows of several memory sizes")
        }
        Protocol::Joint(_) => {
            ("the drawn rows hold every combination of config and size", "draw fewer rows with joint:N")
        }
        Protocol::Extrapolate => (
            "no task has inputs of two sizes",
            "give rows of several input sizes, or runs `train` and `test`",
        ),
        Protocol::NextRun => ("no task has two runs", "give rows with the column `run`"),
        Protocol::Coverage(_) => ("no config of a task has more rows", "ask with a smaller N in coverage:N"),
    }
}

/// Rows of each task, in measured order.
fn by_task(table: &Table) -> Vec<Vec<usize>> {
    let mut tasks = vec![Vec::new(); table.tasks.len()];
    table.cases.iter().enumerate().for_each(|(place, case)| tasks[case.task].push(place));
    tasks
}

/// At most `most` of `items`, evenly spaced.
fn thin<T: Copy>(items: &[T], most: usize) -> Vec<T> {
    if items.len() <= most {
        return items.to_vec();
    }
    (0..most).map(|n| items[n * items.len() / most]).collect()
}

/// At most `most` of sorted `items`, evenly spaced, the first and the last among them.
fn spread_out(items: &[usize], most: usize) -> Vec<usize> {
    if items.len() <= most {
        return items.to_vec();
    }
    (0..most).map(|n| items[n * (items.len() - 1) / (most - 1)]).collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Known {
    AllOthers,
    One,
}

fn memory(table: &Table, split: &mut Split, known: Known) {
    let tasks = by_task(table);
    for (task, rows) in tasks.iter().enumerate() {
        let configs: BTreeSet<(u32, u64)> = rows.iter().map(|row| table.cases[*row].config()).collect();
        if configs.len() < 2 {
            continue;
        }
        let configs: Vec<(u32, u64)> = configs.into_iter().collect();
        let base = Arc::new(others(table, &tasks, task, &mut split.thinned));
        let turns = thin(&configs, CONFIGS_LEFT_OUT_MAX);
        if turns.len() < configs.len() {
            split.thinned.push(format!("at most {CONFIGS_LEFT_OUT_MAX} configs of a task in turn"));
        }
        for turn in turns {
            let of_turn = |row: &&usize| table.cases[**row].config() == turn;
            let (learn, ask): (Vec<usize>, Vec<usize>) = match known {
                Known::AllOthers => rows.iter().partition(|row| !of_turn(row)),
                Known::One => rows.iter().partition(|row| of_turn(row)),
            };
            let near = |row: &usize| known == Known::AllOthers || near(turn, table.cases[*row].config());
            let ask: Vec<usize> = ask.into_iter().filter(near).collect();
            split.push(table, &base, &learn, &ask, LEARNED_ROWS_MAX);
        }
    }
}

fn near(one: (u32, u64), other: (u32, u64)) -> bool {
    let factor = |a: f64, b: f64| (a / b).max(b / a);
    factor(f64::from(one.0), f64::from(other.0)) <= JUMP_MAX
        && factor(one.1.max(1) as f64, other.1.max(1) as f64) <= JUMP_MAX
}

/// Rows of the other tasks of the same workflow.
fn others(table: &Table, tasks: &[Vec<usize>], task: usize, thinned: &mut Vec<String>) -> Vec<usize> {
    let workflow = tasks[task].first().map(|row| table.cases[*row].workflow);
    let same = |other: &usize| {
        *other != task && tasks[*other].first().map(|row| table.cases[*row].workflow) == workflow
    };
    let all: Vec<usize> = (0..tasks.len()).filter(same).collect();
    let kept = thin(&all, OTHER_TASKS_MAX);
    if kept.len() < all.len() || kept.iter().any(|other| tasks[*other].len() > OTHER_ROWS_MAX) {
        thinned
            .push(format!("at most {OTHER_TASKS_MAX} other tasks with {OTHER_ROWS_MAX} rows each are known"));
    }
    let mut rows: Vec<usize> = kept.iter().flat_map(|other| thin(&tasks[*other], OTHER_ROWS_MAX)).collect();
    rows.sort_unstable();
    rows
}

/// Every task has as many rows in each drawing, so that all are known equally little.
fn joint(table: &Table, split: &mut Split, count: usize, seed: u64) {
    let tasks = by_task(table);
    let workflows = table.cases.iter().map(|case| case.workflow).max().map_or(0, |most| most + 1);
    let mut rng = Pcg64::seed_from_u64(seed);
    let base = Arc::new(Vec::new());
    for _ in 0..DRAWINGS {
        let mut drawn: Vec<(Vec<usize>, Vec<usize>)> = vec![(Vec::new(), Vec::new()); workflows];
        for rows in &tasks {
            let Some(workflow) = rows.first().map(|row| table.cases[*row].workflow) else { continue };
            let mut order = rows.clone();
            let learned = count.min(order.len());
            for place in 0..learned {
                order.swap(place, rng.random_range(place..rows.len()));
            }
            let cells: BTreeSet<_> = order[..learned].iter().map(|row| table.cases[*row].cell()).collect();
            drawn[workflow].0.extend(&order[..learned]);
            let new = |row: &&usize| !cells.contains(&table.cases[**row].cell());
            drawn[workflow].1.extend(rows.iter().filter(new));
        }
        for (mut learn, ask) in drawn {
            learn.sort_unstable();
            split.push(table, &base, &learn, &ask, LEARNED_ROWS_OF_ALL_MAX);
        }
    }
}

fn extrapolate(table: &Table, split: &mut Split) {
    let base = Arc::new(Vec::new());
    for rows in by_task(table) {
        let named = |row: &usize, start: &str| {
            table.cases[*row].run.is_some_and(|run| table.runs[run].starts_with(start))
        };
        let tests: Vec<usize> = rows.iter().copied().filter(|row| named(row, "test")).collect();
        let mut training: Vec<usize> = rows.iter().copied().filter(|row| named(row, "train")).collect();
        let (mut learn, ask): (Vec<usize>, Vec<usize>) = if tests.is_empty() || training.is_empty() {
            let largest = rows.iter().map(|row| table.cases[*row].input_bytes).max().unwrap_or(0);
            rows.iter().partition(|row| table.cases[**row].input_bytes < largest)
        } else {
            training.sort_by_key(|row| (table.cases[*row].input_bytes, *row));
            (spread_out(&training, TRAINING_ROWS_MAX), tests)
        };
        if learn.is_empty() {
            continue;
        }
        learn.sort_unstable();
        split.push(table, &base, &learn, &ask, LEARNED_ROWS_MAX);
    }
}

fn next_run(table: &Table, split: &mut Split) {
    let mut workflows: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (place, case) in table.cases.iter().enumerate().filter(|(_, case)| case.run.is_some()) {
        workflows.entry(case.workflow).or_default().push(place);
    }
    for mut rows in workflows.into_values() {
        rows.sort_by_key(|row| (table.cases[*row].run, *row));
        let rows = Arc::new(rows);
        // Runs are numbered in the order of their first rows.
        let runs: BTreeSet<usize> = rows.iter().filter_map(|row| table.cases[*row].run).collect();
        let later: Vec<usize> = runs.iter().copied().skip(1).collect();
        let asked = thin(&later, RUNS_ASKED_MAX);
        if asked.len() < later.len() {
            split.thinned.push(format!("{RUNS_ASKED_MAX} runs of a workflow, evenly spaced, are predicted"));
        }
        for run in asked {
            let from = rows.partition_point(|row| table.cases[*row].run < Some(run));
            let to = rows.partition_point(|row| table.cases[*row].run <= Some(run));
            let known: BTreeSet<usize> = rows[..from].iter().map(|row| table.cases[*row].task).collect();
            let is_known = |row: &usize| known.contains(&table.cases[*row].task);
            let ask: Vec<usize> = rows[from..to].iter().copied().filter(is_known).collect();
            split.push_history(&rows, from, &ask, LEARNED_ROWS_OF_ALL_MAX);
        }
    }
}

fn coverage(table: &Table, split: &mut Split, count: usize) {
    let least = table.cases.len().div_ceil(COVERAGE_FITS_MAX);
    for rows in by_task(table) {
        let rows = Arc::new(rows);
        let mut seen: BTreeMap<(u32, u64), usize> = BTreeMap::new();
        let most = REFIT_ROWS_MAX.max(rows.len().div_ceil(REFITS_MAX)).max(least);
        split.thinned.push(format!("up to {most} rows in a row are predicted from one fit"));
        let mut from = 0;
        while from < rows.len() {
            let to = (from + (from / 10).clamp(least, most)).min(rows.len());
            let enough = |row: &&usize| seen.get(&table.cases[**row].config()).is_some_and(|n| *n >= count);
            let ask: Vec<usize> = rows[from..to].iter().filter(enough).copied().collect();
            if !ask.is_empty() {
                split.push_history(&rows, from, &ask, LEARNED_ROWS_MAX);
            }
            rows[from..to].iter().for_each(|row| *seen.entry(table.cases[*row].config()).or_default() += 1);
            from = to;
        }
    }
}

//! `foresail lab optimisations`: what each optimisation brings on workloads that workers carry out.

use std::io;

use foresail_schemas::optimization::{Optimization, OptimizationKind};
use foresail_schemas::plan::Plan;
use serde::Serialize;

use super::bench::{Bench, Way, Workload, each};
use crate::cli::args::{Format, Global, LabOptimisationsArgs};
use crate::cli::error::CliError;
use crate::cli::interrupt::Interrupt;
use crate::cli::render::{self, Table};
use crate::cli::terminal::Terminal;
use crate::lab::effects::{Effect, Pair, Ratio, effects};
use crate::units;

/// What is written as JSON.
#[derive(Debug, Serialize)]
struct Document<'a> {
    effects: &'a [Effect],
    pairs: &'a [Pair],
}

/// An optimisation that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Switch {
    Planned(OptimizationKind),
    Uploads,
    Ahead,
    Held,
}

const SWITCHES: [Switch; 6] = [
    Switch::Planned(OptimizationKind::PreWarm),
    Switch::Planned(OptimizationKind::PreLoad),
    Switch::Planned(OptimizationKind::TaskDup),
    Switch::Uploads,
    Switch::Ahead,
    Switch::Held,
];

impl Switch {
    fn name(self) -> &'static str {
        match self {
            Self::Planned(kind) => kind.as_str(),
            Self::Uploads => "overlapped uploads",
            Self::Ahead => "running ahead",
            Self::Held => "held outputs",
        }
    }

    /// With it and without it.
    fn ways(self, args: &LabOptimisationsArgs) -> [Way; 2] {
        let with = Way::of(&args.planner);
        let mut without = with.clone();
        match self {
            Self::Planned(kind) => without.without.push(kind),
            Self::Uploads => without.limits.overlap_uploads = false,
            Self::Ahead => without.limits.run_ahead = false,
            Self::Held => {
                let bytes = args.large_output_bytes;
                return [format!("wukong:@{bytes}"), format!("wukong:none@{bytes}")]
                    .map(|name| Way::of(&name));
            }
        }
        [with, without]
    }

    /// How often a plan has it.
    fn planned(self, plan: &Plan) -> Option<u64> {
        let of = |wanted: &Optimization| {
            let tasks = plan.tasks.iter().filter(|task| task.optimizations.contains(wanted));
            tasks.count() as u64
        };
        match self {
            Self::Planned(OptimizationKind::PreWarm) => Some(plan.prewarms.len() as u64),
            Self::Planned(OptimizationKind::PreLoad) => Some(of(&Optimization::PreLoad)),
            Self::Planned(OptimizationKind::TaskDup) => Some(of(&Optimization::TaskDup)),
            // Only planned workers run ahead.
            Self::Ahead => Some(plan.workers.len() as u64),
            Self::Uploads | Self::Held => None,
        }
    }
}

/// Carries out and compares.
///
/// # Errors
/// [`CliError`] when a workload or the planner is not there, a run fails or gives another result, or after an
/// interrupt, when what was done by then is written.
pub async fn optimisations(
    global: &Global,
    args: &LabOptimisationsArgs,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<(), CliError> {
    super::plans::check_planners(std::slice::from_ref(&args.planner))?;
    let mut pairs = Vec::new();
    let ended = each(global, &args.bench, terminal, interrupt, async |bench, workload| {
        for repeat in 1..=args.repeats {
            for switch in SWITCHES {
                pairs.push(pair(bench, workload, switch, args, repeat, terminal).await?);
            }
        }
        Ok(())
    });
    let ended = ended.await;
    let effects = effects(&pairs);
    match global.format {
        Format::Markdown => render::text(&table(&effects).markdown())?,
        Format::Csv => csv(&effects)?,
        Format::Table => render::text(&table(&effects).to_string())?,
        Format::Ndjson | Format::Parquet => render::many(Format::Ndjson, &pairs, String::new)?,
        Format::Json => {
            render::one(global.format, &Document { effects: &effects, pairs: &pairs }, String::new)?
        }
    }
    ended?;
    match effects.iter().find(|effect| effect.wrong > 0) {
        None => Ok(()),
        Some(e) => Err(CliError::Differ(format!("`{}` with and without {}", e.workload, e.optimisation))),
    }
}

/// A run with it and one without it, one after the other.
async fn pair(
    bench: &mut Bench<'_>,
    workload: &mut Workload,
    switch: Switch,
    args: &LabOptimisationsArgs,
    repeat: u32,
    terminal: &Terminal,
) -> Result<Pair, CliError> {
    let (name, optimisation) = (workload.name.clone(), switch.name().to_owned());
    terminal.say(&format!("{name}: repetition {repeat} of {}, {optimisation}", args.repeats));
    let [with, without] = switch.ways(args);
    // Who goes first changes from repetition to repetition.
    let ((with, plan), (without, _)) = if repeat % 2 == 1 {
        let first = bench.one(workload, &with, repeat).await?;
        (first, bench.one(workload, &without, repeat).await?)
    } else {
        let first = bench.one(workload, &without, repeat).await?;
        (bench.one(workload, &with, repeat).await?, first)
    };
    Ok(Pair { workload: name, optimisation, planned: switch.planned(&plan), with, without })
}

fn table(effects: &[Effect]) -> Table {
    let mut table = Table::new(&[
        "workload",
        "optimisation",
        "planned",
        "with",
        "without",
        "makespan, with / without",
        "cost",
        "moved",
        "",
    ]);
    for e in effects {
        table.row([
            e.workload.clone(),
            e.optimisation.clone(),
            format!("{} of {}", e.planned, e.pairs),
            units::ms(e.with_ms),
            units::ms(e.without_ms),
            with_interval(e.makespan),
            with_interval(e.cost),
            format!("{:.2}", e.moved),
            e.verdict().to_owned(),
        ]);
    }
    table
}

fn with_interval(ratio: Ratio) -> String {
    match ratio.interval {
        Some([from, to]) => format!("{:.2} ({from:.2} to {to:.2})", ratio.mean),
        None => format!("{:.2}", ratio.mean),
    }
}

/// A line per workload and optimisation.
fn csv(effects: &[Effect]) -> io::Result<()> {
    let mut out = csv::Writer::from_writer(io::stdout().lock());
    let columns = "workload,optimisation,planner,pairs,planned,with_ms,without_ms,makespan_ratio,\
        makespan_ratio_from,makespan_ratio_to,cost_ratio,cost_ratio_from,cost_ratio_to,moved_ratio,wrong";
    out.write_record(columns.split(','))?;
    for e in effects {
        let bound = |ratio: Ratio, at: usize| ratio.interval.map_or_else(String::new, |i| i[at].to_string());
        out.write_record([
            e.workload.clone(),
            e.optimisation.clone(),
            e.planner.clone(),
            e.pairs.to_string(),
            e.planned.to_string(),
            e.with_ms.to_string(),
            e.without_ms.to_string(),
            e.makespan.mean.to_string(),
            bound(e.makespan, 0),
            bound(e.makespan, 1),
            e.cost.mean.to_string(),
            bound(e.cost, 0),
            bound(e.cost, 1),
            e.moved.to_string(),
            e.wrong.to_string(),
        ])?;
    }
    out.flush()
}

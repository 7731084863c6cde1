//! `foresail lab scale`: what breaks first with so many workers, as two tables.

use std::time::Instant;

use serde::Serialize;

use super::show;
use crate::cli::apart;
use crate::cli::args::{Format, Global, LabScaleArgs};
use crate::cli::error::CliError;
use crate::cli::render::{self, Table};
use crate::cli::source;
use crate::cli::terminal::Terminal;
use crate::lab::scale::limits::{Basis, Limit};
use crate::lab::scale::measure::{Where, measure};
use crate::lab::scale::service::{Keeper, Service};
use crate::lab::scale::{End, Request, Scale, scale};
use crate::units;

/// Limits below this share of what there is are not shown in the table.
const SHOWN_RATIO_MIN: f64 = 0.05;

/// What is written as JSON.
#[derive(Debug, Serialize)]
struct Document<'a> {
    service: &'a Service,
    seed: u64,
    scales: &'a [Scale],
}

/// Simulates each number of workers.
///
/// # Errors
/// [`CliError`] when a file cannot be read, or there is no run to simulate.
pub async fn scales(global: &Global, args: &LabScaleArgs, terminal: &Terminal) -> Result<(), CliError> {
    if args.measure {
        return measured(global, args).await;
    }
    let requests = requests(args)?;
    let service = requests.first().map_or_else(|| args.coordination.service(), |r| r.service.clone());
    let mut scales = Vec::new();
    for request in requests {
        let (began, workers) = (Instant::now(), request.workers);
        let done = apart::run(move || scale(&request)).await?;
        scales.push(done.map_err(|e| CliError::input(e.to_string(), "see `foresail lab scale --help`"))?);
        terminal.say(&format!("{workers} workers: simulated in {:.1} s", began.elapsed().as_secs_f64()));
    }
    let document = Document { service: &service, seed: args.seed, scales: &scales };
    match global.format {
        Format::Markdown => render::text(&format!(
            "{}\n{}\n{}",
            overview(&scales).markdown(),
            traffic(&scales).markdown(),
            met(&scales).markdown()
        ))?,
        Format::Table => {
            render::text(&format!("{}\n{}\n{}", overview(&scales), traffic(&scales), met(&scales)))?;
        }
        format => show(format, &document, || overview(&scales))?,
    }
    Ok(())
}

/// Measures metad and writes what it can do, as a table for `--service`.
async fn measured(global: &Global, args: &LabScaleArgs) -> Result<(), CliError> {
    if args.coordination == Keeper::Redis {
        let hint = "`cargo bench -p foresail-redis --bench log`, then `redis-cli info commandstats`, tells \
            what a script takes there; see docs/scale.md";
        return Err(CliError::input("Redis is not measured here", hint));
    }
    let before = args.service.as_deref().map_or_else(|| Ok(Keeper::Metad.service()), service)?;
    let cannot =
        |e: String| CliError::input(format!("metad cannot be measured: {e}"), "is its disk writable?");
    let folder = tempfile::tempdir()?;
    let own = match &global.metad {
        Some(_) => None,
        None => {
            let settings = foresail_metad::Settings::embedded(folder.path());
            Some(foresail_metad::Server::start(settings).map_err(|e| cannot(e.to_string()))?)
        }
    };
    let address =
        own.as_ref().map(|own| format!("http://{}", own.address())).or_else(|| global.metad.clone());
    let token = own.is_none().then_some(global.token.as_deref()).flatten();
    let place = if own.is_some() { Where::Here } else { Where::Elsewhere };
    let found = measure((&address.unwrap_or_default(), place), token, before).await;
    let found = found.map_err(|e| cannot(e.to_string()))?;
    let text = toml::to_string(&found).map_err(|e| cannot(e.to_string()))?;
    render::one(global.format, &found, || text)?;
    Ok(())
}

fn requests(args: &LabScaleArgs) -> Result<Vec<Request>, CliError> {
    let workflow = args.workflow.as_deref().map(source::shape_or_file).transpose()?;
    let platform = source::platform(&args.platform)?;
    let service = match &args.service {
        None => args.coordination.service(),
        Some(path) => service(path)?,
    };
    let of = |&workers: &u32| Request {
        workers,
        runs: args.runs,
        workflow: workflow.clone(),
        tasks_per_worker: args.tasks_per_worker,
        task_ms: args.task_ms,
        platform: platform.clone(),
        keeper: args.coordination,
        service: service.clone(),
        seed: args.seed,
    };
    Ok(args.workers.iter().map(of).collect())
}

fn service(path: &std::path::Path) -> Result<Service, CliError> {
    let wrong = |why: String| {
        let hint = "give a TOML table like client/src/lab/scale/metad.toml";
        CliError::input(format!("`{}` is no table of a service: {why}", path.display()), hint)
    };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    Service::from_toml(&text).map_err(|e| wrong(e.to_string()))
}

/// A row per number of workers: times, and what breaks first.
fn overview(scales: &[Scale]) -> Table {
    let mut table = Table::new(&[
        "workers",
        "runs",
        "tasks",
        "state in",
        "without limits",
        "with limits",
        "slower",
        "last start after",
        "longest wait",
        "breaks first",
    ]);
    for s in scales {
        let limited = &s.limited;
        let end = match limited.end {
            End::Completed => "",
            End::Failed => "fails after ",
            End::GivenUp => "over ",
        };
        let slower = match limited.end {
            End::Completed => format!("{:.2}", limited.slowdown),
            End::Failed | End::GivenUp => "-".to_owned(),
        };
        table.row([
            s.workers.to_string(),
            s.runs.to_string(),
            s.tasks.to_string(),
            keeper(s.keeper).to_owned(),
            units::ms(s.makespan_ms),
            format!("{end}{}", units::ms(limited.makespan_ms)),
            slower,
            units::ms(limited.last_start_ms),
            units::ms(limited.wait_ms_max),
            s.breaks_first.unwrap_or("nothing").to_owned(),
        ]);
    }
    table
}

/// A row per number of workers: what is asked for each task, and at most in a second.
fn traffic(scales: &[Scale]) -> Table {
    let mut table = Table::new(&[
        "workers",
        "requests/task",
        "operations/task",
        "B/task up",
        "B/task down",
        "news/task",
        "B/task of news",
        "B/task stored",
        "read before work",
        "requests/s",
        "MB/s sent",
        "invocations/s",
        "records/s",
        "objects/s",
    ]);
    for s in scales {
        let (task, second) = (&s.per_task, &s.per_second);
        table.row([
            s.workers.to_string(),
            format!("{:.2}", task.requests),
            format!("{:.2}", task.operations),
            format!("{:.0}", task.request_bytes),
            format!("{:.0}", task.answer_bytes),
            format!("{:.1}", task.news),
            format!("{:.0}", task.news_bytes),
            format!("{:.0}", task.stored_bytes),
            units::bytes(s.documents_bytes),
            format!("{:.0}", second.requests.peak),
            format!("{:.1}", second.bytes.peak / 1e6),
            format!("{:.0}", second.invocations.peak),
            format!("{:.0}", second.records.peak),
            format!("{:.0}", second.puts.peak + second.gets.peak),
        ]);
    }
    table
}

/// A row per limit that is near, by number of workers.
fn met(scales: &[Scale]) -> Table {
    let mut table = Table::new(&["workers", "limit", "asked", "there is", "ratio", "rests on", "what to do"]);
    for s in scales {
        let near = |limit: &&Limit| limit.ratio >= SHOWN_RATIO_MIN;
        for limit in s.limits.iter().filter(near) {
            let mostly = limit.mostly.map(|cause| format!(", mostly {cause}")).unwrap_or_default();
            table.row([
                s.workers.to_string(),
                format!("{}{mostly}", limit.name),
                format!("{} {}", short(limit.demand), limit.unit),
                short(limit.capacity),
                format!("{:.2}", limit.ratio),
                basis(limit.basis).to_owned(),
                if limit.ratio > 1.0 { limit.advice.to_owned() } else { String::new() },
            ]);
        }
    }
    table
}

fn keeper(keeper: Keeper) -> &'static str {
    match keeper {
        Keeper::Metad => "metad",
        Keeper::Redis => "Redis",
    }
}

fn basis(basis: Basis) -> &'static str {
    match basis {
        Basis::Documented => "documentation",
        Basis::Setting => "a setting",
        Basis::Measured => "measurement",
        Basis::Assumed => "assumption",
    }
}

/// A number with at most four digits before its unit.
fn short(value: f64) -> String {
    match value {
        v if v >= 1e13 => format!("{:.0} T", v / 1e12),
        v if v >= 1e10 => format!("{:.1} G", v / 1e9),
        v if v >= 1e7 => format!("{:.1} M", v / 1e6),
        v if v >= 1e5 => format!("{:.0} k", v / 1e3),
        v => format!("{v:.0}"),
    }
}

//! `foresail lab`: the predictor on recorded measurements, planners on recorded workflows.

mod bench;
mod optimisations;
mod plans;
mod runs;
mod scale;
mod tables;

use std::io;
use std::path::Path;

use foresail_model::backtest::Settings;
use serde::Serialize;

use super::apart;
use super::args::{Format, Global, LabArgs, LabCommand};
use super::error::CliError;
use super::interrupt::Interrupt;
use super::render::{self, Table};
use super::terminal::Terminal;
use crate::lab::{self, FileReport, LabError};

const FILE_HINT: &str = "a file has a header like \
    workflow,task,run,memory_mb,vcpu,input_bytes,output_bytes,exec_ms; workflow, task and exec_ms are needed";

/// Judges the predictor or the planners.
///
/// # Errors
/// [`CliError`] when a file cannot be read, leaves nothing to judge, or the comparison of planners was
/// interrupted.
pub async fn lab(
    global: &Global,
    args: &LabArgs,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<(), CliError> {
    match &args.command {
        LabCommand::Plans(args) => plans::plans(global, args, terminal, interrupt).await?,
        LabCommand::Run(args) => runs::runs(global, args, terminal, interrupt).await?,
        LabCommand::Optimisations(args) => {
            optimisations::optimisations(global, args, terminal, interrupt).await?;
        }
        LabCommand::Scale(args) => scale::scales(global, args, terminal).await?,
        LabCommand::Backtest(args) => {
            let (path, methods) = (args.samples.clone(), args.methods());
            let (protocol, quantity, rows, seed) = (args.protocol, args.quantity, args.rows, args.seed);
            let settings = Settings { protocol, quantity, methods, seed };
            let answer = compute(move || lab::backtest(&path, rows, &settings)).await?;
            let report = &answer.report;
            show(global.format, &answer, || tables::report_table(report))?;
            remarks(&answer, terminal);
            terminal.say(&format!(
                "{protocol} of {quantity}: {} rows, learned anew {} times, seed {seed}",
                report.rows, report.fits
            ));
        }
        LabCommand::Accuracy(args) => {
            let (folder, rows, seed, say) = (args.folder.clone(), args.rows, args.seed, *terminal);
            let watch = move |path: &Path, settings: &Settings| {
                say.say(&format!("{}: {}, {}", path.display(), settings.protocol, settings.quantity));
            };
            let accuracy = compute(move || lab::accuracy(&folder, rows, seed, watch)).await?;
            show(global.format, &accuracy, || tables::accuracy_table(&accuracy))?;
            accuracy.reports.iter().for_each(|answer| remarks(answer, terminal));
        }
    }
    Ok(())
}

/// What was left out.
fn remarks(answer: &FileReport, terminal: &Terminal) {
    let about = format!("{}, {}", answer.file, answer.report.protocol);
    if let (refused @ 1.., Some(reason)) = (answer.refused, &answer.refusal) {
        terminal.say(&format!("{about}: {refused} lines are no measurements, the first because of {reason}"));
    }
    answer.report.thinned.iter().for_each(|sentence| terminal.say(&format!("{about}: {sentence}")));
}

/// Computes on a thread of its own, which an interrupt does not wait for.
async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LabError> + Send + 'static,
) -> Result<T, CliError> {
    apart::run(work).await?.map_err(|error| {
        let text = error.to_string();
        // Errors of the back-test bring their hint along.
        let (what, hint) = text.split_once("\nhint: ").unwrap_or((&text, FILE_HINT));
        CliError::input(what, hint)
    })
}

fn show<T: Serialize>(format: Format, data: &T, table: impl FnOnce() -> Table) -> io::Result<()> {
    match format {
        Format::Markdown => render::text(&table().markdown()),
        _ => render::one(format, data, || table().to_string()),
    }
}

//! `foresail predict`: asks the model about one task.

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::prediction::{Prediction, Query};
use foresail_schemas::{TaskName, WorkflowName};
use serde_json::json;

use super::args::{Global, HostArgs, PredictArgs};
use super::error::CliError;
use super::render::{self, Table};
use super::session::Session;
use super::terminal::Terminal;
use crate::settings::ClientSettings;
use crate::units;

/// Predicts execution time and output size of one task.
///
/// # Errors
/// [`CliError`] when the arguments are wrong or there is no history to ask.
pub async fn predict(global: &Global, args: &PredictArgs, terminal: &Terminal) -> Result<(), CliError> {
    let (workflow, task) = names(&args.task)?;
    let config = ResourceConfig::new(args.memory, args.vcpu)
        .map_err(|e| CliError::input(e.to_string(), "give --memory in MB, for instance 1769"))?;
    let workers = HostArgs { concurrency: None, cold_start_ms: None };
    let session = Session::open(global, &workers, ClientSettings::default()).await?;
    let model = session.client.model(&workflow).await;
    session.close().await;
    let Some((model, epoch)) = model? else {
        let hint = format!("run it first: `foresail run {workflow}`; `foresail runs` lists what was run");
        return Err(CliError::input(format!("nothing was ever measured of workflow `{workflow}`"), hint));
    };
    let input_bytes = args.input;
    let exec = Query::ExecutionTime {
        task: task.clone(),
        input_bytes,
        memory_mb: config.memory_mb,
        vcpu: config.vcpu,
    };
    let exec = model.predict(&exec, &args.sla);
    let size = model.predict(&Query::OutputSize { task, input_bytes }, &args.sla);
    let data = json!({
        "task": args.task, "epoch": epoch, "input_bytes": input_bytes, "config": config,
        "execution_time": exec, "output_size": size,
    });
    render::one(global.format, &data, || table(args, &exec, &size))?;
    if exec.values.values().all(Option::is_none) {
        terminal.say(&format!("nothing was ever measured of task `{}`", args.task));
    }
    Ok(())
}

fn names(text: &str) -> Result<(WorkflowName, TaskName), CliError> {
    let hint = "write it like text-analysis/count";
    let wrong = |why: String| CliError::input(format!("`{text}` is not WORKFLOW/TASK: {why}"), hint);
    let (workflow, task) = text.split_once('/').ok_or_else(|| wrong("the slash is missing".to_owned()))?;
    let workflow = WorkflowName::new(workflow).map_err(|e| wrong(e.to_string()))?;
    let task = TaskName::new(task).map_err(|e| wrong(e.to_string()))?;
    Ok((workflow, task))
}

fn table(args: &PredictArgs, exec: &Prediction, size: &Prediction) -> String {
    let mut table = Table::new(&["statistic", "time", "output", "basis", "samples", "extrapolated"]);
    for sla in &args.sla {
        let value = |answer: &Prediction| answer.values.get(sla).copied().flatten();
        let unknown = || "-".to_owned();
        table.row([
            sla.to_string(),
            value(exec).map_or_else(unknown, units::ms),
            value(size).map_or_else(unknown, |b| units::bytes(b.round() as u64)),
            basis(exec),
            exec.samples.to_string(),
            if exec.extrapolated { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table.to_string()
}

fn basis(answer: &Prediction) -> String {
    super::plan::basis_name(answer.basis).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_named_with_its_workflow() {
        let (workflow, task) = names("text-analysis/count").unwrap();
        assert_eq!((workflow.as_str(), task.as_str()), ("text-analysis", "count"));
        for bad in ["count", "a/b/c", "/x", "x/"] {
            assert!(names(bad).is_err(), "{bad}");
        }
    }
}

//! Names of workflows and tasks on the command line: read, and, where they are unknown, told with those that
//! are known.

use foresail_schemas::{TaskName, WorkflowName};

use super::error::CliError;
use crate::client::Client;

/// Most names that are listed.
const NAMES_SHOWN_MAX: usize = 20;

/// Reads WORKFLOW/TASK.
///
/// # Errors
/// [`CliError::Input`] when it has another form.
pub fn names(text: &str) -> Result<(WorkflowName, TaskName), CliError> {
    let hint = "write it like text-analysis/count";
    let wrong = |why: String| CliError::input(format!("`{text}` is not WORKFLOW/TASK: {why}"), hint);
    let (workflow, task) = text.split_once('/').ok_or_else(|| wrong("the slash is missing".to_owned()))?;
    let workflow = WorkflowName::new(workflow).map_err(|e| wrong(e.to_string()))?;
    let task = TaskName::new(task).map_err(|e| wrong(e.to_string()))?;
    Ok((workflow, task))
}

/// What to say where nothing is known of a task: whether it is the task or its workflow, and what is known.
pub async fn unknown_task(client: &Client, workflow: &WorkflowName, task: &TaskName) -> CliError {
    match client.tasks(workflow).await {
        Err(error) => error.into(),
        Ok(None) => unknown_workflow(client, workflow).await,
        Ok(Some(tasks)) => {
            let known = listed(tasks.iter().map(|entry| entry.task.as_str()));
            let hint = format!("tasks measured in `{workflow}`: {known}");
            CliError::input(format!("nothing was ever measured of task `{workflow}/{task}`"), hint)
        }
    }
}

/// What to say where nothing is known of a workflow.
pub async fn unknown_workflow(client: &Client, workflow: &WorkflowName) -> CliError {
    match client.workflows().await {
        Err(error) => error.into(),
        Ok(workflows) => {
            let known = listed(workflows.iter().map(|entry| entry.workflow.as_str()));
            let hint = format!(
                "known workflows: {known}; a workflow is known once it was run or its measurements imported"
            );
            CliError::input(format!("nothing was ever measured of workflow `{workflow}`"), hint)
        }
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(NAMES_SHOWN_MAX);
    names.truncate(NAMES_SHOWN_MAX);
    match (names.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
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

    #[test]
    fn many_names_are_listed_in_part() {
        assert_eq!(listed(["b", "a"].into_iter()), "a, b");
        assert_eq!(listed(std::iter::empty()), "none");
        let many: Vec<String> = (0..30).map(|n| format!("n{n:02}")).collect();
        assert!(listed(many.iter().map(String::as_str)).ends_with("n19 and 10 more"));
    }
}

//! Why a plan is as it is, and the plan as a page.

use std::sync::Arc;

use foresail_planner::Alternatives;
use foresail_schemas::TaskId;
use foresail_schemas::plan::Plan;
use serde::Deserialize;
use serde_json::{Value, json};

use super::calls::{Planned, Session, apart, no_plan};
use super::wire::Fault;
use crate::reasons::{in_words, worth_explaining};
use crate::{outlook, page as pages, units};

/// Width of the picture of a plan in characters.
const GANTT_WIDTH: usize = 100;
/// Tasks of which a plan says unasked why they are where they are.
const TOLD_MAX: usize = 40;

/// A plan, by its id or that of a run.
#[derive(Deserialize)]
pub struct OfPlan {
    plan: String,
    /// The tasks that are asked about; the most important where empty.
    #[serde(default)]
    tasks: Vec<TaskId>,
}

/// The reasons in words.
pub async fn explain(session: &Session, asked: OfPlan) -> Result<Value, Fault> {
    let planned = find(session, &asked.plan)?;
    let is_asked = !asked.tasks.is_empty();
    let (planned, alternatives) = alternatives(planned, asked.tasks).await?;
    let text = match is_asked {
        true => told_tasks(&planned.plan, &alternatives),
        false => told_plan(&planned.plan) + &told_tasks(&planned.plan, &alternatives),
    };
    Ok(json!({ "text": text }))
}

/// The plan as a page in a file of the session.
pub async fn page(session: &Session, asked: OfPlan) -> Result<Value, Fault> {
    let planned = find(session, &asked.plan)?;
    let (planned, alternatives) = alternatives(planned, asked.tasks).await?;
    let text = pages::page(&planned.problem, &planned.plan, &alternatives);
    Ok(json!({ "file": session.write_file("page", text.as_bytes()).await? }))
}

fn find(session: &Session, id: &str) -> Result<Arc<Planned>, Fault> {
    session.find_plan(id).ok_or_else(|| no_plan(id))
}

async fn alternatives(
    planned: Arc<Planned>,
    tasks: Vec<TaskId>,
) -> Result<(Arc<Planned>, Vec<Alternatives>), Fault> {
    let work = move || {
        let tasks = match tasks.is_empty() {
            true => worth_explaining(&planned.problem, &planned.plan),
            false => tasks,
        };
        let found = foresail_planner::alternatives(&planned.problem, &planned.plan, &tasks);
        found.map(|found| (Arc::clone(&planned), found))
    };
    let wrong = |e: foresail_planner::DraftFailure| Fault::wrong(e.to_string(), "name tasks of the workflow");
    apart(work).await?.map_err(wrong)
}

fn told_plan(plan: &Plan) -> String {
    let (p, b) = (&plan.predicted, &plan.bounds);
    let mut text = format!(
        "{}: {} tasks, planner {}\nmakespan {} ({:.2} of what no plan is below), cost {} ({:.2})\n\
         {} invocations, {} of them cold\n",
        plan.workflow,
        plan.tasks.len(),
        plan.planner,
        units::ms(p.makespan_ms),
        b.makespan_ratio,
        units::usd(p.cost_usd),
        b.cost_ratio,
        p.invocations,
        p.cold_starts,
    );
    text += &outlook::in_words(plan);
    text += &foresail_planner::gantt(plan, GANTT_WIDTH);
    for sentence in &plan.explanation {
        text += &format!("- {sentence}\n");
    }
    text
}

fn told_tasks(plan: &Plan, explained: &[Alternatives]) -> String {
    let mut text = String::new();
    for of in explained.iter().take(TOLD_MAX) {
        let Some(task) = plan.tasks.iter().find(|task| task.task == of.task) else { continue };
        let worker = task.worker.as_ref().map_or_else(|| "any worker".to_owned(), ToString::to_string);
        text += &format!(
            "{}: {worker}, {}, {} to {}\n",
            task.task,
            task.config,
            units::ms(task.start_ms),
            units::ms(task.end_ms)
        );
        if !task.why.is_empty() {
            text += &format!("  {}\n", task.why);
        }
        for other in &of.others {
            text += &format!("  instead {}\n", in_words(other, &of.chosen));
        }
    }
    text
}

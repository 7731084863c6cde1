//! A plan as one HTML page that needs nothing else: no network, no script, no font.
//!
//! It shows what the plan takes and costs beside the bounds, the workers over time, the graph with its
//! critical path, where the money goes, and every task with the reasons for its place. Up to
//! [`TASKS_DETAILED_MAX`] tasks it shows each of them; beyond that it shows functions and levels, and of the
//! tasks those on the critical path.
//!
//! The page is HTML that is well-formed XML as well. Every text of the plan is escaped, and a policy in the
//! page forbids it to load anything.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;

use foresail_planner::Alternatives;
use foresail_schemas::TaskId;
use foresail_schemas::plan::{Objective, Plan, PlannedTask, Problem};

use crate::beside;
use crate::reasons::in_words;
use crate::units;

mod costs;
mod gantt;
mod graph;

/// Most tasks of which each is shown.
pub const TASKS_DETAILED_MAX: usize = 2_000;
/// Most tasks of the critical path that are listed where not all tasks are.
const PATH_LISTED_MAX: usize = 500;
/// Most workers started beforehand that are listed.
const PREWARMS_LISTED_MAX: usize = 200;
/// Functions with a colour of their own; the others share one.
const COLOURS_MAX: usize = 12;
/// Degrees between the hues of two functions: the golden angle, so that neighbours differ.
const HUE_STEP: f64 = 137.508;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1d2430; --soft: #667085; --line: #d5dae3; --card: #f6f8fb;
  --back: #ffffff; --hot: #d1242f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #9aa4b5; --line: #343c4a;
  --card: #1b212b; --back: #12161d; --hot: #ff6b6b; } }
body { margin: 2rem auto; max-width: 1180px; padding: 0 1rem; color: var(--ink); background: var(--back);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p { margin: .3rem 0; } .soft { color: var(--soft); }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .6rem 1rem; }
.card b { display: block; font-size: 1.25rem; } .card span { color: var(--soft); font-size: .85rem; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; padding: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
th.n, td.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
tr.hot td:first-child { box-shadow: inset 3px 0 0 var(--hot); }
svg text { fill: var(--ink); font: 11px system-ui, sans-serif; } svg .soft { fill: var(--soft); }
svg .grid { stroke: var(--line); stroke-width: 1; } svg .life { fill: var(--line); opacity: .6; }
svg .hot { stroke: var(--hot); stroke-width: 2; } svg .edge { stroke: var(--soft); opacity: .45; fill: none; }
svg .edge.hot { stroke: var(--hot); opacity: 1; }
ul.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1rem; padding: 0; margin: .5rem 0; }
ul.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: 3px; margin-right: .35rem; }
ul.others { margin: 0; padding-left: 1rem; color: var(--soft); } summary { cursor: pointer; }
";

/// What the parts of the page share.
struct Page<'a> {
    problem: &'a Problem,
    plan: &'a Plan,
    is_critical: HashSet<&'a TaskId>,
    /// Place of every function among the colours, in order of how many tasks it has.
    colour: HashMap<&'a str, usize>,
    functions: Vec<(&'a str, usize)>,
}

/// The page. `alternatives` are shown for the tasks that they are of.
#[must_use]
pub fn page(problem: &Problem, plan: &Plan, alternatives: &[Alternatives]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for task in problem.workflow.tasks() {
        *counts.entry(task.name.as_str()).or_default() += 1;
    }
    let mut functions: Vec<(&str, usize)> = counts.into_iter().collect();
    functions.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let page = Page {
        problem,
        plan,
        is_critical: plan.critical_path.iter().collect(),
        colour: functions.iter().enumerate().map(|(at, (name, _))| (*name, at)).collect(),
        functions,
    };
    let title = format!("Plan of {}", escaped(plan.workflow.as_str()));
    let mut text = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
    );
    page.head(&mut text);
    page.section(&mut text, "Workers over time", Page::workers_over_time);
    page.section(&mut text, "Graph and critical path", graph::write);
    page.section(&mut text, "Where the money goes", costs::write);
    page.section(&mut text, "Why this plan", Page::explanation);
    page.tasks(&mut text, alternatives);
    text.push_str("</body></html>\n");
    text
}

impl Page<'_> {
    fn is_detailed(&self) -> bool {
        self.plan.tasks.len() <= TASKS_DETAILED_MAX
    }

    fn section(&self, text: &mut String, title: &str, write: fn(&Self, &mut String)) {
        push(text, format_args!("<section><h2>{title}</h2>\n"));
        write(self, text);
        text.push_str("</section>\n");
    }

    /// The name of the function of a task.
    fn function(&self, task: usize) -> &str {
        self.problem.workflow.tasks()[task].name.as_str()
    }

    fn fill(&self, function: &str) -> String {
        match self.colour.get(function) {
            Some(at) if *at < COLOURS_MAX => {
                format!("hsl({:.0} 55% 55%)", (210.0 + HUE_STEP * *at as f64) % 360.0)
            }
            _ => "hsl(220 8% 60%)".to_owned(),
        }
    }

    fn head(&self, text: &mut String) {
        let (plan, predicted, bounds) = (self.plan, &self.plan.predicted, &self.plan.bounds);
        push(
            text,
            format_args!(
                "<p class=\"soft\">{} tasks, planner {}, {}, on {}, predictions at {}, seed {}</p>\n",
                plan.tasks.len(),
                escaped(plan.planner.as_str()),
                objective(&plan.objective),
                escaped(plan.platform.as_str()),
                plan.sla,
                plan.seed
            ),
        );
        text.push_str("<div class=\"cards\">\n");
        let card = |text: &mut String, value: String, what: String| {
            push(text, format_args!("<div class=\"card\"><b>{value}</b><span>{what}</span></div>\n"));
        };
        let beside = |bound: String, ratio: f64| format!("no plan is below {bound}: {ratio:.2} times that");
        card(
            text,
            units::ms(predicted.makespan_ms),
            format!("makespan; {}", beside(units::ms(bounds.makespan_ms), bounds.makespan_ratio)),
        );
        card(
            text,
            units::usd(predicted.cost_usd),
            format!("cost; {}", beside(units::usd(bounds.cost_usd), bounds.cost_ratio)),
        );
        card(
            text,
            format!("{:.2} GB s", predicted.gb_seconds),
            "memory times life of all workers".to_owned(),
        );
        let cold = format!("invocations, {} of them cold", predicted.cold_starts);
        card(text, predicted.invocations.to_string(), cold);
        let moved = format!(
            "{} down, {} up",
            units::bytes(predicted.download_bytes),
            units::bytes(predicted.upload_bytes)
        );
        card(text, moved, "moved".to_owned());
        text.push_str("</div>\n");
    }

    fn workers_over_time(&self, text: &mut String) {
        gantt::write(self, text);
        self.legend(text);
    }

    fn legend(&self, text: &mut String) {
        text.push_str("<ul class=\"legend\">");
        for (name, tasks) in self.functions.iter().take(COLOURS_MAX) {
            let fill = self.fill(name);
            let name = escaped(name);
            push(text, format_args!("<li><i style=\"background: {fill}\"></i>{name} ({tasks})</li>"));
        }
        if self.functions.len() > COLOURS_MAX {
            let others = self.functions.len() - COLOURS_MAX;
            let fill = self.fill("");
            push(text, format_args!("<li><i style=\"background: {fill}\"></i>{others} other functions</li>"));
        }
        text.push_str("</ul>\n");
    }

    fn explanation(&self, text: &mut String) {
        text.push_str("<ul>\n");
        for sentence in &self.plan.explanation {
            push(text, format_args!("<li>{}</li>\n", escaped(sentence)));
        }
        if let Some(beside) = beside::of_plan(self.plan) {
            push(text, format_args!("<li>{}</li>\n", escaped(&beside)));
        }
        text.push_str("</ul>\n");
        let prewarms = beside::prewarms(self.plan);
        let more = prewarms.len().saturating_sub(PREWARMS_LISTED_MAX);
        if prewarms.len() > 0 {
            text.push_str("<p>Started beforehand:</p>\n<ul>\n");
            for prewarm in prewarms.take(PREWARMS_LISTED_MAX) {
                push(text, format_args!("<li>{}</li>\n", escaped(&prewarm)));
            }
            if more > 0 {
                push(text, format_args!("<li>and {more} more</li>\n"));
            }
            text.push_str("</ul>\n");
        }
    }

    fn tasks(&self, text: &mut String, alternatives: &[Alternatives]) {
        let listed: Vec<usize> = match self.is_detailed() {
            true => (0..self.plan.tasks.len()).collect(),
            false => {
                let graph = self.problem.workflow.graph();
                let path = self.plan.critical_path.iter().filter_map(|id| graph.find(id));
                path.take(PATH_LISTED_MAX).map(|t| t as usize).collect()
            }
        };
        let title = if self.is_detailed() { "Tasks" } else { "Tasks on the critical path" };
        push(text, format_args!("<section><h2>{title}</h2>\n"));
        if listed.len() < self.plan.tasks.len() {
            push(
                text,
                format_args!("<p class=\"soft\">{} of {} tasks</p>\n", listed.len(), self.plan.tasks.len()),
            );
        }
        text.push_str(
            "<p class=\"soft\">Red: on the critical path. Alternatives: the same plan with this task \
             elsewhere, and what the whole would then take and cost.</p>\n\
             <div class=\"wide\"><table><tr><th>task</th><th>function</th><th>worker</th>\
             <th class=\"n\">size</th>\
             <th class=\"n\">start</th><th class=\"n\">end</th><th class=\"n\">in the code</th>\
             <th>beside running</th><th>why there</th></tr>\n",
        );
        let of: HashMap<&TaskId, &Alternatives> = alternatives.iter().map(|a| (&a.task, a)).collect();
        for t in listed {
            let task = &self.plan.tasks[t];
            self.task(text, task, self.function(t), of.get(&task.task).copied());
        }
        text.push_str("</table></div></section>\n");
    }

    fn task(&self, text: &mut String, task: &PlannedTask, function: &str, others: Option<&Alternatives>) {
        let hot = if self.is_critical.contains(&task.task) { " class=\"hot\"" } else { "" };
        push(
            text,
            format_args!(
                "<tr{hot}><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
                 <td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td><td>{}",
                escaped(task.task.as_str()),
                escaped(function),
                task.worker.as_ref().map_or_else(|| "any".to_owned(), |w| escaped(w.as_str())),
                task.config,
                units::ms(task.start_ms),
                units::ms(task.end_ms),
                units::ms(task.exec_ms),
                escaped(&beside::of_task(task)),
                escaped(&task.why),
            ),
        );
        if let Some(alternatives) = others.filter(|a| !a.others.is_empty()) {
            push(
                text,
                format_args!(
                    "<details><summary>{} alternatives</summary><ul class=\"others\">",
                    alternatives.others.len()
                ),
            );
            for other in &alternatives.others {
                let sentence = in_words(other, &alternatives.chosen);
                push(text, format_args!("<li>{}</li>", escaped(&sentence)));
            }
            text.push_str("</ul></details>");
        }
        text.push_str("</td></tr>\n");
    }
}

fn objective(objective: &Objective) -> String {
    match objective {
        Objective::Fastest => "as fast as possible".to_owned(),
        Objective::Cheapest => "as cheap as possible".to_owned(),
        Objective::Deadline { makespan_ms } => format!("cheapest within {}", units::ms(*makespan_ms)),
        Objective::Confidence { makespan_ms, probability } => {
            format!("cheapest within {} with probability {probability}", units::ms(*makespan_ms))
        }
        Objective::Budget { cost_usd } => format!("fastest for {}", units::usd(*cost_usd)),
        Objective::Balance { time_weight } => format!("balance, time weighs {time_weight}"),
    }
}

/// Text that stays text: nothing in it is markup, and characters that no document may have are replaced.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(c),
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("writing to a string never fails");
}

#[cfg(test)]
mod tests;

//! The page is read by a parser: it is well-formed, has everything in it and asks for nothing outside.

use foresail_planner::alternatives;
use foresail_schemas::plan::Objective;
use foresail_schemas::workflow::Workflow;
use foresail_schemas::{Platform, Sla};
use roxmltree::{Document, ParsingOptions};

use super::*;
use crate::lab::shapes::Shape;
use crate::reasons::worth_explaining;

struct Planned {
    problem: Problem,
    plan: Plan,
    text: String,
}

fn planned(workflow: &Workflow, planner: &str, platform: usize) -> Planned {
    let platform = Platform::built_in().remove(platform);
    let table = foresail_planner::blind_table(workflow, &platform, Sla::MEDIAN);
    let problem = crate::problem(workflow, &platform, table, Objective::Fastest, 0);
    let plan = crate::plan(planner, &problem).unwrap();
    let tasks = worth_explaining(&problem, &plan);
    let text = page(&problem, &plan, &alternatives(&problem, &plan, &tasks).unwrap());
    Planned { problem, plan, text }
}

fn parsed(text: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).unwrap_or_else(|e| panic!("{e}"))
}

fn cells<'a>(document: &'a Document<'a>, column: usize) -> Vec<String> {
    let rows = document.descendants().filter(|n| n.has_tag_name("tr"));
    let cell = |row: roxmltree::Node<'a, 'a>| {
        row.children().filter(|n| n.has_tag_name("td")).nth(column).and_then(|n| n.text().map(str::to_owned))
    };
    rows.filter_map(cell).collect()
}

fn titles(document: &Document<'_>, tag: &str) -> Vec<String> {
    let shapes = document.descendants().filter(|n| n.has_tag_name(tag));
    let title = |n: roxmltree::Node<'_, '_>| {
        n.children().find(|c| c.has_tag_name("title")).and_then(|t| t.text().map(str::to_owned))
    };
    shapes.filter_map(title).collect()
}

/// Nothing in the page leads out of it.
fn asks_for_nothing(document: &Document<'_>, text: &str) {
    for word in ["http:", "https:", "//", "url(", "@import", "<script", "<link", "<img", "<iframe"] {
        assert!(!text.contains(word), "`{word}` is in the page");
    }
    for attribute in document.descendants().flat_map(|n| n.attributes()) {
        assert!(!["src", "href", "action", "onclick", "onload"].contains(&attribute.name()), "{attribute:?}");
    }
}

#[test]
fn every_task_is_in_the_table_the_picture_and_the_graph() {
    for (shape, planner, platform) in
        [(Shape::ForkJoin(2, 12), "auto", 1), (Shape::Tsqr(8), "simple", 1), (Shape::Gemm(2), "uniform", 0)]
    {
        let Planned { plan, text, .. } = planned(&shape.workflow(), planner, platform);
        let document = parsed(&text);
        asks_for_nothing(&document, &text);
        let (listed, drawn, nodes) =
            (cells(&document, 0), titles(&document, "rect"), titles(&document, "circle"));
        for task in &plan.tasks {
            let id = task.task.as_str();
            assert!(listed.iter().any(|cell| cell == id), "{id} of {shape} is not in the table");
            assert!(
                drawn.iter().any(|t| t.starts_with(&format!("{id}:"))),
                "{id} of {shape} is not over time"
            );
            assert!(nodes.iter().any(|t| t.starts_with(&format!("{id} "))), "{id} of {shape} is no node");
        }
        let hot = document.descendants().filter(|n| n.attribute("class") == Some("hot"));
        let hot = hot.filter(|n| n.has_tag_name("circle")).count();
        assert_eq!(hot, plan.critical_path.len(), "{shape}");
        assert!(text.contains("alternatives</summary>") && text.contains("a worker of its own"), "{shape}");
    }
}

#[test]
fn what_is_done_beside_running_a_task_is_in_the_table_and_in_the_picture() {
    let (problem, plan) = crate::beside::tests::optimised();
    let text = page(&problem, &plan, &[]);
    let document = parsed(&text);
    let id = plan.tasks[1].task.as_str();
    let rows = document.descendants().filter(|n| n.has_tag_name("tr"));
    let cells = |row: roxmltree::Node<'_, '_>| -> Vec<String> {
        row.children().filter(|n| n.has_tag_name("td")).map(|n| n.text().unwrap_or("").to_owned()).collect()
    };
    let row = rows.map(cells).find(|cells| cells.first().is_some_and(|cell| cell == id)).unwrap();
    assert_eq!(row[7], "pre-load, task-dup");
    let drawn = titles(&document, "rect");
    let of_task = drawn.iter().find(|title| title.starts_with(&format!("{id}:"))).unwrap();
    assert!(of_task.ends_with(", pre-load, task-dup"), "{of_task}");
    let said = |end: &str| {
        let items = document.descendants().filter(|n| n.has_tag_name("li"));
        items.filter_map(|n| n.text()).any(|text| text.ends_with(end))
    };
    assert!(said("pre-load of 2 tasks, task-dup of 1 task") && said("at 1.25 s"));
}

#[test]
fn a_large_plan_is_shown_by_function_and_level() {
    let Planned { plan, text, .. } = planned(&Shape::Layered(40, 60).workflow(), "simple", 1);
    assert!(plan.tasks.len() > TASKS_DETAILED_MAX);
    let document = parsed(&text);
    asks_for_nothing(&document, &text);
    let nodes = titles(&document, "circle");
    assert_eq!(nodes.len(), 40 * 7, "a node per level and function");
    let listed = cells(&document, 0);
    for id in &plan.critical_path {
        assert!(listed.iter().any(|cell| cell == id.as_str()), "{id} is on the critical path");
    }
    assert!(text.len() < 4_000_000, "{}", text.len());
}

#[test]
fn what_is_no_name_is_text_and_never_markup() {
    let Planned { problem, mut plan, .. } = planned(&Shape::Tree(4).workflow(), "simple", 1);
    let bad = "</td><script>alert('1 & \"2\"')</script>\u{1}\u{ffff}";
    plan.tasks[0].why = bad.to_owned();
    plan.explanation.push(bad.to_owned());
    let text = page(&problem, &plan, &[]);
    let document = parsed(&text);
    asks_for_nothing(&document, &text);
    let read = bad.replace(['\u{1}', '\u{ffff}'], "\u{fffd}");
    assert_eq!(cells(&document, 8)[0], read, "it is read as it was written");
    assert!(document.descendants().any(|n| n.has_tag_name("li") && n.text() == Some(&read)));
}

#[test]
fn the_parts_of_the_cost_add_up_whoever_planned() {
    for planner in ["simple", "uniform", "nonuniform", "auto"] {
        let Planned { problem, plan, .. } = planned(&Shape::Svd(6).workflow(), planner, 1);
        let whole = Page {
            problem: &problem,
            plan: &plan,
            is_critical: HashSet::new(),
            colour: HashMap::new(),
            functions: Vec::new(),
        };
        for (what, parts) in [
            ("kind", costs::by_kind(&whole)),
            ("size", costs::by_size(&whole)),
            ("worker", costs::by_worker(&whole)),
        ] {
            let sum: f64 = parts.iter().map(|(.., usd)| usd).sum();
            let total = plan.predicted.cost_usd;
            assert!((sum / total - 1.0).abs() < 1e-6, "{planner} by {what}: {sum} of {total}: {parts:?}");
            assert!(parts.iter().all(|(.., usd)| *usd >= 0.0));
        }
    }
}

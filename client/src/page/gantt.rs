//! Workers over time: a row per worker with its tasks, or, of large plans, how many tasks run at a time.

use super::{COLOURS_MAX, Page, TASKS_DETAILED_MAX, escaped, push};
use crate::{beside, units};

/// Width of the time axis, in pixels.
const WIDTH: f64 = 980.0;
/// Room for names on the left.
const LEFT: f64 = 130.0;
/// Height of a lane of a worker.
const LANE: f64 = 16.0;
/// Height of the picture of a large plan.
const AREA_HEIGHT: f64 = 260.0;
/// Moments at which tasks of a large plan are counted.
const MOMENTS: usize = 240;
/// Marks on the time axis.
const MARKS: u32 = 8;

struct Row {
    name: String,
    life_ms: Option<(f64, f64)>,
    lanes: Vec<Vec<usize>>,
}

pub(super) fn write(page: &Page, text: &mut String) {
    let workers = page.plan.workers.iter().map(|w| w.end_ms);
    let end_ms = workers.fold(page.plan.predicted.makespan_ms, f64::max).max(1e-9);
    let x = |ms: f64| LEFT + ms / end_ms * WIDTH;
    match page.is_detailed() {
        true => detailed(page, text, end_ms, &x),
        false => counted(page, text, end_ms, &x),
    }
}

fn open(text: &mut String, height: f64, end_ms: f64, label: &str, x: &dyn Fn(f64) -> f64) {
    push(
        text,
        format_args!(
            "<div class=\"wide\"><svg viewBox=\"0 0 {:.0} {:.0}\" width=\"{0:.0}\" role=\"img\" \
             aria-label=\"{label}\">\n",
            LEFT + WIDTH + 20.0,
            height + 24.0
        ),
    );
    for mark in 0..=MARKS {
        let at_ms = end_ms * f64::from(mark) / f64::from(MARKS);
        let (at, anchor) = (x(at_ms), if mark == MARKS { "end" } else { "middle" });
        let time = units::ms(at_ms);
        push(
            text,
            format_args!(
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"0\" y2=\"{height:.1}\"/><text \
                 class=\"soft\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{time}</text>\n",
                height + 16.0
            ),
        );
    }
}

fn detailed(page: &Page, text: &mut String, end_ms: f64, x: &dyn Fn(f64) -> f64) {
    let rows = rows(page);
    let lanes: usize = rows.iter().map(|row| row.lanes.len().max(1)).sum();
    let height = lanes as f64 * LANE + rows.len() as f64 * 4.0;
    open(text, height, end_ms, "workers over time", x);
    let mut y = 0.0;
    for row in &rows {
        let own = row.lanes.len().max(1) as f64 * LANE;
        push(text, format_args!("<text x=\"4\" y=\"{:.1}\">{}</text>\n", y + 12.0, escaped(&row.name)));
        if let Some((from, to)) = row.life_ms {
            let (at, width) = (x(from), x(to) - x(from));
            push(
                text,
                format_args!(
                    "<rect class=\"life\" x=\"{at:.2}\" y=\"{y:.1}\" width=\"{width:.2}\" \
                     height=\"{own:.1}\"/>\n"
                ),
            );
        }
        for (lane, tasks) in row.lanes.iter().enumerate() {
            for &t in tasks {
                task(page, text, t, y + lane as f64 * LANE, x);
            }
        }
        y += own + 4.0;
    }
    text.push_str("</svg></div>\n");
}

fn task(page: &Page, text: &mut String, t: usize, y: f64, x: &dyn Fn(f64) -> f64) {
    let task = &page.plan.tasks[t];
    let (at, width) = (x(task.start_ms), (x(task.end_ms) - x(task.start_ms)).max(0.6));
    let hot = if page.is_critical.contains(&task.task) { " class=\"hot\"" } else { "" };
    let beside = match beside::of_task(task) {
        none if none.is_empty() => none,
        some => format!(", {}", escaped(&some)),
    };
    push(
        text,
        format_args!(
            "<rect{hot} x=\"{at:.2}\" y=\"{:.1}\" width=\"{width:.2}\" height=\"{:.1}\" rx=\"2\" \
             style=\"fill: {}\"><title>{}: {} to {}, {}{beside}</title></rect>\n",
            y + 2.0,
            LANE - 4.0,
            page.fill(page.function(t)),
            escaped(task.task.as_str()),
            units::ms(task.start_ms),
            units::ms(task.end_ms),
            task.config
        ),
    );
}

/// A row per planned worker, and rows for tasks that any worker may take, as few as hold them.
fn rows(page: &Page) -> Vec<Row> {
    let plan = page.plan;
    let mut rows: Vec<Row> = plan
        .workers
        .iter()
        .map(|w| Row {
            name: format!("{} {}", w.id, w.config),
            life_ms: Some((w.start_ms, w.end_ms)),
            lanes: Vec::new(),
        })
        .collect();
    let place: std::collections::HashMap<_, _> =
        plan.workers.iter().enumerate().map(|(at, w)| (&w.id, at)).collect();
    let mut any = Row { name: "any worker".to_owned(), life_ms: None, lanes: Vec::new() };
    let mut order: Vec<usize> = (0..plan.tasks.len()).filter(|&t| !plan.tasks[t].unexpected).collect();
    order.sort_by(|&a, &b| plan.tasks[a].start_ms.total_cmp(&plan.tasks[b].start_ms).then(a.cmp(&b)));
    for t in order {
        let worker = plan.tasks[t].worker.as_ref().and_then(|w| place.get(w));
        let row = match worker {
            Some(&at) => &mut rows[at],
            None => &mut any,
        };
        let is_free = |lane: &Vec<usize>| {
            lane.last().is_none_or(|&l| plan.tasks[l].end_ms <= plan.tasks[t].start_ms + 1e-6)
        };
        match row.lanes.iter().position(is_free) {
            Some(lane) => row.lanes[lane].push(t),
            None => row.lanes.push(vec![t]),
        }
    }
    if !any.lanes.is_empty() {
        rows.push(any);
    }
    rows
}

/// How many tasks of each function run, at evenly spaced moments.
fn counted(page: &Page, text: &mut String, end_ms: f64, x: &dyn Fn(f64) -> f64) {
    let kinds = page.functions.len().min(COLOURS_MAX + 1);
    let mut running = vec![vec![0_u32; kinds]; MOMENTS];
    let moment = |ms: f64| ((ms / end_ms * MOMENTS as f64) as usize).min(MOMENTS - 1);
    for (t, task) in page.plan.tasks.iter().enumerate().filter(|(_, task)| !task.unexpected) {
        let kind = page.colour.get(page.function(t)).copied().unwrap_or(0).min(kinds - 1);
        for counts in &mut running[moment(task.start_ms)..=moment(task.end_ms)] {
            counts[kind] += 1;
        }
    }
    let most = running.iter().map(|counts| counts.iter().sum::<u32>()).max().unwrap_or(1).max(1);
    push(
        text,
        format_args!(
            "<p class=\"soft\">More than {TASKS_DETAILED_MAX} tasks: how many of each function run, at most \
             {most} of all together.</p>\n"
        ),
    );
    open(text, AREA_HEIGHT, end_ms, "tasks over time", x);
    let width = WIDTH / MOMENTS as f64;
    for (at, counts) in running.iter().enumerate() {
        let mut y = AREA_HEIGHT;
        for (kind, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let height = f64::from(count) / f64::from(most) * AREA_HEIGHT;
            y -= height;
            let name = if kind < COLOURS_MAX { page.functions[kind].0 } else { "" };
            push(
                text,
                format_args!(
                    "<rect x=\"{:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" \
                     style=\"fill: {}\"/>\n",
                    LEFT + at as f64 * width,
                    page.fill(name)
                ),
            );
        }
    }
    push(text, format_args!("<text x=\"4\" y=\"12\">{most} tasks</text>\n</svg></div>\n"));
}

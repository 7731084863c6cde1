//! Where the money goes: by kind of cost, by size and by worker.
//!
//! The parts of one table add up to the cost of the plan. Memory is billed while a worker lives; how much of
//! that its tasks spend in code and in transfers is known, the rest is starting, waiting and round trips.
//! What workers that no task is bound to cost together is known too; it is shared among sizes in proportion
//! to the memory that their tasks hold.

use std::collections::BTreeMap;

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::plan::PlannedTask;
use foresail_schemas::platform::Pool;

use super::{Page, escaped, push};
use crate::units;

/// Most workers that are listed, the dearest first.
const WORKERS_MAX: usize = 200;

pub(super) fn write(page: &Page, text: &mut String) {
    table(text, "kind of cost", &by_kind(page), page.plan.predicted.cost_usd);
    table(text, "size", &by_size(page), page.plan.predicted.cost_usd);
    table(text, "worker", &by_worker(page), page.plan.predicted.cost_usd);
}

/// What it is, what stands beside it, and its cost.
type Part = (String, String, f64);

fn table(text: &mut String, what: &str, parts: &[Part], total_usd: f64) {
    push(
        text,
        format_args!(
            "<div class=\"wide\"><table><tr><th>{what}</th><th></th><th class=\"n\">cost</th>\
             <th class=\"n\">share</th>\
             <th></th></tr>\n"
        ),
    );
    for (name, beside, usd) in parts {
        let share = if total_usd > 0.0 { 100.0 * usd / total_usd } else { 0.0 };
        push(
            text,
            format_args!(
                "<tr><td>{}</td><td class=\"soft\">{}</td><td class=\"n\">{}</td>\
                 <td class=\"n\">{share:.1} %</td>\
                 <td><svg width=\"160\" height=\"10\"><rect width=\"{:.1}\" height=\"10\" rx=\"2\" \
                 style=\"fill: hsl(210 55% 55%)\"/></svg></td></tr>\n",
                escaped(name),
                escaped(beside),
                units::usd(*usd),
                1.6 * share.clamp(0.0, 100.0)
            ),
        );
    }
    text.push_str("</table></div>\n");
}

/// The pool, where this is its size.
fn pool_of(page: &Page, config: &ResourceConfig) -> Option<Pool> {
    page.problem.platform.pool.filter(|pool| pool.config().key() == config.key())
}

/// USD per ms of a task's worker, its share where several tasks run at a time.
fn usd_per_ms(page: &Page, task: &PlannedTask) -> f64 {
    let platform = &page.problem.platform;
    if let Some(pool) = pool_of(page, &task.config) {
        return pool.usd_per_ms() / f64::from(platform.lanes);
    }
    task.config.gb() * platform.prices.gb_second_usd / 1000.0 / f64::from(platform.lanes)
}

pub(super) fn by_kind(page: &Page) -> Vec<Part> {
    let (predicted, problem) = (&page.plan.predicted, page.problem);
    let prices = &problem.platform.prices;
    let pooled: Vec<_> =
        page.plan.workers.iter().filter_map(|w| Some((w, pool_of(page, &w.config)?))).collect();
    let (mut pool_usd, mut pool_gb_seconds) = (0.0, 0.0);
    for (worker, pool) in &pooled {
        let life_ms = (worker.end_ms - worker.start_ms).min(worker.cost_usd / pool.usd_per_ms());
        pool_usd += life_ms * pool.usd_per_ms();
        pool_gb_seconds += life_ms / 1000.0 * worker.config.gb();
    }
    let memory_usd = (predicted.gb_seconds - pool_gb_seconds).max(0.0) * prices.gb_second_usd;
    let sum = |of: &dyn Fn(&PlannedTask) -> f64| -> f64 {
        let on_menu = page.plan.tasks.iter().filter(|task| pool_of(page, &task.config).is_none());
        on_menu.map(|task| of(task) * usd_per_ms(page, task)).sum()
    };
    let code_usd = sum(&|t| t.exec_ms);
    let moving_usd = sum(&|t| (t.end_ms - t.start_ms - t.exec_ms).max(0.0));
    let requests = predicted.invocations.saturating_sub(pooled.len() as u64);
    let requests_usd = requests as f64 * prices.request_usd;
    let (objects, sizes) = (problem.workflow.graph().objects(), &problem.predictions.object_bytes);
    let inline_max = problem.platform.inline_bytes_max;
    let is_made = |producer: u32| !page.plan.tasks[producer as usize].unexpected;
    let stored = objects.iter().zip(sizes);
    let stored = stored.filter(|(o, bytes)| o.producer.is_some_and(is_made) && **bytes > inline_max);
    let puts = stored.count();
    let puts_usd = puts as f64 * prices.put_usd;
    let gets_usd = (predicted.cost_usd - memory_usd - pool_usd - requests_usd - puts_usd).max(0.0);
    let text = str::to_owned;
    let mut parts = vec![
        (text("memory, tasks in their code"), text("GB s"), code_usd),
        (text("memory, moving data"), text("GB s"), moving_usd),
        (text("memory, starting and waiting"), text("GB s"), (memory_usd - code_usd - moving_usd).max(0.0)),
        (text("requests"), format!("{requests} invocations"), requests_usd),
        (text("objects written"), format!("{puts} objects"), puts_usd),
        (text("objects read"), text(""), gets_usd),
    ];
    if !pooled.is_empty() {
        parts.insert(3, (text("workers of the pool"), format!("{} workers", pooled.len()), pool_usd));
    }
    parts
}

/// What workers that no task is bound to cost together.
fn unbound_usd(page: &Page) -> f64 {
    let bound: f64 = page.plan.workers.iter().map(|w| w.cost_usd).sum();
    (page.plan.predicted.cost_usd - bound).max(0.0)
}

pub(super) fn by_size(page: &Page) -> Vec<Part> {
    let mut sizes: BTreeMap<(u32, u32), (String, usize, f64)> = BTreeMap::new();
    let mut held: BTreeMap<(u32, u32), f64> = BTreeMap::new();
    for task in page.plan.tasks.iter().filter(|task| !task.unexpected) {
        let entry = sizes.entry(task.config.key()).or_insert_with(|| (task.config.to_string(), 0, 0.0));
        entry.1 += 1;
        if task.worker.is_none() {
            *held.entry(task.config.key()).or_default() +=
                (task.end_ms - task.start_ms) * usd_per_ms(page, task);
        }
    }
    for worker in &page.plan.workers {
        if let Some(entry) = sizes.get_mut(&worker.config.key()) {
            entry.2 += worker.cost_usd;
        }
    }
    let all: f64 = held.values().sum();
    for (key, part) in &held {
        let share = if all > 0.0 { part / all } else { 1.0 / held.len() as f64 };
        if let Some(entry) = sizes.get_mut(key) {
            entry.2 += share * unbound_usd(page);
        }
    }
    sizes.into_values().map(|(size, tasks, usd)| (size, format!("{tasks} tasks"), usd)).collect()
}

pub(super) fn by_worker(page: &Page) -> Vec<Part> {
    let mut workers: Vec<_> = page.plan.workers.iter().collect();
    workers.sort_by(|a, b| b.cost_usd.total_cmp(&a.cost_usd).then(a.id.cmp(&b.id)));
    let part = |w: &&foresail_schemas::plan::PlannedWorker| {
        let life = format!("{}, {} to {}", w.config, units::ms(w.start_ms), units::ms(w.end_ms));
        (w.id.to_string(), life, w.cost_usd)
    };
    let mut parts: Vec<Part> = workers.iter().take(WORKERS_MAX).map(part).collect();
    if workers.len() > WORKERS_MAX {
        let rest = &workers[WORKERS_MAX..];
        let usd = rest.iter().map(|w| w.cost_usd).sum();
        parts.push((format!("{} others", rest.len()), String::new(), usd));
    }
    let flexible = page.plan.tasks.iter().filter(|t| t.worker.is_none()).count();
    if flexible > 0 {
        parts.push(("any worker".to_owned(), format!("{flexible} tasks"), unbound_usd(page)));
    }
    parts
}

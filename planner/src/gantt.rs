//! A plan as a picture in plain characters: a row per worker, time from left to right.

use foresail_schemas::plan::Plan;

/// Narrowest picture, in characters.
const WIDTH_MIN: usize = 40;
/// Most rows; what is beyond is counted.
const ROWS_MAX: usize = 200;
/// Longest name of a row.
const NAME_LEN_MAX: usize = 14;

/// The Gantt chart of `plan`, at most `width` characters wide.
///
/// `.` the worker lives, `#` a task runs, `|` a task begins where another has just ended, `*` tasks of the
/// critical path. Flexible tasks, which no worker is planned for, stand in rows of their own, as few as
/// hold them. What is not expected to run is left out.
#[must_use]
pub fn gantt(plan: &Plan, width: usize) -> String {
    let columns = width.max(WIDTH_MIN) - NAME_LEN_MAX - 3;
    let end_ms = plan.workers.iter().map(|w| w.end_ms).fold(plan.predicted.makespan_ms, f64::max).max(1e-9);
    let column = |ms: f64| ((ms / end_ms * columns as f64) as usize).min(columns - 1);
    let critical: std::collections::HashSet<_> = plan.critical_path.iter().collect();
    let rows = rows(plan);
    let mut text = String::new();
    for row in rows.iter().take(ROWS_MAX) {
        let mut line = vec![' '; columns];
        if let Some((from, to)) = row.life_ms {
            line[column(from)..=column(to)].fill('.');
        }
        for &t in &row.tasks {
            let task = &plan.tasks[t];
            let (from, to) = (column(task.start_ms), column(task.end_ms));
            let mark = if critical.contains(&task.task) { '*' } else { '#' };
            let begin = if from > 0 && matches!(line[from], '#' | '*') { '|' } else { mark };
            line[from..=to].fill(mark);
            line[from] = begin;
        }
        let line: String = line.into_iter().collect();
        text.push_str(&format!("{:<NAME_LEN_MAX$.NAME_LEN_MAX$} [{line}]\n", row.name));
    }
    if rows.len() > ROWS_MAX {
        text.push_str(&format!("({} more rows)\n", rows.len() - ROWS_MAX));
    }
    let (zero, end) = ("0", format!("{end_ms:.0} ms"));
    text.push_str(&format!("{:NAME_LEN_MAX$}  {zero}{end:>rest$}\n", "", rest = columns - zero.len()));
    text
}

struct Row {
    name: String,
    life_ms: Option<(f64, f64)>,
    tasks: Vec<usize>,
}

fn rows(plan: &Plan) -> Vec<Row> {
    let mut rows: Vec<Row> = plan
        .workers
        .iter()
        .map(|w| Row {
            name: format!("{} {}", w.id, w.config.memory_mb),
            life_ms: Some((w.start_ms, w.end_ms)),
            tasks: Vec::new(),
        })
        .collect();
    let place: std::collections::HashMap<_, _> =
        plan.workers.iter().enumerate().map(|(at, w)| (&w.id, at)).collect();
    let mut order: Vec<usize> = (0..plan.tasks.len()).filter(|&t| !plan.tasks[t].unexpected).collect();
    order.sort_by(|&a, &b| plan.tasks[a].start_ms.total_cmp(&plan.tasks[b].start_ms).then(a.cmp(&b)));
    let planned = rows.len();
    for t in order {
        let task = &plan.tasks[t];
        match task.worker.as_ref().and_then(|w| place.get(w)) {
            Some(&at) => rows[at].tasks.push(t),
            None => {
                let free =
                    |row: &Row| row.tasks.last().is_none_or(|&l| plan.tasks[l].end_ms <= task.start_ms);
                match rows[planned..].iter_mut().find(|row| free(row)) {
                    Some(row) => row.tasks.push(t),
                    None => {
                        let name = format!("flexible {}", rows.len() - planned + 1);
                        rows.push(Row { name, life_ms: None, tasks: vec![t] });
                    }
                }
            }
        }
    }
    rows
}

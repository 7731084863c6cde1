//! The graph from left to right by level, the critical path in red. Of large graphs the tasks of one function
//! and level are one node.

use std::collections::{BTreeMap, BTreeSet};

use super::{Page, escaped, push};

/// Most nodes that are drawn.
const NODES_MAX: usize = 2_000;
/// Most edges that are drawn besides those of the critical path.
const EDGES_MAX: usize = 8_000;
/// Distance of two levels and of two nodes of a level, in pixels.
const STEP: (f64, f64) = (150.0, 24.0);
/// Height of the picture at most: taller levels are pressed together.
const HEIGHT_MAX: f64 = 900.0;
/// Radius of a node.
const RADIUS: f64 = 6.0;
/// Longest name beside a node.
const NAME_LEN_MAX: usize = 18;
/// Nodes of a level that have their names beside them.
const NAMED_MAX: usize = 40;

struct Node {
    level: usize,
    function: String,
    name: String,
    title: String,
    is_hot: bool,
}

struct Drawing {
    nodes: Vec<Node>,
    edges: BTreeSet<(usize, usize)>,
    hot: BTreeSet<(usize, usize)>,
}

pub(super) fn write(page: &Page, text: &mut String) {
    let levels = levels(page);
    let drawing = if page.is_detailed() { tasks(page, &levels) } else { groups(page, &levels) };
    if !page.is_detailed() {
        push(
            text,
            format_args!(
                "<p class=\"soft\">A node is all tasks of one function on one level; {} nodes.</p>\n",
                drawing.nodes.len()
            ),
        );
    }
    let path: Vec<&str> = page.plan.critical_path.iter().map(foresail_schemas::TaskId::as_str).collect();
    push(text, format_args!("<p>Critical path, {} tasks: {}</p>\n", path.len(), escaped(&shortened(&path))));
    if drawing.nodes.len() > NODES_MAX {
        text.push_str("<p class=\"soft\">The graph has too many levels to be drawn.</p>\n");
        return;
    }
    draw(page, text, &drawing);
}

/// The path; of a long one both ends.
fn shortened(path: &[&str]) -> String {
    const SHOWN: usize = 20;
    if path.len() <= 2 * SHOWN {
        return path.join(" → ");
    }
    let (head, tail) = (&path[..SHOWN], &path[path.len() - SHOWN..]);
    format!("{} → … {} more … → {}", head.join(" → "), path.len() - 2 * SHOWN, tail.join(" → "))
}

/// Per task the length of the longest way to it.
fn levels(page: &Page) -> Vec<usize> {
    let graph = page.problem.workflow.graph();
    let mut levels = vec![0; graph.len()];
    for &t in graph.order() {
        let above = graph.parents(t).iter().map(|&p| levels[p as usize] + 1);
        levels[t as usize] = above.max().unwrap_or(0);
    }
    levels
}

fn tasks(page: &Page, levels: &[usize]) -> Drawing {
    let graph = page.problem.workflow.graph();
    let nodes = page.plan.tasks.iter().enumerate().map(|(t, task)| Node {
        level: levels[t],
        function: page.function(t).to_owned(),
        name: task.task.to_string(),
        title: match task.unexpected {
            false => format!("{} on {}", task.task, task.config),
            true => format!("{}, not expected to run", task.task),
        },
        is_hot: page.is_critical.contains(&task.task),
    });
    let nodes = nodes.collect();
    let all = (0..graph.len() as u32).flat_map(|t| graph.parents(t).iter().map(move |&p| (p, t)));
    let edges = all.map(|(p, t)| (p as usize, t as usize)).collect();
    let path: Vec<usize> =
        page.plan.critical_path.iter().filter_map(|id| graph.find(id)).map(|t| t as usize).collect();
    // The path also goes from a task to the next on the same worker, which is no edge of the graph.
    let hot = path.windows(2).map(|pair| (pair[0], pair[1])).collect();
    Drawing { nodes, edges, hot }
}

/// One node per function and level.
fn groups(page: &Page, levels: &[usize]) -> Drawing {
    let graph = page.problem.workflow.graph();
    let mut members: BTreeMap<(usize, &str), Vec<usize>> = BTreeMap::new();
    for (t, &level) in levels.iter().enumerate() {
        members.entry((level, page.function(t))).or_default().push(t);
    }
    let place: BTreeMap<(usize, &str), usize> =
        members.keys().enumerate().map(|(at, key)| (*key, at)).collect();
    let node_of = |t: usize| place[&(levels[t], page.function(t))];
    let nodes = members.iter().map(|((level, function), tasks)| Node {
        level: *level,
        function: (*function).to_owned(),
        name: format!("{function} × {}", tasks.len()),
        title: format!("{} tasks of {function}", tasks.len()),
        is_hot: tasks.iter().any(|&t| page.is_critical.contains(&page.plan.tasks[t].task)),
    });
    let nodes = nodes.collect();
    let all = (0..graph.len() as u32).flat_map(|t| graph.parents(t).iter().map(move |&p| (p, t)));
    let edges = all.map(|(p, t)| (node_of(p as usize), node_of(t as usize))).collect();
    let path: Vec<usize> =
        page.plan.critical_path.iter().filter_map(|id| graph.find(id)).map(|t| node_of(t as usize)).collect();
    let hot = path.windows(2).map(|pair| (pair[0], pair[1])).filter(|(a, b)| a != b).collect();
    Drawing { nodes, edges, hot }
}

fn draw(page: &Page, text: &mut String, drawing: &Drawing) {
    let depth = drawing.nodes.iter().map(|n| n.level).max().unwrap_or(0) + 1;
    let mut count = vec![0_usize; depth];
    let mut rows = Vec::with_capacity(drawing.nodes.len());
    for node in &drawing.nodes {
        rows.push(count[node.level]);
        count[node.level] += 1;
    }
    let widest = count.iter().copied().max().unwrap_or(1);
    let height = (widest as f64 * STEP.1).clamp(60.0, HEIGHT_MAX);
    let at = |n: usize| {
        let node = &drawing.nodes[n];
        let gap = (height / count[node.level] as f64).min(2.0 * STEP.1);
        let top = (height - gap * count[node.level] as f64) / 2.0;
        (20.0 + node.level as f64 * STEP.0, 10.0 + top + gap * (rows[n] as f64 + 0.5))
    };
    push(
        text,
        format_args!(
            "<div class=\"wide\"><svg viewBox=\"0 0 {:.0} {:.0}\" width=\"{0:.0}\" role=\"img\" \
             aria-label=\"graph\">\n",
            depth as f64 * STEP.0 + 40.0,
            height + 20.0
        ),
    );
    for edge in drawing.edges.iter().filter(|edge| !drawing.hot.contains(edge)).take(EDGES_MAX) {
        line(text, "edge", at(edge.0), at(edge.1));
    }
    drawing.hot.iter().for_each(|edge| line(text, "edge hot", at(edge.0), at(edge.1)));
    for (n, node) in drawing.nodes.iter().enumerate() {
        let (x, y) = at(n);
        let hot = if node.is_hot { " class=\"hot\"" } else { "" };
        push(
            text,
            format_args!(
                "<circle{hot} cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{RADIUS}\" style=\"fill: {}\"><title>{}</title>\
                 </circle>\n",
                page.fill(&node.function),
                escaped(&node.title)
            ),
        );
        if node.is_hot || count[node.level] <= NAMED_MAX {
            let short = without_middle(&node.name);
            push(
                text,
                format_args!("<text x=\"{:.1}\" y=\"{:.1}\">{}</text>\n", x + 9.0, y - 4.0, escaped(&short)),
            );
        }
    }
    text.push_str("</svg></div>\n");
    let left_out = drawing.edges.len().saturating_sub(EDGES_MAX + drawing.hot.len());
    if left_out > 0 {
        push(text, format_args!("<p class=\"soft\">{left_out} edges are not drawn.</p>\n"));
    }
}

/// A name without its middle where it is long: ids differ at their ends.
fn without_middle(name: &str) -> String {
    let len = name.chars().count();
    if len <= NAME_LEN_MAX {
        return name.to_owned();
    }
    let head = NAME_LEN_MAX / 2;
    let tail = NAME_LEN_MAX - head - 1;
    name.chars().take(head).chain(['…']).chain(name.chars().skip(len - tail)).collect()
}

fn line(text: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let middle = (from.0 + to.0) / 2.0;
    push(
        text,
        format_args!(
            "<path class=\"{class}\" fill=\"none\" d=\"M{:.1} {:.1} C{middle:.1} {:.1} {middle:.1} {:.1} \
             {:.1} {:.1}\"/>\n",
            from.0, from.1, from.1, to.1, to.0, to.1
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::without_middle;

    #[test]
    fn a_long_name_keeps_both_ends() {
        assert_eq!(without_middle("mConcatFit_ID0000049"), "mConcatFi…D0000049");
        assert_eq!(without_middle("mAdd_ID0000056"), "mAdd_ID0000056");
    }
}

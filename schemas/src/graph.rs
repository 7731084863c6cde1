//! The dense form of a workflow: `u32` task and object indices, adjacency in compressed rows.
//!
//! Built once per workflow and shared by planner, choreography and run store. A task's index is its place in
//! the workflow. `parents(t)` are distinct and in order of first mention (inputs, then `after`, then `when`):
//! the place of a parent in that row is the bit of its edge in the in-edge set. Objects are the outputs of
//! tasks followed by the external inputs.

use std::collections::HashMap;

use crate::decision::Wanted;
use crate::id::{DEFAULT_OUTPUT, TaskId};
use crate::workflow::{Input, Task};

mod branches;

use branches::Branches;

/// Why a list of tasks is not a DAG.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Two tasks have the same id.
    #[error("task id `{0}` is used twice")]
    DuplicateTask(TaskId),
    /// Two outputs of one task have the same name.
    #[error("task `{task}` writes `{output}` twice")]
    DuplicateOutput {
        /// The task.
        task: TaskId,
        /// The output.
        output: String,
    },
    /// A task refers to one that is not there.
    #[error("task `{task}` depends on `{parent}`, which is not in the workflow")]
    DanglingTask {
        /// The task.
        task: TaskId,
        /// What it names.
        parent: TaskId,
    },
    /// A task reads an output that its parent does not write.
    #[error("task `{task}` reads `{output}` of `{parent}`, which writes no such output")]
    DanglingOutput {
        /// The task.
        task: TaskId,
        /// The parent.
        parent: TaskId,
        /// The output it names.
        output: String,
    },
    /// Tasks wait for each other.
    #[error("the tasks {} wait for each other in a circle", chain(.0))]
    Cycle(Vec<TaskId>),
}

fn chain(tasks: &[TaskId]) -> String {
    tasks.iter().map(|task| format!("`{task}`")).collect::<Vec<_>>().join(" -> ")
}

/// Rows of `u32` of varying length, stored end to end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    starts: Vec<u32>,
    items: Vec<u32>,
}

impl Rows {
    fn with_capacity(rows: usize) -> Self {
        let mut starts = Vec::with_capacity(rows + 1);
        starts.push(0);
        Self { starts, items: Vec::new() }
    }

    /// What was put into `items` since the row before is a row.
    fn end_row(&mut self) {
        self.starts.push(self.items.len() as u32);
    }

    fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The row at `index`.
    #[must_use]
    #[inline]
    pub fn row(&self, index: u32) -> &[u32] {
        let at = index as usize;
        &self.items[self.starts[at] as usize..self.starts[at + 1] as usize]
    }
}

/// One object: an output of a task, or an external input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The task that writes it; nothing for an external input.
    pub producer: Option<u32>,
    /// Its place among the outputs of its producer.
    pub output: u32,
    /// Size in bytes that the workflow states, where it does.
    pub bytes_hint: Option<u64>,
}

/// The dense graph of a workflow.
#[derive(Debug, Clone)]
pub struct Graph {
    parents: Rows,
    children: Rows,
    /// Beside each child its bit of the edge, in rows like those of `children`.
    bits: Rows,
    reads: Rows,
    writes: Rows,
    consumers: Rows,
    objects: Vec<Object>,
    order: Vec<u32>,
    index: HashMap<TaskId, u32>,
    branches: Branches,
}

impl Graph {
    /// Builds the graph of `tasks`.
    ///
    /// # Errors
    /// [`GraphError`] on double ids, references to nothing, and cycles (with one cycle spelt out).
    pub fn build(tasks: &[Task]) -> Result<Self, GraphError> {
        let index = index_tasks(tasks)?;
        let (mut objects, mut outputs) =
            (Vec::with_capacity(tasks.len()), Outputs::with_capacity(tasks.len()));
        for (t, task) in (0..).zip(tasks) {
            outputs.add(t, task, &mut objects)?;
        }
        let mut external: HashMap<&str, u32> = HashMap::new();
        let (mut parents, mut reads) = (Distinct::rows(tasks.len()), Distinct::rows(tasks.len()));
        for task in tasks {
            for input in &task.inputs {
                match input {
                    Input::Task { task: parent, output, .. } => {
                        let p = find(&index, task, parent)?;
                        let object =
                            outputs.find(p, &tasks[p as usize], output.as_str()).ok_or_else(|| {
                                GraphError::DanglingOutput {
                                    task: task.id.clone(),
                                    parent: parent.clone(),
                                    output: output.to_string(),
                                }
                            })?;
                        parents.add(p);
                        reads.add(object);
                    }
                    Input::External { uri, bytes } => {
                        let object = *external.entry(uri).or_insert_with(|| {
                            objects.push(Object { producer: None, output: 0, bytes_hint: *bytes });
                            objects.len() as u32 - 1
                        });
                        reads.add(object);
                    }
                    Input::Value { .. } => {}
                }
            }
            for parent in task.after.iter().chain(task.when.as_ref().map(|when| &when.task)) {
                parents.add(find(&index, task, parent)?);
            }
            parents.end_row();
            reads.end_row();
        }
        let (parents, reads, writes) = (parents.rows, reads.rows, outputs.rows);
        let children = invert(&parents, tasks.len());
        let consumers = invert(&reads, objects.len());
        let bits = edge_bits(&parents, &children, tasks.len());
        let order = topological(&parents, &children, tasks)?;
        let branches = Branches::of(tasks, &index);
        Ok(Self { parents, children, bits, reads, writes, consumers, objects, order, index, branches })
    }

    /// Number of tasks.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are no tasks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Distinct tasks that `task` waits for; the place in this row is the bit of the edge.
    #[must_use]
    #[inline]
    pub fn parents(&self, task: u32) -> &[u32] {
        self.parents.row(task)
    }

    /// Distinct tasks that wait for `task`, in ascending order.
    #[must_use]
    #[inline]
    pub fn children(&self, task: u32) -> &[u32] {
        self.children.row(task)
    }

    /// Distinct objects that `task` reads.
    #[must_use]
    #[inline]
    pub fn reads(&self, task: u32) -> &[u32] {
        self.reads.row(task)
    }

    /// Objects that `task` writes, in the order of its outputs.
    #[must_use]
    #[inline]
    pub fn writes(&self, task: u32) -> &[u32] {
        self.writes.row(task)
    }

    /// Tasks that read `object`.
    #[must_use]
    #[inline]
    pub fn consumers(&self, object: u32) -> &[u32] {
        self.consumers.row(object)
    }

    /// All objects.
    #[must_use]
    #[inline]
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// The tasks, every parent before its children; ties by index.
    #[must_use]
    #[inline]
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// Tasks that wait for nothing.
    pub fn sources(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.len() as u32).filter(|&t| self.parents(t).is_empty())
    }

    /// Tasks that nothing waits for: their outputs are the results of the workflow.
    pub fn sinks(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.len() as u32).filter(|&t| self.children(t).is_empty())
    }

    /// The index of a task.
    #[must_use]
    pub fn find(&self, id: &TaskId) -> Option<u32> {
        self.index.get(id).copied()
    }

    /// Whether the result of a task says which of the tasks after it run.
    #[must_use]
    #[inline]
    pub fn decides(&self, task: u32) -> bool {
        self.branches.deciders.contains(&task)
    }

    /// Who decides whether a task runs, and what is wanted; nothing for one that always does.
    #[must_use]
    pub fn condition(&self, task: u32) -> Option<(u32, &Wanted)> {
        self.branches.conditions.get(&task).map(|(decider, wanted)| (*decider, wanted))
    }

    /// How many places a decision of the task can fill: one more than the largest `above`, where every task
    /// that waits for it wants a number; nothing where one wants a text, or none waits.
    #[must_use]
    pub fn places(&self, decider: u32) -> Option<u64> {
        let conditions = self.children(decider).iter().filter_map(|&child| self.condition(child));
        let wanted = conditions.filter(|(by, _)| *by == decider).map(|(_, wanted)| match wanted {
            Wanted::Above(place) => Some(place.saturating_add(1)),
            Wanted::Is(_) => None,
        });
        wanted.reduce(|one, other| Some(one?.max(other?))).flatten()
    }

    /// Whether `child` runs although `parent`, one of its parents, is skipped: all that it wants of it are
    /// optional inputs.
    #[must_use]
    pub fn is_optional(&self, parent: u32, child: u32) -> bool {
        self.branches.optional.contains(&(parent, child))
    }

    /// The bit of the edge from `parent` to `child` in the in-edge set of `child`.
    #[must_use]
    pub fn edge_bit(&self, parent: u32, child: u32) -> Option<u32> {
        let at = self.children(parent).binary_search(&child).ok()?;
        Some(self.bits.row(parent)[at])
    }
}

/// Rows in which nothing stands twice.
struct Distinct {
    rows: Rows,
    /// Per item the last row that has it, counted from 1.
    last: Vec<u32>,
}

impl Distinct {
    fn rows(len: usize) -> Self {
        Self { rows: Rows::with_capacity(len), last: vec![0; len] }
    }

    fn add(&mut self, item: u32) {
        if self.last.len() <= item as usize {
            self.last.resize(2 * (item as usize + 1), 0);
        }
        let (last, row) = (&mut self.last[item as usize], self.rows.len() as u32 + 1);
        if *last != row {
            *last = row;
            self.rows.items.push(item);
        }
    }

    fn end_row(&mut self) {
        self.rows.end_row();
    }
}

/// Most outputs of a task that are looked through one by one.
const OUTPUTS_FEW: usize = 8;

/// The objects that tasks write, and how they are called.
struct Outputs<'a> {
    rows: Rows,
    /// Those of tasks that have many.
    by_name: HashMap<(u32, &'a str), u32>,
}

impl<'a> Outputs<'a> {
    fn with_capacity(tasks: usize) -> Self {
        Self { rows: Rows::with_capacity(tasks), by_name: HashMap::new() }
    }

    /// The outputs of the task that comes next.
    fn add(&mut self, t: u32, task: &'a Task, objects: &mut Vec<Object>) -> Result<(), GraphError> {
        let has_many = task.outputs.len() > OUTPUTS_FEW;
        let written = task.outputs.iter().map(|o| (o.name.as_str(), o.bytes));
        let default = task.outputs.is_empty().then_some((DEFAULT_OUTPUT, None));
        for (output, (name, bytes_hint)) in written.chain(default).enumerate() {
            let object = objects.len() as u32;
            let is_double = match has_many {
                true => self.by_name.insert((t, name), object).is_some(),
                false => task.outputs.iter().take(output).any(|before| before.name.as_str() == name),
            };
            if is_double {
                return Err(GraphError::DuplicateOutput { task: task.id.clone(), output: name.to_owned() });
            }
            objects.push(Object { producer: Some(t), output: output as u32, bytes_hint });
            self.rows.items.push(object);
        }
        self.rows.end_row();
        Ok(())
    }

    /// The object that the task writes under this name.
    fn find(&self, t: u32, task: &'a Task, name: &'a str) -> Option<u32> {
        let place = match task.outputs.len() {
            0 => (name == DEFAULT_OUTPUT).then_some(0),
            1..=OUTPUTS_FEW => task.outputs.iter().position(|output| output.name.as_str() == name),
            _ => return self.by_name.get(&(t, name)).copied(),
        };
        place.map(|place| self.rows.row(t)[place])
    }
}

fn index_tasks(tasks: &[Task]) -> Result<HashMap<TaskId, u32>, GraphError> {
    let mut index = HashMap::with_capacity(tasks.len());
    for (t, task) in tasks.iter().enumerate() {
        if index.insert(task.id.clone(), t as u32).is_some() {
            return Err(GraphError::DuplicateTask(task.id.clone()));
        }
    }
    Ok(index)
}

fn find(index: &HashMap<TaskId, u32>, task: &Task, parent: &TaskId) -> Result<u32, GraphError> {
    index
        .get(parent)
        .copied()
        .ok_or_else(|| GraphError::DanglingTask { task: task.id.clone(), parent: parent.clone() })
}

/// Row `x` of the answer lists the rows of `rows` that contain `x`, ascending.
fn invert(rows: &Rows, len: usize) -> Rows {
    let mut starts = vec![0; len + 1];
    rows.items.iter().for_each(|&x| starts[x as usize + 1] += 1);
    let mut before = 0;
    for start in &mut starts {
        before += *start;
        *start = before;
    }
    let (mut next, mut items) = (starts.clone(), vec![0; rows.items.len()]);
    for r in 0..rows.len() as u32 {
        for &x in rows.row(r) {
            let at = &mut next[x as usize];
            items[*at as usize] = r;
            *at += 1;
        }
    }
    Rows { starts, items }
}

/// Per parent, in the order of its children, its place among the parents of each.
fn edge_bits(parents: &Rows, children: &Rows, len: usize) -> Rows {
    let mut bits = Rows { starts: children.starts.clone(), items: vec![0; children.items.len()] };
    let mut next = children.starts.clone();
    // Children ascend in their rows, so that each row is filled from its beginning.
    for child in 0..len as u32 {
        for (bit, &parent) in parents.row(child).iter().enumerate() {
            let at = &mut next[parent as usize];
            bits.items[*at as usize] = bit as u32;
            *at += 1;
        }
    }
    bits
}

/// Kahn's algorithm with a heap, so that ties go by index.
fn topological(parents: &Rows, children: &Rows, tasks: &[Task]) -> Result<Vec<u32>, GraphError> {
    use std::cmp::Reverse;
    let mut missing: Vec<u32> = (0..tasks.len() as u32).map(|t| parents.row(t).len() as u32).collect();
    let mut ready: std::collections::BinaryHeap<_> =
        (0..tasks.len() as u32).filter(|&t| missing[t as usize] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(tasks.len());
    while let Some(Reverse(t)) = ready.pop() {
        order.push(t);
        for &child in children.row(t) {
            missing[child as usize] -= 1;
            if missing[child as usize] == 0 {
                ready.push(Reverse(child));
            }
        }
    }
    if order.len() == tasks.len() {
        return Ok(order);
    }
    Err(GraphError::Cycle(cycle(parents, &missing, tasks)))
}

/// Walks from a task that is stuck to a stuck parent of it until one repeats.
fn cycle(parents: &Rows, missing: &[u32], tasks: &[Task]) -> Vec<TaskId> {
    let stuck = |t: &u32| missing[*t as usize] > 0;
    let Some(mut at) = (0..tasks.len() as u32).find(stuck) else { return Vec::new() };
    let mut path: Vec<u32> = Vec::new();
    let mut place = HashMap::new();
    loop {
        if let Some(&start) = place.get(&at) {
            let mut circle = path.split_off(start);
            circle.reverse();
            return circle.into_iter().map(|t| tasks[t as usize].id.clone()).collect();
        }
        place.insert(at, path.len());
        path.push(at);
        match parents.row(at).iter().find(|p| stuck(p)) {
            Some(&parent) => at = parent,
            None => return Vec::new(),
        }
    }
}

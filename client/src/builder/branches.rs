//! Tasks that decide what runs after them: branches, and fan-outs as wide as a result says.
//!
//! ```
//! use foresail::WorkflowBuilder;
//!
//! let mut flow = WorkflowBuilder::new("pages");
//! let list = flow.task("list").command("ls *.pdf | jq -R . | jq -s .").decides("out").handle();
//! let pages = flow.fan_out("page", &list, 8, |task, place| {
//!     task.command(format!("jq -r '.[{place}]' | xargs pdftotext")).reads(&list)
//! });
//! flow.task("book").command("cat \"$FORESAIL_INPUTS\"/*").gathers(&pages);
//! assert_eq!(flow.build()?.tasks().len(), 10);
//! # Ok::<(), foresail::BuildError>(())
//! ```

use foresail_schemas::decision::Wanted;

use super::{DraftInput, TaskBuilder, TaskHandle, WorkflowBuilder};

impl WorkflowBuilder {
    /// Adds `width_max` tasks, of which as many run as `decider` decides: `id-0`, `id-1` and so on, whose
    /// history is kept under `id`. `describe` says of each, by its place from 0, what it runs and reads.
    pub fn fan_out(
        &mut self,
        id: &str,
        decider: &TaskHandle,
        width_max: u64,
        mut describe: impl for<'a> FnMut(TaskBuilder<'a>, u64) -> TaskBuilder<'a>,
    ) -> Vec<TaskHandle> {
        let mut place_of = |place| {
            let task = self.task(format!("{id}-{place}")).named(id).when_above(decider, place);
            describe(task, place).handle()
        };
        (0..width_max).map(&mut place_of).collect()
    }
}

impl TaskBuilder<'_> {
    /// Lets this output decide which tasks run afterwards: JSON that is a whole number, a text, a boolean or
    /// a list, which decides by its length. Where the task has one output, that is `out`.
    pub fn decides(self, output: impl Into<String>) -> Self {
        self.change(|draft| draft.decision = Some(output.into()))
    }

    /// Runs only where `decider` decides a number above `place`, and waits for it.
    pub fn when_above(self, decider: &TaskHandle, place: u64) -> Self {
        let id = decider.id.clone();
        self.change(|draft| draft.when = Some((id, Wanted::Above(place))))
    }

    /// Runs only where `decider` decides this text, and waits for it.
    pub fn when_is(self, decider: &TaskHandle, text: impl Into<String>) -> Self {
        let id = decider.id.clone();
        self.change(|draft| draft.when = Some((id, Wanted::Is(text.into()))))
    }

    /// Reads the only output of `other` where that runs, and runs without it otherwise.
    pub fn reads_if_run(self, other: &TaskHandle) -> Self {
        let task = other.id.clone();
        self.change(|draft| draft.inputs.push(DraftInput::Output { task, output: None, optional: true }))
    }

    /// Reads one named output of `other` where that runs, and runs without it otherwise.
    pub fn reads_output_if_run(self, other: &TaskHandle, output: impl Into<String>) -> Self {
        let (task, output) = (other.id.clone(), Some(output.into()));
        self.change(|draft| draft.inputs.push(DraftInput::Output { task, output, optional: true }))
    }

    /// Reads the only output of each of `others` that runs, in this order.
    pub fn gathers(self, others: &[TaskHandle]) -> Self {
        others.iter().fold(self, |task, other| task.reads_if_run(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fan_out_is_a_task_per_place_and_its_reduction_can_do_without_each() {
        let mut flow = WorkflowBuilder::new("w");
        let list = flow.task("list").command("echo 2").decides("out").handle();
        let parts =
            flow.fan_out("part", &list, 3, |task, place| task.command(format!("echo {place}")).reads(&list));
        flow.task("sum").command("cat").gathers(&parts);
        let workflow = flow.build().unwrap();
        let graph = workflow.graph();
        assert!(graph.decides(0) && !graph.decides(1));
        assert_eq!(workflow.task(2).id.as_str(), "part-1");
        assert_eq!(workflow.task(2).name.as_str(), "part");
        assert_eq!(graph.condition(2), Some((0, &Wanted::Above(1))));
        assert!((1..4).all(|part| graph.is_optional(part, 4) && !graph.is_optional(0, part)));
    }

    #[test]
    fn who_decides_has_to_say_so() {
        let mut flow = WorkflowBuilder::new("w");
        let silent = flow.task("silent").command("true").handle();
        flow.task("then").command("true").when_is(&silent, "yes");
        let message = flow.build().unwrap_err().to_string();
        assert!(message.contains("`silent`") && message.contains("`then`"), "{message}");
    }
}

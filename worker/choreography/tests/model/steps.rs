//! Which steps a state allows, faults among them.

use super::{Mail, Part, State};

/// One step. Mail is named by its place in the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Deliver(usize),
    /// A request or an invocation or a hint does not arrive.
    Lose(usize),
    /// A request arrives and its answer does not.
    LoseAnswer(usize),
    /// It arrives, and later again.
    Double(usize),
    Tick(u32),
    Crash(u32),
    /// Time passes that nobody asked for.
    Late,
    Replan,
    /// Nothing else can happen, so that time passes.
    Wait,
}

impl State {
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        // A start and a plan that is read bear on nothing before the worker asks the store, which may be
        // at any time: nothing comes between.
        let is_prompt = |mail: &Part<Mail>| matches!(mail.value, Mail::Start { .. } | Mail::Plan { .. });
        if let Some(at) = self.mail.iter().position(is_prompt) {
            steps.push(Step::Deliver(at));
            self.faults_of(at, &self.mail[at].value, &mut steps);
            return steps;
        }
        let mut seen = Vec::new();
        for (at, mail) in self.mail.iter().enumerate() {
            if !seen.contains(&mail.print) {
                seen.push(mail.print);
                steps.push(Step::Deliver(at));
                self.faults_of(at, &mail.value, &mut steps);
            }
        }
        for (&id, body) in &self.machines {
            if body.value.wake_ms.is_some_and(|at_ms| at_ms <= self.now_ms) {
                steps.push(Step::Tick(id));
            }
        }
        let has_more = !steps.is_empty();
        if self.faults.total > 0 {
            let workers = self.machines.iter().filter(|(_, body)| body.value.instance.is_some());
            steps.extend(workers.filter(|_| self.faults.crash > 0).map(|(&id, _)| Step::Crash(id)));
            if self.faults.late > 0 && !self.mail.is_empty() {
                steps.push(Step::Late);
            }
            if self.faults.replan > 0 && !self.machines.is_empty() {
                steps.push(Step::Replan);
            }
        }
        if !has_more && !self.machines.is_empty() {
            steps.push(Step::Wait);
        }
        steps
    }

    fn faults_of(&self, at: usize, mail: &Mail, steps: &mut Vec<Step>) {
        let faults = &self.faults;
        if faults.total == 0 {
            return;
        }
        match mail {
            Mail::Request { is_second: false, .. } => {
                if faults.lose > 0 {
                    steps.extend([Step::Lose(at), Step::LoseAnswer(at)]);
                }
                if faults.double > 0 {
                    steps.push(Step::Double(at));
                }
            }
            Mail::Start { .. } => {
                if faults.lose > 0 {
                    steps.push(Step::Lose(at));
                }
                if faults.double > 0 {
                    steps.push(Step::Double(at));
                }
            }
            Mail::Tell { event: foresail_choreography::Event::Hint { .. }, .. } if faults.deafen > 0 => {
                steps.push(Step::Lose(at));
            }
            _ => {}
        }
    }
}

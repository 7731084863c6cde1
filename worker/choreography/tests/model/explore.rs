//! Every state that a scenario can reach, the nearest first.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write;

use super::steps::Step;
use super::{Mail, Model, Scenario, State};

/// Most states of one scenario; more is a scenario that is too large to be explored.
const STATES_MAX: usize = 8_000_000;
/// A run that takes longer than this many ms waits for ever: every fault costs it some leases at most.
const RUN_MS_MAX: f64 = 300_000.0;

/// What was looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Explored {
    pub states: usize,
    pub steps: u64,
    /// States in which the run is over and everybody has left.
    pub ends: u64,
    /// Steps to the farthest state.
    pub depth: u32,
}

/// What does not hold, and the shortest way there.
pub struct Refuted {
    pub broken: String,
    pub trace: String,
}

/// Looks at every state once.
pub fn explore(scenario: &Scenario) -> Result<Explored, Refuted> {
    let model = Model::of(scenario);
    let refuted = |broken| Refuted { broken, trace: String::new() };
    let first = model.first(scenario).map_err(refuted)?;
    let mut explored = Explored { states: 1, ..Explored::default() };
    let mut seen = HashSet::from([first.print()]);
    // By state: the one before it, and which of its steps led here.
    let mut ways: Vec<(u32, u16)> = vec![(0, 0)];
    let mut waiting = VecDeque::from([(0_u32, 0_u32, first)]);
    while let Some((number, depth, state)) = waiting.pop_front() {
        explored.depth = explored.depth.max(depth);
        let steps = state.steps();
        let end = match steps.is_empty() {
            true if state.is_over() => model.check_end(&state),
            true => Err("machines live and nothing can happen".to_owned()),
            false if state.now_ms > RUN_MS_MAX => Err(format!("the run is not over after {RUN_MS_MAX} ms")),
            false => Ok(()),
        };
        if let Err(broken) = end {
            return Err(Refuted { broken, trace: trace(&model, scenario, &ways, number, None) });
        }
        explored.ends += u64::from(state.is_over());
        for (choice, step) in steps.into_iter().enumerate() {
            explored.steps += 1;
            let next = match model.take(&state, step) {
                Ok(next) => next,
                Err(broken) => {
                    let trace = trace(&model, scenario, &ways, number, Some(step));
                    return Err(Refuted { broken, trace });
                }
            };
            if seen.insert(next.print()) {
                assert!(ways.len() < STATES_MAX, "{}: more than {STATES_MAX} states", scenario.name);
                waiting.push_back((ways.len() as u32, depth + 1, next));
                ways.push((number, choice as u16));
            }
        }
    }
    explored.states = ways.len();
    Ok(explored)
}

/// The way to a state in words, and the step that cannot be taken there.
fn trace(model: &Model, scenario: &Scenario, ways: &[(u32, u16)], end: u32, last: Option<Step>) -> String {
    let mut choices = Vec::new();
    let mut at = end;
    while at != 0 {
        let (before, choice) = ways[at as usize];
        choices.push(choice);
        at = before;
    }
    let mut text = String::new();
    let Ok(mut state) = model.first(scenario) else { return text };
    for choice in choices.into_iter().rev() {
        let step = state.steps()[choice as usize];
        let _ = writeln!(text, "{}", told(&state, step));
        match model.take(&state, step) {
            Ok(next) => state = next,
            Err(broken) => return text + &broken,
        }
    }
    if let Some(step) = last {
        let _ = writeln!(text, "{}", told(&state, step));
    }
    text
}

fn told(state: &State, step: Step) -> String {
    let now_ms = state.now_ms;
    let (Step::Deliver(at) | Step::Lose(at) | Step::LoseAnswer(at) | Step::Double(at)) = step else {
        return format!("{now_ms:9.0} {step:?}");
    };
    let what = match &state.mail[at].value {
        Mail::Tell { machine, event } => format!("to {machine}: {event:?}"),
        other => format!("{other:?}"),
    };
    format!("{now_ms:9.0} {step:?} {what}")
}

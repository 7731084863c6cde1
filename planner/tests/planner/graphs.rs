//! Problems of workflows, for tests, benches and the quality report.
//!
//! Each user takes what it needs.
//!
//! Times are at one vCPU in ms, sizes in bytes. Everything is a function of the arguments.

#![allow(dead_code)]

use foresail_planner::blind_table;
use foresail_planner::shapes::drawn;
use foresail_schemas::plan::{Objective, Problem};
use foresail_schemas::platform::Platform;
use foresail_schemas::prediction::Basis;
use foresail_schemas::{Sla, Workflow};

/// AWS Lambda.
pub fn lambda() -> Platform {
    platform("aws-lambda-x86")
}

/// A platform that is built in.
pub fn platform(name: &str) -> Platform {
    Platform::built_in().into_iter().find(|p| p.name.as_str() == name).expect("it is built in")
}

/// The problem of a workflow whose tasks all gain up to one vCPU and no further.
pub fn even(workflow: &Workflow, platform: Platform, objective: Objective) -> Problem {
    let mut predictions = blind_table(workflow, &platform, Sla::MEDIAN);
    predictions.basis.fill(Basis::Exact);
    predictions.epoch = 1;
    Problem { workflow: workflow.clone(), platform, predictions, objective, seed: 1, without: Vec::new() }
}

/// The problem of a workflow whose kinds of task gain unequally from memory: per name a share that no vCPU
/// makes faster and a number of vCPUs that it can use.
pub fn problem(workflow: &Workflow, objective: Objective) -> Problem {
    problem_on(workflow, lambda(), objective)
}

/// The same on any platform.
pub fn problem_on(workflow: &Workflow, platform: Platform, objective: Objective) -> Problem {
    let Problem { platform, mut predictions, .. } = even(workflow, platform, objective);
    for (t, task) in workflow.tasks().iter().enumerate() {
        let kind = task.name.as_str().bytes().fold(7_u64, |sum, b| sum.wrapping_mul(31) + u64::from(b));
        let (serial, vcpus) = (0.5 * drawn(kind), 1.0 + 2.0 * drawn(kind ^ 0x5bd1));
        let one_ms = task.hint.exec_ms.unwrap_or(platform.assumed.exec_ms);
        for (c, row) in predictions.exec_ms.iter_mut().enumerate() {
            let share = predictions.configs[c].cpu_share().min(vcpus);
            row[t] = one_ms * (serial + (1.0 - serial) / share);
        }
    }
    Problem { workflow: workflow.clone(), platform, predictions, objective, seed: 1, without: Vec::new() }
}

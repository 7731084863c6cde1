//! What a run goes without, by name: optimisations that planners choose, and what workers do of themselves.

use std::fmt;
use std::str::FromStr;

use foresail_schemas::optimization::OptimizationKind;
use foresail_schemas::run::RunOptions;
use serde::Deserialize;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Omitted {
    /// An optimisation of plans; where the workflow forces it, it is done anyway.
    Planned(OptimizationKind),
    /// That a worker begins its next task while it stores the outputs of the last.
    OverlapUploads,
    /// That a worker begins a task whose parents all ran in it before the run's state has answered.
    RunAhead,
}

impl Omitted {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Planned(OptimizationKind::ALL[0]),
        Self::Planned(OptimizationKind::ALL[1]),
        Self::Planned(OptimizationKind::ALL[2]),
        Self::OverlapUploads,
        Self::RunAhead,
    ];

    /// What planners go without.
    #[must_use]
    pub fn planned(list: &[Self]) -> Vec<OptimizationKind> {
        let planned = |omitted: &Self| match omitted {
            Self::Planned(kind) => Some(*kind),
            Self::OverlapUploads | Self::RunAhead => None,
        };
        list.iter().filter_map(planned).collect()
    }

    /// Switches off what workers go without.
    pub fn switch_off(list: &[Self], options: &mut RunOptions) {
        options.overlap_uploads &= !list.contains(&Self::OverlapUploads);
        options.run_ahead &= !list.contains(&Self::RunAhead);
    }
}

impl fmt::Display for Omitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Planned(kind) => kind.as_str(),
            Self::OverlapUploads => "overlap-uploads",
            Self::RunAhead => "run-ahead",
        })
    }
}

impl FromStr for Omitted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.replace('_', "-");
        Self::ALL.into_iter().find(|known| known.to_string() == name).ok_or_else(|| {
            let names = Self::ALL.map(|known| known.to_string()).join(", ");
            format!("`{text}` is no optimisation; hint: use some of {names}")
        })
    }
}

impl TryFrom<String> for Omitted {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_planners_choose_and_what_workers_do_is_told_apart() {
        let list: Vec<Omitted> =
            ["pre_warm", "overlap-uploads", "task-dup"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(Omitted::planned(&list), [OptimizationKind::PreWarm, OptimizationKind::TaskDup]);
        let mut options = RunOptions::default();
        Omitted::switch_off(&list, &mut options);
        assert!(!options.overlap_uploads && options.run_ahead);
        Omitted::switch_off(&[Omitted::RunAhead], &mut options);
        assert!(!options.overlap_uploads && !options.run_ahead);
    }

    #[test]
    fn another_name_is_refused_with_all_that_there_are() {
        let error = "preload".parse::<Omitted>().unwrap_err();
        let names = "pre-load, task-dup, pre-warm, overlap-uploads, run-ahead";
        assert!(error.contains("`preload`") && error.contains(names), "{error}");
    }
}

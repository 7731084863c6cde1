//! Keys of a run. What is in braces decides the hash slot in a cluster, so that all of them lie on one node.

use foresail_schemas::RunId;

/// The list of requests.
#[must_use]
pub fn log(run: &RunId) -> String {
    format!("foresail:{{{run}}}:log")
}

/// The workflow as JSON.
#[must_use]
pub fn workflow(run: &RunId) -> String {
    format!("foresail:{{{run}}}:workflow")
}

/// What is known of the run from its beginning, as JSON.
#[must_use]
pub fn about(run: &RunId) -> String {
    format!("foresail:{{{run}}}:about")
}

/// The newest snapshot, a hash: `next`, `mark`, `last_event`, `state`.
#[must_use]
pub fn snapshot(run: &RunId) -> String {
    format!("foresail:{{{run}}}:snapshot")
}

/// A plan as JSON, under the hash of its text: which of them is in force, the log tells.
#[must_use]
pub fn plan(run: &RunId, hash: &str) -> String {
    format!("foresail:{{{run}}}:plan:{hash}")
}

/// The channel on which it is told that the log has grown.
#[must_use]
pub fn channel(run: &RunId) -> String {
    format!("foresail:{{{run}}}:news")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_run_have_its_name_in_braces_and_no_other() {
        let run = RunId::new("r-1:a").unwrap();
        for key in [log(&run), workflow(&run), about(&run), snapshot(&run), plan(&run, "0f"), channel(&run)] {
            let (_, rest) = key.split_once('{').unwrap();
            assert_eq!(rest.split_once('}').unwrap().0, "r-1:a", "{key}");
            assert_eq!(key.matches('{').count(), 1, "a name of a run has no braces");
        }
    }
}

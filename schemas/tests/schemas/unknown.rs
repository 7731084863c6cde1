//! A misspelt field of a workflow is refused by name instead of being no limit at all.

use foresail_schemas::Workflow;

#[test]
fn a_field_that_is_not_one_is_refused_by_name() {
    for (text, field) in [
        (r#"{"name":"w","tasks":[{"id":"a","name":"a","run":"true","memory_min":5}]}"#, "memory_min"),
        (r#"{"name":"w","tasks":[{"id":"a","name":"a","run":"true"}],"extra":1}"#, "extra"),
    ] {
        let refused = serde_json::from_str::<Workflow>(text).expect_err("a misspelt field").to_string();
        assert!(refused.contains(field), "{refused}");
    }
}

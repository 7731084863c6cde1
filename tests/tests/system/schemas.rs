//! The wire types against the rest of the project: what is described is used, what is generated is fresh.

use std::collections::BTreeSet;

use foresail_schemas::generate::{WRITE_COMMAND, out_of_date};
use foresail_schemas::{ErrorCode, Platform};

use crate::tidy::sources;

#[test]
fn generated_schemas_and_pages_are_up_to_date() {
    let stale: Vec<_> = out_of_date(&sources::root()).into_iter().map(|(path, _)| path).collect();
    assert!(stale.is_empty(), "out of date: {stale:?}\nhint: {WRITE_COMMAND}");
}

/// A code that nothing answers with is a promise that nobody keeps.
#[test]
fn every_error_code_is_used_by_a_service() {
    let files = sources::rust_files();
    let services = files.iter().filter(|f| !f.is_in("schemas") && !f.is_in("tests"));
    let used: String = services.map(|f| f.code()).collect();
    let unused: Vec<_> = ErrorCode::ALL
        .iter()
        .filter(|code| !sources::words(&used).any(|word| word == format!("{code:?}")))
        .collect();
    assert!(unused.is_empty(), "no service answers with {unused:?}");
}

#[test]
fn every_platform_table_comes_with_the_binaries() {
    let built_in: BTreeSet<_> =
        Platform::built_in().into_iter().map(|p| format!("{}.toml", p.name)).collect();
    let folder = sources::root().join("platforms");
    let tables: BTreeSet<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    assert_eq!(tables, built_in);
}

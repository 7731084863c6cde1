//! The rules of the house that a machine can hold: arrows between crates, purity, sizes, leftovers.

pub mod sources;

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use sources::{File, all_files, root, rust_files};

/// Most lines of a Rust file.
const FILE_LINES_MAX: usize = 500;
/// Most characters of a line of Rust.
const LINE_CHARS_MAX: usize = 110;
/// Lines that a function should not exceed.
const FUNCTION_LINES: usize = 70;
/// Most functions longer than that, in percent.
const LONG_FUNCTIONS_PERCENT_MAX: usize = 2;

/// Every arrow between the crates. A new one is a decision: it needs a line in `docs/architecture.md`.
const ARROWS: &[(&str, &[&str])] = &[
    ("foresail-schemas", &[]),
    ("foresail-model", &["foresail-schemas"]),
    ("foresail-choreography", &["foresail-schemas"]),
    ("foresail-redis", &["foresail-choreography", "foresail-schemas"]),
    ("foresail-planner", &["foresail-choreography", "foresail-schemas"]),
    ("foresail-metad", &["foresail-choreography", "foresail-model", "foresail-redis", "foresail-schemas"]),
    ("foresail-worker", &["foresail-choreography", "foresail-redis", "foresail-schemas"]),
    ("foresail-aws", &["foresail-schemas", "foresail-worker"]),
    ("foresail-lambda", &["foresail-aws", "foresail-schemas", "foresail-worker"]),
    ("foresail", EVERYTHING),
    ("foresail-tests", &[]),
];
const EVERYTHING: &[&str] = &[
    "foresail-aws",
    "foresail-choreography",
    "foresail-lambda",
    "foresail-metad",
    "foresail-model",
    "foresail-planner",
    "foresail-redis",
    "foresail-schemas",
    "foresail-worker",
];

/// The crates that take data, `now` and a seed and do no I/O, with their folders and what they may depend on.
const PURE: &[(&str, &str, &[&str])] = &[
    (
        "foresail-model",
        "metad/model/src",
        &[
            "arc-swap",
            "foresail-schemas",
            "hdrhistogram",
            "jiff",
            "linfa",
            "linfa-linear",
            "ndarray",
            "postcard",
            "rand",
            "rand_pcg",
            "rpds",
            "schemars",
            "serde",
            "serde_json",
            "thiserror",
        ],
    ),
    (
        "foresail-planner",
        "planner/src",
        &["foresail-choreography", "foresail-schemas", "rand", "rand_pcg", "serde", "thiserror"],
    ),
    ("foresail-choreography", "worker/choreography/src", &["foresail-schemas", "serde", "thiserror"]),
];
/// What a pure crate must not name: clocks, I/O, ambient randomness, runtimes.
const IMPURE: &[&str] = &[
    "Instant",
    "SystemTime",
    "thread_rng",
    "OsRng",
    "SysRng",
    "ThreadRng",
    "getrandom",
    "tokio",
    "reqwest",
    "println",
    "eprintln",
    "print",
    "eprint",
];
/// Modules of the standard library that a pure crate must not use.
const IMPURE_STD: &[&str] = &["fs", "net", "env", "process", "thread", "io", "os"];
/// Paths that reach for a clock or for ambient randomness.
const IMPURE_PATHS: &[&str] = &["::now(", "rand::rng(", "rand::random"];

/// What may lie at the top of the repository.
const TOP_LEVEL: &[&str] = &[
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "Makefile",
    "README.md",
    "client",
    "clippy.toml",
    "deny.toml",
    "docs",
    "metad",
    "planner",
    "platforms",
    "rustfmt.toml",
    "schemas",
    "tests",
    "worker",
];
/// What appears there by working in it and is not kept.
const NOT_KEPT: &[&str] = &[".git", ".venv", "target", "foresail-data"];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .unwrap()
}

fn dependencies(package: &Package, kind: DependencyKind) -> BTreeSet<&str> {
    package.dependencies.iter().filter(|d| d.kind == kind).map(|d| d.name.as_str()).collect()
}

fn ours<'a>(names: &BTreeSet<&'a str>) -> BTreeSet<&'a str> {
    names.iter().copied().filter(|name| name.starts_with("foresail")).collect()
}

/// Fails with one line per violation.
fn none(rule: &str, violations: Vec<String>) {
    assert!(violations.is_empty(), "{rule}:\n  {}", violations.join("\n  "));
}

#[test]
fn arrows_between_crates_are_exactly_these() {
    let metadata = metadata();
    let found: BTreeMap<&str, BTreeSet<&str>> = metadata
        .packages
        .iter()
        .map(|p| (p.name.as_str(), ours(&dependencies(p, DependencyKind::Normal))))
        .collect();
    let expected: BTreeMap<&str, BTreeSet<&str>> =
        ARROWS.iter().map(|(from, to)| (*from, to.iter().copied().collect())).collect();
    assert_eq!(found, expected);
}

#[test]
fn tests_of_a_crate_follow_its_arrows() {
    let metadata = metadata();
    let stray = metadata.packages.iter().filter(|p| p.name.as_str() != "foresail-tests").flat_map(|p| {
        let normal = dependencies(p, DependencyKind::Normal);
        let others =
            [DependencyKind::Development, DependencyKind::Build].map(|kind| ours(&dependencies(p, kind)));
        let stray: Vec<String> = others
            .iter()
            .flatten()
            .filter(|d| !normal.contains(*d) && **d != p.name.as_str())
            .map(|d| format!("{} -> {d}", p.name))
            .collect();
        stray
    });
    none("a test needs a crate that its own crate does not", stray.collect());
}

#[test]
fn pure_crates_depend_on_nothing_that_does_io() {
    let metadata = metadata();
    for (name, _, allowed) in PURE {
        let package = metadata.packages.iter().find(|p| p.name.as_str() == *name).unwrap();
        let found = dependencies(package, DependencyKind::Normal);
        let stray: Vec<_> = found.iter().filter(|d| !allowed.contains(d)).map(|d| (*d).to_owned()).collect();
        none(&format!("{name} is pure and must not depend on"), stray);
        let ambient = package.dependencies.iter().filter(|d| d.name == "rand" && d.uses_default_features);
        assert_eq!(
            ambient.count(),
            0,
            "{name} must use rand without its default features: they bring the OS's randomness"
        );
    }
}

/// What `code` names that a pure crate must not.
fn impurities(code: &str) -> Vec<String> {
    let words: BTreeSet<&str> = sources::words(code).collect();
    let mut found: Vec<String> =
        IMPURE.iter().filter(|word| words.contains(**word)).map(|word| (*word).to_owned()).collect();
    let dense: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    found.extend(IMPURE_PATHS.iter().filter(|path| dense.contains(**path)).map(|path| (*path).to_owned()));
    for after in dense.split("std::").skip(1) {
        let group = after.strip_prefix('{').map(|rest| rest.split(';').next().unwrap_or(rest));
        let used: Vec<&str> = match group {
            Some(group) => sources::words(group).collect(),
            None => sources::words(after).take(1).collect(),
        };
        found.extend(used.iter().filter(|m| IMPURE_STD.contains(m)).map(|m| format!("std::{m}")));
    }
    found
}

#[test]
fn pure_crates_have_no_clock_no_io_and_no_ambient_randomness() {
    let mut violations = Vec::new();
    for (_, folder, _) in PURE {
        let files: Vec<File> = rust_files().into_iter().filter(|f| f.is_in(folder)).collect();
        assert!(!files.is_empty(), "{folder} has no sources");
        let test_only: Vec<String> = files.iter().flat_map(File::test_modules).collect();
        let in_tests = |f: &File| {
            f.path.trim_end_matches(".rs").split('/').any(|part| test_only.iter().any(|t| t == part))
        };
        for file in files.iter().filter(|f| !in_tests(f)) {
            violations
                .extend(impurities(&file.code()).into_iter().map(|what| format!("{}: {what}", file.path)));
        }
    }
    none("a pure crate names", violations);
}

#[test]
fn impurities_are_found_however_they_are_written() {
    for (code, expect) in [
        ("let t = std::time::Instant::now();", 2),
        ("use std::{collections::HashMap, fs};", 1),
        ("use std::{\n    io,\n    net::TcpStream,\n};", 2),
        ("let t = Timestamp::now();", 1),
        ("let mut rng = rand::rng();", 1),
        ("use std::collections::HashMap;\nlet instant_ms = 3.0; let fs = 1;", 0),
        ("use rand_pcg::Pcg64; let r = Pcg64::seed_from_u64(7);", 0),
    ] {
        assert_eq!(impurities(code).len(), expect, "{code}");
    }
}

#[test]
fn nothing_but_the_store_names_the_database() {
    let database = concat!("re", "db");
    // The benches measure what the database gives without metad.
    let allowed =
        |f: &File| f.path == "metad/src/store.rs" || f.is_in("metad/src/store") || f.is_in("tests/benches");
    let code = rust_files().into_iter().filter(|f| !allowed(f));
    let stray = code.filter(|f| sources::words(&f.code()).any(|word| word == database)).map(|f| f.path);
    none("only metad/src/store may name the database", stray.collect());
    let metadata = metadata();
    let needs = |d: &cargo_metadata::Dependency| d.name == database && d.kind == DependencyKind::Normal;
    let dependents = metadata.packages.iter().filter(|p| p.dependencies.iter().any(needs));
    assert_eq!(dependents.map(|p| p.name.as_str()).collect::<Vec<_>>(), ["foresail-metad"]);
}

#[test]
fn every_rust_file_says_what_it_is_for_and_is_small() {
    let mut violations = Vec::new();
    for file in rust_files() {
        if !file.text.starts_with("//! ") {
            violations.push(format!("{}: does not open with `//! `", file.path));
        }
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            violations.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", file.path));
        }
        for (at, line) in file.text.lines().enumerate().filter(|(_, l)| l.chars().count() > LINE_CHARS_MAX) {
            let chars = line.chars().count();
            violations.push(format!(
                "{}:{}: {chars} characters, at most {LINE_CHARS_MAX}",
                file.path,
                at + 1
            ));
        }
    }
    none("files that are not tidy", violations);
}

#[test]
fn few_functions_are_long() {
    let files = rust_files();
    let functions: Vec<_> =
        files.iter().flat_map(|f| f.functions().into_iter().map(|function| (&f.path, function))).collect();
    let long: Vec<String> = functions
        .iter()
        .filter(|(_, f)| f.lines > FUNCTION_LINES)
        .map(|(path, f)| format!("{path}: `{}` has {} lines", f.name, f.lines))
        .collect();
    let most = functions.len() * LONG_FUNCTIONS_PERCENT_MAX / 100;
    assert!(
        long.len() <= most,
        "of {} functions {most} may be long:\n  {}",
        functions.len(),
        long.join("\n  ")
    );
}

#[test]
fn nothing_is_left_over_and_no_machine_is_named() {
    // Written in two parts, so that this file does not find itself.
    let leftovers = [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("db", "g!("),
        concat!("#[ign", "ore"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("TO", "DO"),
    ];
    let machine_paths =
        [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];
    let mut violations = Vec::new();
    for (path, bytes) in all_files() {
        let Ok(text) = String::from_utf8(bytes) else {
            violations.push(format!("{path}: is not UTF-8"));
            continue;
        };
        let searched = if path.ends_with(".rs") { &leftovers[..] } else { &[] };
        for (at, line) in text.lines().enumerate() {
            for bad in searched.iter().chain(&machine_paths).filter(|bad| line.contains(**bad)) {
                violations.push(format!("{path}:{}: `{bad}`", at + 1));
            }
        }
    }
    none("left over", violations);
}

#[test]
fn every_crate_describes_itself_and_obeys_the_shared_lints() {
    let mut violations = Vec::new();
    for package in &metadata().packages {
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        if package.description.as_deref().unwrap_or_default().is_empty() {
            violations.push(format!("{}: no description", package.name));
        }
        if !manifest.contains("[lints]\nworkspace = true") {
            violations.push(format!("{}: does not use the lints of the workspace", package.name));
        }
        if package.license.as_deref() != Some("MIT OR Apache-2.0") {
            violations.push(format!("{}: not under the license of the workspace", package.name));
        }
        let pinned = package
            .dependencies
            .iter()
            .filter(|d| !manifest.contains(&format!("{}.workspace = true", d.name)));
        violations.extend(
            pinned.map(|d| format!("{}: `{}` has no version in the workspace", package.name, d.name)),
        );
    }
    none("manifests", violations);
}

#[test]
fn the_top_level_holds_only_what_belongs_there() {
    let entries = std::fs::read_dir(root()).unwrap();
    let found: BTreeSet<String> = entries
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|n| !NOT_KEPT.contains(&n.as_str()))
        .collect();
    assert_eq!(found, TOP_LEVEL.iter().map(|n| (*n).to_owned()).collect());
}

#[test]
fn the_readme_says_how_to_begin() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for command in ["make demo", "make test"] {
        assert!(readme.contains(command), "README.md does not name `{command}`");
    }
    let changelog = std::fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    assert!(!changelog.trim().is_empty());
}

/// Links to files, so that a moved page is noticed.
#[test]
fn links_between_pages_lead_somewhere() {
    let mut violations = Vec::new();
    for (path, bytes) in all_files().into_iter().filter(|(path, _)| path.ends_with(".md")) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let folder = root().join(&path).parent().unwrap().to_owned();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|t| !t.contains("://") && !t.starts_with('#')) {
            let file = target.split('#').next().unwrap();
            if !folder.join(file).exists() {
                violations.push(format!("{path}: {target}"));
            }
        }
    }
    none("links that lead nowhere", violations);
}

//! Back-tests on public measurements, through the same functions as the command line's.
//!
//! Small parts of the sets whose licences allow it stand in `tests/data` and are always tested. The whole
//! files are not part of a checkout; where they are absent the tests of them say so and pass. The variable
//! `FORESAIL_SAMPLES` names their folder; with it, an absent file fails. Each test prints what it measured
//! (`cargo test -p foresail-model --test public_data -- --nocapture`). Bounds are the errors measured when
//! they were written, with room for a tenth; large files are thinned.

#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use foresail_model::backtest::{Method, Quantity, Report, Row, Score, Settings, run};
use foresail_schemas::Sla;

/// Where the whole files are kept beside a checkout, unless `FORESAIL_SAMPLES` names another folder.
const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/samples");
/// The parts in the project.
const PARTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
const P90: Sla = Sla::Quantile(9000);

/// Rows of a file, of the first `workflows` workflows; rows without a time are left out.
fn load(file: &str, workflows: usize) -> Option<Vec<Row>> {
    let named = std::env::var("FORESAIL_SAMPLES").ok();
    let path = format!("{}/{file}.csv", named.as_deref().unwrap_or(SAMPLES));
    if named.is_none() && !std::path::Path::new(&path).exists() {
        eprintln!(
            "skipped: `{file}.csv` is not there\nhint: name the folder that has it in FORESAIL_SAMPLES"
        );
        return None;
    }
    let mut rows = read(&path);
    assert!(rows.len() > 100, "{file}: {} rows", rows.len());
    let mut names: Vec<String> = Vec::new();
    for row in &rows {
        if !names.contains(&row.workflow) {
            names.push(row.workflow.clone());
        }
    }
    names.truncate(workflows);
    rows.retain(|row| names.contains(&row.workflow));
    Some(rows)
}

fn read(path: &str) -> Vec<Row> {
    let mut reader = csv::Reader::from_path(path).unwrap_or_else(|error| panic!("`{path}`: {error}"));
    reader.deserialize().filter_map(Result::ok).collect()
}

fn report(rows: &[Row], protocol: &str, quantity: Quantity, methods: &[Method]) -> Report {
    let methods = methods.to_vec();
    run(rows, &Settings { protocol: protocol.parse().unwrap(), quantity, methods, seed: 1 }).unwrap()
}

fn model(report: &Report) -> &Score {
    report.scores.iter().find(|score| score.method == Method::Model).unwrap()
}

fn check_error(file: &str, protocol: &str, quantity: Quantity, most_percent: f64) {
    let Some(rows) = load(file, usize::MAX) else { return };
    let found = report(&rows, protocol, quantity, &[Method::Model]);
    let score = model(&found);
    eprintln!("{file} {protocol} {quantity}: MdAPE {:.2} % of {}", score.mdape_percent, score.n);
    assert!(
        score.n > 50 && score.mdape_percent <= most_percent,
        "{file} {protocol}: {}",
        score.mdape_percent
    );
}

#[test]
fn the_parts_in_the_project_are_predicted_within_the_bounds_and_mostly_better_than_by_the_median() {
    for (file, protocol, most_percent) in [
        ("jolteon", "memory", 3.3),
        ("jolteon", "memory-one", 11.7),
        ("jolteon", "joint:12", 2.8),
        ("chunkfunc", "memory", 6.0),
        ("chunkfunc", "joint:20", 5.7),
        ("lambda_memory", "memory", 2.5),
        ("lambda_memory", "memory-one", 4.4),
        ("rethinking", "joint:30", 1.7),
    ] {
        let rows = read(&format!("{PARTS}/{file}.csv"));
        let found = report(&rows, protocol, Quantity::ExecutionTime, &[Method::Model, Method::Median]);
        let (own, median) = (model(&found), &found.scores[1]);
        eprintln!(
            "part of {file} {protocol}: {:.2} % of {}, median {:.2} %",
            own.mdape_percent, own.n, median.mdape_percent
        );
        assert!(own.n >= 30 && own.mdape_percent <= most_percent, "{file} {protocol}: {own:?}");
        // The cold starts of `lambda_memory` hardly follow memory: from one size, the median is hard to beat.
        let is_better = own.mdape_percent < median.mdape_percent;
        assert!(is_better || protocol == "memory-one", "{file} {protocol}: {} %", median.mdape_percent);
    }
}

#[test]
fn a_memory_size_never_seen_is_predicted_within_the_bounds() {
    for (file, protocol, most_percent) in [
        ("lambda_memory", "memory", 2.7),
        ("lambda_memory_agg", "memory", 4.2),
        ("jolteon", "memory", 4.0),
        ("sebs", "memory", 8.5),
        ("sebsflow", "memory", 12.4),
        ("lambda_memory", "memory-one", 3.5),
        ("lambda_memory_agg", "memory-one", 3.7),
        ("jolteon", "memory-one", 6.5),
        ("sebs", "memory-one", 17.0),
        ("sebsflow", "memory-one", 11.7),
    ] {
        check_error(file, protocol, Quantity::ExecutionTime, most_percent);
    }
}

#[test]
fn a_combination_of_config_and_size_never_seen_is_predicted_within_the_bounds() {
    for (file, protocol, most_percent) in
        [("jolteon", "joint:30", 3.9), ("jolteon", "joint:10", 4.9), ("chunkfunc", "joint:30", 6.6)]
    {
        check_error(file, protocol, Quantity::ExecutionTime, most_percent);
    }
}

#[test]
fn larger_inputs_and_transfers_of_sizes_never_seen_are_predicted_within_the_bounds() {
    check_error("lotaru", "extrapolate", Quantity::ExecutionTime, 9.8);
    let Some(rows) = load("jolteon", usize::MAX) else { return };
    let transfers: Vec<Row> = rows.into_iter().filter(|row| !row.task.ends_with("compute")).collect();
    let found = report(&transfers, "joint:30", Quantity::TransferTime, &[Method::Model]);
    assert!(model(&found).mdape_percent <= 6.0, "{:?}", model(&found).mdape_percent);
}

#[test]
fn the_model_is_better_than_every_simple_rule() {
    for (file, protocol) in [
        ("sebs", "memory"),
        ("lambda_memory_agg", "memory-one"),
        ("jolteon", "joint:10"),
        ("chunkfunc", "joint:30"),
        ("lotaru", "next-run"),
        ("wfinstances", "next-run"),
    ] {
        let Some(rows) = load(file, usize::MAX) else { continue };
        let found = report(&rows, protocol, Quantity::ExecutionTime, &Method::ALL);
        let own = model(&found);
        for rule in found.scores.iter().filter(|score| score.method != Method::Model) {
            assert!(
                own.mdape_percent < rule.mdape_percent,
                "{file} {protocol}: {} % against {} % of {}",
                own.mdape_percent,
                rule.mdape_percent,
                rule.method
            );
        }
    }
}

#[test]
fn quantiles_cover_as_many_coming_samples_as_they_say() {
    for (file, workflows) in [("scope_warm", 1), ("scope_cold", 1), ("sebsflow", 15), ("sebs", 1)] {
        let Some(rows) = load(file, workflows) else { continue };
        let found = report(&rows, "coverage:10", Quantity::ExecutionTime, &[Method::Model]);
        let coverage = &model(&found).coverage;
        eprintln!("{file}: {coverage:?}");
        assert!((0.46..0.54).contains(&coverage[&Sla::MEDIAN]), "{file}: {coverage:?}");
        assert!((0.87..=0.93).contains(&coverage[&P90]), "{file}: {coverage:?}");
        assert!((0.93..=0.97).contains(&coverage[&Sla::P95]), "{file}: {coverage:?}");
    }
}

#[test]
fn quantiles_of_what_was_never_seen_are_wide_enough() {
    for (file, protocol) in [
        ("lambda_memory", "memory"),
        ("lambda_memory_agg", "memory"),
        ("sebs", "memory"),
        ("chunkfunc", "memory"),
        ("jolteon", "joint:30"),
        ("jolteon", "joint:10"),
        ("lambda_memory", "joint:10"),
        ("chunkfunc", "joint:10"),
    ] {
        let Some(rows) = load(file, usize::MAX) else { continue };
        let found = report(&rows, protocol, Quantity::ExecutionTime, &[Method::Model]);
        let coverage = &model(&found).coverage;
        eprintln!("{file} {protocol}: {coverage:?}");
        assert!((0.84..=0.98).contains(&coverage[&P90]), "{file} {protocol}: {coverage:?}");
        assert!((0.90..=0.99).contains(&coverage[&Sla::P95]), "{file} {protocol}: {coverage:?}");
    }
}

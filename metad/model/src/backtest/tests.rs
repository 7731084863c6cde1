//! What the protocols leave out, and that the scores say what was missed.

use super::*;

fn row(task: &str, run: &str, memory_mb: u32, input_bytes: u64, exec_ms: f64) -> Row {
    Row {
        workflow: "w".to_owned(),
        task: task.to_owned(),
        run: (!run.is_empty()).then(|| run.to_owned()),
        memory_mb: Some(memory_mb),
        vcpu: None,
        input_bytes: Some(input_bytes),
        output_bytes: Some(input_bytes * 3),
        exec_ms,
    }
}

/// Two tasks whose time is inverse to memory and affine in the size.
fn grid() -> Vec<Row> {
    let mut rows = Vec::new();
    for run in 0..4 {
        for memory_mb in [256, 512, 1024] {
            for size in [1_000_000, 2_000_000, 4_000_000, 8_000_000_u64] {
                let ms = (100.0 + size as f64 * 1e-4) * 1769.0 / f64::from(memory_mb);
                let noise = 1.0 + 0.01 * f64::from((rows.len() as i32 * 7) % 5 - 2);
                rows.push(row("a", &run.to_string(), memory_mb, size, ms * noise));
                rows.push(row("b", &run.to_string(), memory_mb, size, 3.0 * ms * noise));
            }
        }
    }
    rows
}

fn report(rows: &[Row], protocol: &str, quantity: Quantity) -> Report {
    let settings =
        Settings { protocol: protocol.parse().unwrap(), quantity, methods: Method::ALL.to_vec(), seed: 1 };
    run(rows, &settings).unwrap()
}

#[test]
fn every_protocol_scores_every_method_on_the_same_rows_and_the_model_is_near() {
    for protocol in PROTOCOLS {
        let report = report(&grid(), protocol, Quantity::ExecutionTime);
        assert_eq!(report.scores.len(), Method::ALL.len());
        let first = &report.scores[0];
        assert!(first.n > 0 && first.mdape_percent < 12.0, "{protocol}: {first:?}");
        for score in &report.scores {
            assert_eq!(score.n, first.n, "{protocol}");
            assert!(score.mdape_percent.is_finite() && score.by_task.len() == 2, "{score:?}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_report_and_another_does_not() {
    let draw = |seed| {
        let (protocol, quantity) = (Protocol::Joint(10), Quantity::ExecutionTime);
        run(&grid(), &Settings { protocol, quantity, methods: Method::ALL.to_vec(), seed }).unwrap()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1).scores, draw(2).scores);
}

const PROTOCOLS: [&str; 6] = ["memory", "memory-one", "joint:10", "extrapolate", "next-run", "coverage:2"];

#[test]
fn no_protocol_learns_a_row_that_it_asks_about() {
    for protocol in PROTOCOLS {
        let table = Table::new(&grid(), Quantity::ExecutionTime).unwrap();
        let (protocol, methods) = (protocol.parse().unwrap(), Vec::new());
        let settings = Settings { protocol, quantity: Quantity::ExecutionTime, methods, seed: 1 };
        let split = split::split(&table, &settings);
        assert!(!split.trials.is_empty(), "{protocol}");
        for trial in &split.trials {
            let learned = trial.learned(&table);
            assert!(!learned.is_empty() && !trial.ask.is_empty(), "{protocol}");
            for asked in &trial.ask {
                assert!(!learned.contains(asked) && !trial.base.contains(asked), "{protocol}: row {asked}");
                let (case, is_left_out) = (&table.cases[*asked], |row: &usize| match protocol {
                    Protocol::Memory | Protocol::MemoryOne => {
                        let (known, case) = (&table.cases[*row], &table.cases[*asked]);
                        (known.task, known.config()) == (case.task, case.config())
                    }
                    Protocol::Joint(_) => table.cases[*row].cell() == table.cases[*asked].cell(),
                    Protocol::Extrapolate => {
                        let (known, case) = (&table.cases[*row], &table.cases[*asked]);
                        known.task == case.task && known.input_bytes >= case.input_bytes
                    }
                    Protocol::NextRun => table.cases[*row].run >= table.cases[*asked].run,
                    Protocol::Coverage(_) => row >= asked,
                });
                let leaked = learned.iter().chain(trial.base.iter()).find(|row| is_left_out(row));
                assert_eq!(leaked, None, "{protocol}: {case:?}");
            }
        }
    }
}

#[test]
fn more_rows_than_a_fit_takes_are_thinned_and_said() {
    let rows: Vec<Row> = (0..20_000_u64)
        .map(|n| row("a", &(n / 5000).to_string(), 512 << (n % 2), 1000 + n % 9000, 100.0 + (n % 7) as f64))
        .collect();
    for protocol in PROTOCOLS {
        let table = Table::new(&rows, Quantity::ExecutionTime).unwrap();
        let protocol: Protocol = protocol.parse().unwrap();
        let methods = Vec::new();
        let settings = Settings { protocol, quantity: Quantity::ExecutionTime, methods, seed: 1 };
        let split = split::split(&table, &settings);
        assert!(!split.thinned.is_empty(), "{protocol}");
        for trial in &split.trials {
            let learned = trial.learned(&table);
            assert!(learned.len() <= 16_384 && trial.ask.len() <= 4096, "{protocol}");
            assert!(learned.is_sorted() && trial.ask.is_sorted(), "{protocol}");
            assert!(trial.ask.iter().all(|asked| learned.binary_search(asked).is_err()), "{protocol}");
        }
    }
}

#[test]
fn transfers_of_more_stores_than_a_model_keeps_are_all_predicted() {
    let mut rows = Vec::new();
    for n in 0..40_u64 {
        for store in 0..24_u64 {
            let bytes = 100_000 * (1 + n);
            let ms = (10.0 + bytes as f64 / 5e4) * (1.0 + store as f64);
            rows.push(row(&format!("s{store}"), "", 1769, bytes, ms));
        }
    }
    let score = &report(&rows, "joint:30", Quantity::TransferTime).scores[0];
    assert_eq!(score.by_task.len(), 24);
    for (task, score) in &score.by_task {
        assert!(score.n > 50 && score.mdape_percent < 2.0, "{task}: {score:?}");
    }
}

#[test]
fn a_rule_whose_line_passes_zero_keeps_its_quantiles_near_the_values() {
    // Inverse to memory: the line through it is below zero between the smallest and the largest.
    let rows: Vec<Row> = [128, 256, 512, 1024, 2048, 4096, 8192]
        .into_iter()
        .flat_map(|memory_mb| (0..4_u64).map(move |n| (memory_mb, 1000 + n)))
        .map(|(memory_mb, size)| row("a", "", memory_mb, size, 4e6 / f64::from(memory_mb)))
        .collect();
    let most = rows.iter().map(|row| row.exec_ms).fold(0.0, f64::max);
    let scores = report(&rows, "joint:20", Quantity::ExecutionTime).scores;
    for score in scores {
        for (sla, loss) in &score.pinball_ms {
            assert!(*loss < 10.0 * most, "{} {sla:?}: {loss} of {most}", score.method);
        }
    }
}

#[test]
fn a_left_out_config_is_not_learned() {
    // Only the config that is left out is slow: a method that had seen it would be right.
    let rows: Vec<Row> = (0..40)
        .map(|n| row("a", "", if n % 2 == 0 { 512 } else { 1024 }, 0, if n % 2 == 0 { 900.0 } else { 100.0 }))
        .collect();
    let scores = report(&rows, "memory", Quantity::ExecutionTime).scores;
    let median = scores.iter().find(|s| s.method == Method::Median).unwrap();
    assert!((median.mape_percent - (800.0 + 800.0 / 9.0) / 2.0).abs() < 1e-9, "{median:?}");
    assert_eq!(median.coverage[&Sla::MEDIAN], 0.5);
    // The model cannot know either: what it supposes lies between flat and inverse to memory.
    let model = scores.iter().find(|s| s.method == Method::Model).unwrap();
    assert!(model.n == 40 && model.mape_percent > 200.0, "{model:?}");
}

#[test]
fn a_truth_of_nothing_has_no_percentage() {
    let ms = |n: u64| if n % 10 == 9 { 0.0 } else { 100.0 };
    let rows: Vec<Row> = (0..40).map(|n| row("a", &n.to_string(), 512, 0, ms(n))).collect();
    let scores = report(&rows, "next-run", Quantity::ExecutionTime).scores;
    let median = scores.iter().find(|s| s.method == Method::Median).unwrap();
    assert_eq!((median.n, median.mape_percent, median.mdape_percent), (39, 0.0, 0.0), "{median:?}");
    assert_eq!(median.by_task["w/a"].mape_percent, 0.0);
}

#[test]
fn output_sizes_and_transfers_are_scored_in_their_units() {
    let sizes = report(&grid(), "next-run", Quantity::OutputSize);
    assert_eq!(sizes.unit, Unit::Bytes);
    assert!(sizes.scores[0].mdape_percent < 0.1, "{:?}", sizes.scores[0]);
    let rows: Vec<Row> = (0..60_u64)
        .map(|n| row("s3", "", 1769, 1000 << (n % 10), 20.0 + (1000 << (n % 10)) as f64 / 5e4))
        .collect();
    let transfers = report(&rows, "joint:12", Quantity::TransferTime);
    assert_eq!(transfers.unit, Unit::Ms);
    assert!(transfers.scores[0].mdape_percent < 10.0, "{:?}", transfers.scores[0]);
}

#[test]
fn names_are_read_back_and_others_are_refused_with_a_hint() {
    for text in ["memory", "memory-one", "joint:30", "extrapolate", "next-run", "coverage:10"] {
        assert_eq!(text.parse::<Protocol>().unwrap().to_string(), text);
    }
    for method in Method::ALL {
        assert_eq!(method.to_string().parse::<Method>().unwrap(), method);
    }
    for text in ["joint", "joint:0", "joint:x", "memory:3", "", "Memory"] {
        let error = text.parse::<Protocol>().unwrap_err().to_string();
        assert!(error.contains(&format!("`{text}`")) && error.contains("hint: "), "{error}");
    }
    assert!("time".parse::<Quantity>().is_err() && "knn".parse::<Method>().is_err());
}

#[test]
fn rows_that_are_no_measurements_are_refused_with_their_place() {
    let settings = Settings {
        protocol: Protocol::NextRun,
        quantity: Quantity::ExecutionTime,
        methods: vec![Method::Model],
        seed: 0,
    };
    let mut rows = grid();
    rows[4].exec_ms = f64::NAN;
    assert!(run(&rows, &settings).unwrap_err().to_string().contains("row 5"));
    let one_run: Vec<Row> = (0..9).map(|_| row("a", "", 512, 1, 1.0)).collect();
    assert!(run(&one_run, &settings).unwrap_err().to_string().contains("next-run"));
    let text = r#"{"workflow":"w","task":"t","memory_mb":512.0,"input_bytes":12.0,"exec_ms":3}"#;
    let read: Row = serde_json::from_str(text).unwrap();
    assert_eq!((read.memory_mb, read.input_bytes, read.run), (Some(512), Some(12), None));
}

#[test]
fn what_the_rows_lack_is_told() {
    let without = grid().into_iter().map(|row| Row { output_bytes: None, ..row }).collect::<Vec<_>>();
    for (rows, protocol, quantity, word) in [
        (&without[..], "memory", Quantity::OutputSize, "no output sizes"),
        (&without[..1], "memory", Quantity::ExecutionTime, "no task has two configs"),
        (&[], "next-run", Quantity::ExecutionTime, "no rows"),
    ] {
        let protocol = protocol.parse().unwrap();
        let settings = Settings { protocol, quantity, methods: Method::ALL.to_vec(), seed: 1 };
        let error = run(rows, &settings).unwrap_err().to_string();
        assert!(error.contains(word), "`{word}` is missing: {error}");
    }
}

#[test]
fn medians_fold_what_was_measured_of_the_same_task_worker_and_input() {
    let mut rows = vec![
        row("a", "1", 256, 10, 5.0),
        row("b", "1", 256, 10, 70.0),
        row("a", "2", 256, 10, 7.0),
        row("a", "2", 512, 10, 2.0),
        row("a", "3", 256, 10, 900.0),
        row("a", "3", 256, 20, 4.0),
    ];
    rows[2].output_bytes = None;
    rows[4].output_bytes = Some(50);
    let expect =
        [("a", 256, 10, 7.0, 40), ("b", 256, 10, 70.0, 30), ("a", 512, 10, 2.0, 30), ("a", 256, 20, 4.0, 60)];
    let found = medians(&rows);
    let seen: Vec<_> = found
        .iter()
        .map(|row| {
            let sizes = (row.memory_mb.unwrap(), row.input_bytes.unwrap());
            (row.task.as_str(), sizes.0, sizes.1, row.exec_ms, row.output_bytes.unwrap())
        })
        .collect();
    assert_eq!(seen, expect);
    let mut apart = rows[..1].to_vec();
    apart.push(Row { vcpu: Some(1.0), ..rows[0].clone() });
    apart.push(Row { workflow: "v".to_owned(), ..rows[0].clone() });
    assert_eq!(medians(&apart), apart);
    assert_eq!(medians(&[]), []);
}

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
    for protocol in ["memory", "memory-one", "joint:10", "extrapolate", "next-run", "coverage:2"] {
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

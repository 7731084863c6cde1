//! Workloads carried out under several planners, held against the same functions in one process.

use crate::support::run;

#[test]
fn every_workload_gives_the_results_of_its_reference_under_every_planner() {
    let data = tempfile::tempdir().unwrap();
    let small = "gemm:1,svd1:2,svd2:1,tsqr:3,image-transform:64,tree-reduction:9,wordcount:1,cycles:1,\
        epigenomics:1,genome:1,soykb:1,video:1,recognizer:1,file-processing:1,\
        excamera:1,map-reduce:1,hello:2";
    let folder = data.path().join("texts");
    std::fs::create_dir(&folder).unwrap();
    for (name, text) in [("a.rs", "fn answer() -> u32 { 42 }"), ("b.py", "def answer(): return 42")] {
        std::fs::write(folder.join(name), text.repeat(100)).unwrap();
    }
    let planners = "simple,random";
    let args = ["lab", "run", "--workloads", small, "--planners", planners, "--repeats", "1", "--learn", "1"];
    let folder = ["--folder", folder.to_str().unwrap(), "-o", "json"];
    let ended = run(data.path(), &[&args[..], &folder].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let rows = ended.json()["runs"].as_array().unwrap().clone();
    assert_eq!(rows.len(), 2 * small.split(',').count());
    for row in &rows {
        assert_eq!(row["is_correct"], true, "{row:#}");
        assert!(row["actual"]["makespan_ms"].as_f64().unwrap() > 0.0, "{row:#}");
        assert_eq!(row["learned_from"].as_u64(), Some(if row["planner"] == "simple" { 1 } else { 2 }));
    }
}

#[test]
fn unknown_workloads_sizes_and_planners_are_named() {
    let data = tempfile::tempdir().unwrap();
    for (workloads, planners, word) in [
        ("gem", "simple", "no example `gem`"),
        ("gemm:many", "simple", "`many` is no size"),
        ("gemm:999999", "simple", "must lie between"),
        ("gemm", "best", "no planner `best`"),
    ] {
        let ended = run(data.path(), &["lab", "run", "--workloads", workloads, "--planners", planners]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(word), "{ended:?}");
    }
}

#[test]
fn every_optimisation_is_carried_out_with_and_without() {
    let data = tempfile::tempdir().unwrap();
    let args = ["lab", "optimisations", "--workloads", "gemm:1", "--repeats", "2", "--learn", "1"];
    let ended = run(data.path(), &[&args[..], &["-o", "json"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let document = ended.json();
    let effects = document["effects"].as_array().unwrap();
    let names: Vec<_> = effects.iter().map(|effect| effect["optimisation"].as_str().unwrap()).collect();
    let all = ["pre-warm", "pre-load", "task-dup", "overlapped uploads", "running ahead", "held outputs"];
    assert_eq!(names, all);
    for effect in effects {
        assert_eq!((effect["pairs"].as_u64(), effect["wrong"].as_u64()), (Some(2), Some(0)), "{effect:#}");
        assert!(effect["makespan"]["mean"].as_f64().unwrap() > 0.0, "{effect:#}");
    }
    let pairs = document["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 2 * all.len());
    let held = pairs.iter().find(|pair| pair["optimisation"] == "held outputs").unwrap();
    let planner = |side: &str| held[side]["planner"].as_str().unwrap();
    assert!(planner("with").starts_with("wukong:@") && planner("without").starts_with("wukong:none@"));
}

//! Workflows whose shape, times and sizes were published and whose programs are not at hand: each task burns
//! the CPU time and writes the bytes of the original.
//!
//! The size is in thousandths of what was published, for times and bytes alike. Sources: FaaSFlow (ASPLOS'22)
//! for `cycles`, `epigenomics`, `genome`, `soykb`, `video`, `recognizer`, `file-processing`; SeBS-Flow
//! (EuroSys'25) for `excamera` and `map-reduce`; Montage's steps for `montage`. Times in ms.

use foresail_schemas::Workflow;
use foresail_schemas::wfformat::{BURN, BurnParams};

use crate::builder::{BuildError, TaskHandle, WorkflowBuilder};

/// A published megabyte.
const MB: f64 = 1_000_000.0;
/// Time of every task of FaaSFlow's scientific workflows.
const SECOND: f64 = 1_000.0;

/// Adds tasks that burn a share of what was published.
struct Recorded {
    flow: WorkflowBuilder,
    share: f64,
}

impl Recorded {
    /// Runs of another size are another workflow: their times must not be taken for each other's.
    fn new(name: &str, description: &str, mille: u64) -> Self {
        let flow = WorkflowBuilder::new(format!("{name}@{mille}")).description(description);
        Self { flow, share: mille as f64 / 1_000.0 }
    }

    fn task(
        &mut self,
        id: String,
        name: &str,
        exec_ms: f64,
        bytes: f64,
        reads: &[&TaskHandle],
    ) -> TaskHandle {
        let load = BurnParams { cpu_ms: exec_ms * self.share };
        let bytes = (bytes * self.share).ceil() as u64;
        let task = self.flow.task(id).named(name).function(BURN, load).output_of("out", bytes);
        reads.iter().fold(task, |task, read| task.reads(read)).handle()
    }

    /// One task for each of `parents`, which reads that parent.
    fn each(&mut self, name: &str, exec_ms: f64, bytes: f64, parents: &[TaskHandle]) -> Vec<TaskHandle> {
        let one = |(at, parent)| self.task(format!("{name}-{}", at + 1), name, exec_ms, bytes, &[parent]);
        parents.iter().enumerate().map(one).collect()
    }

    /// Tasks that read nothing.
    fn sources(&mut self, count: usize, name: &str, exec_ms: f64, bytes: f64) -> Vec<TaskHandle> {
        (1..=count).map(|at| self.task(format!("{name}-{at}"), name, exec_ms, bytes, &[])).collect()
    }

    /// One task for every `width` of `parents`.
    fn gather(
        &mut self,
        name: &str,
        exec_ms: f64,
        bytes: f64,
        parents: &[TaskHandle],
        width: usize,
    ) -> Vec<TaskHandle> {
        let one = |(at, group): (usize, &[TaskHandle])| {
            let reads: Vec<&TaskHandle> = group.iter().collect();
            self.task(format!("{name}-{}", at + 1), name, exec_ms, bytes, &reads)
        };
        parents.chunks(width).enumerate().map(one).collect()
    }
}

/// 46 tasks, 52 edges.
pub(super) fn cycles(mille: u64) -> Result<Workflow, BuildError> {
    let mut add = Recorded::new("cycles", "Agricultural simulations (FaaSFlow)", mille);
    let baseline = add.sources(10, "baseline", SECOND, 31.7 * MB);
    let cycles = add.each("cycles", SECOND, 40.0 * MB, &baseline);
    add.each("fertilizer", SECOND, 39.0 * MB, &baseline);
    let parsed = add.each("parser", SECOND, MB, &cycles);
    let summaries = add.gather("summary", SECOND, MB, &cycles, 5);
    add.gather("yield", SECOND, MB, &parsed, 5);
    add.each("plot", SECOND, MB, &summaries);
    add.flow.build()
}

/// 45 tasks, 50 edges.
pub(super) fn epigenomics(mille: u64) -> Result<Workflow, BuildError> {
    let mut add = Recorded::new("epigenomics", "Mapping of sequences (FaaSFlow)", mille);
    let lanes = add.sources(3, "split", SECOND, 1.1 * MB);
    let parts: Vec<TaskHandle> = lanes.iter().flat_map(|lane| vec![lane.clone(); 3]).collect();
    let filtered = add.each("filter", SECOND, 0.24 * MB, &parts);
    let converted = add.each("sol2sanger", SECOND, 0.23 * MB, &filtered);
    let packed = add.each("fast2bfq", SECOND, 0.05 * MB, &converted);
    let mapped = add.each("map", SECOND, 0.024 * MB, &packed);
    let merged = add.gather("merge-lane", SECOND, 0.07 * MB, &mapped, 3);
    let whole = add.gather("merge", SECOND, 0.2 * MB, &merged, 3);
    let indexed = add.each("index", SECOND, 6.9 * MB, &whole);
    add.each("pileup", SECOND, MB, &indexed);
    add.flow.build()
}

/// 50 tasks, 74 edges.
pub(super) fn genome(mille: u64) -> Result<Workflow, BuildError> {
    let mut add = Recorded::new("genome", "Mutations of 1000 genomes (FaaSFlow)", mille);
    let individuals = add.sources(18, "individuals", SECOND, 0.14 * MB);
    let siftings = add.sources(2, "sifting", SECOND, 6.1 * MB);
    let merged = add.gather("merge", SECOND, 0.1 * MB, &individuals, 9);
    for (lane, (merge, sifting)) in merged.iter().zip(&siftings).enumerate() {
        for population in 1..=7 {
            for name in ["overlap", "frequency"] {
                let id = format!("{name}-{}-{population}", lane + 1);
                add.task(id, name, SECOND, 1.3 * MB, &[merge, sifting]);
            }
        }
    }
    add.flow.build()
}

/// 45 tasks, 77 edges, 11 levels.
pub(super) fn soykb(mille: u64) -> Result<Workflow, BuildError> {
    const STEPS: [&str; 6] = ["align", "sort", "dedup", "add-replace", "realign-target", "indel-realign"];
    const REGIONS: usize = 9;
    let mut add = Recorded::new("soykb", "Variants of soybean genomes (FaaSFlow)", mille);
    let mut lanes = add.sources(2, STEPS[0], SECOND, MB);
    for step in &STEPS[1..] {
        lanes = add.each(step, SECOND, MB, &lanes);
    }
    let regions: Vec<TaskHandle> = lanes.iter().flat_map(|lane| vec![lane.clone(); REGIONS]).collect();
    let called = add.each("haplotype-caller", SECOND, 0.3 * MB, &regions);
    let mut genotyped = Vec::new();
    for region in 0..REGIONS {
        let reads = [&called[region], &called[REGIONS + region]];
        let id = format!("genotype-{}", region + 1);
        genotyped.push(add.task(id, "genotype", SECOND, 0.2 * MB, &reads));
    }
    add.gather("merge-calls", SECOND, MB, &called, 2 * REGIONS);
    let combined = add.gather("combine", SECOND, MB, &genotyped, REGIONS);
    let variants = vec![combined[0].clone(); 2];
    let selected = add.each("select", SECOND, 0.5 * MB, &variants);
    add.each("filter", SECOND, 0.5 * MB, &selected);
    add.flow.build()
}

/// 7 tasks.
pub(super) fn video(mille: u64) -> Result<Workflow, BuildError> {
    let mut add = Recorded::new("video", "Transcoding of a video in four parts (FaaSFlow)", mille);
    let uploaded = add.sources(1, "upload", 3_800.0, 4.4 * MB);
    let split = add.each("split", 630.0, 52.0 * MB, &uploaded);
    let parts = vec![split[0].clone(); 4];
    let transcoded = add.each("transcode", 1_740.0, 22.7 * MB, &parts);
    add.gather("merge", 280.0, 22.7 * MB, &transcoded, 4);
    add.flow.build()
}

/// 8 tasks; every step runs, as for a picture that has to be censored.
pub(super) fn recognizer(mille: u64) -> Result<Workflow, BuildError> {
    let mut add = Recorded::new("recognizer", "Censoring of illegal pictures (FaaSFlow)", mille);
    let upload = add.task("upload".into(), "upload", 100.0, MB, &[]);
    let adult = add.task("adult".into(), "adult", 1_480.0, 1e3, &[&upload]);
    let violence = add.task("violence".into(), "violence", 1_190.0, 1e3, &[&upload]);
    let switch = add.task("switch".into(), "switch", 1.0, 1e3, &[&adult, &violence]);
    let extract = add.task("extract".into(), "extract", 3_900.0, 1e4, &[&upload, &switch]);
    let translate = add.task("translate".into(), "translate", 1_000.0, 1e4, &[&extract]);
    let censor = add.task("censor".into(), "censor", 20.0, 1e3, &[&translate]);
    add.task("mosaic".into(), "mosaic", 20_400.0, MB, &[&upload, &censor]);
    add.flow.build()
}

/// 4 tasks.
pub(super) fn files(mille: u64) -> Result<Workflow, BuildError> {
    let mut add = Recorded::new("file-processing", "Conversion and sentiment of a text (FaaSFlow)", mille);
    let start = add.task("start".into(), "start", 100.0, 29.6 * MB, &[]);
    let converted = add.task("conversion".into(), "conversion", 19_000.0, MB, &[&start]);
    let sentiment = add.task("sentiment".into(), "sentiment", 19_050.0, 1e3, &[&start]);
    add.task("upload".into(), "upload", SECOND, 1e3, &[&converted, &sentiment]);
    add.flow.build()
}

/// 16 tasks: split 30 frames, encode 5 parts, encode them again, rebase one after the other.
pub(super) fn excamera(mille: u64) -> Result<Workflow, BuildError> {
    let mut add = Recorded::new("excamera", "Parallel video encoding (SeBS-Flow)", mille);
    let split = add.sources(1, "split", 500.0, 12.0 * MB);
    let encoded = add.each("encode", 4_000.0, 2.0 * MB, &vec![split[0].clone(); 5]);
    let again = add.each("reencode", 2_000.0, 2.0 * MB, &encoded);
    let mut before: Option<TaskHandle> = None;
    for (at, part) in again.iter().enumerate() {
        let reads: Vec<&TaskHandle> = std::iter::once(part).chain(before.as_ref()).collect();
        let rebased = add.task(format!("rebase-{}", at + 1), "rebase", 1_000.0, 2.0 * MB, &reads);
        before = Some(rebased);
    }
    add.flow.build()
}

/// 9 tasks: 3 mappers, a shuffle, 5 reducers.
pub(super) fn map_reduce(mille: u64) -> Result<Workflow, BuildError> {
    let mut add = Recorded::new("map-reduce", "Three mappers, five reducers (SeBS-Flow)", mille);
    let mapped = add.sources(3, "map", 2_000.0, 5.0 * MB);
    let shuffled = add.gather("shuffle", 500.0, 15.0 * MB, &mapped, 3);
    add.each("reduce", 1_500.0, 0.1 * MB, &vec![shuffled[0].clone(); 5]);
    add.flow.build()
}

/// Montage's steps: project every tile, fit the overlaps of neighbours, solve for the backgrounds, correct
/// every tile, add them up, shrink the mosaic. CPU times and sizes are a hundredth to a tenth of a real small
/// mosaic.
pub(super) fn montage(tiles: u64) -> Result<Workflow, BuildError> {
    const TILE_BYTES: u64 = 400_000;
    let mut flow =
        WorkflowBuilder::new("montage-example").description("Shape of a Montage mosaic, synthetic load");
    let mut load = |id: String, name: &str, cpu_ms: f64, bytes: u64, reads: &[&TaskHandle]| {
        let task = flow.task(id).named(name).function(BURN, BurnParams { cpu_ms }).output_of("out", bytes);
        reads.iter().fold(task, |task, read| task.reads(read)).handle()
    };
    let mut projected = Vec::new();
    for i in 1..=tiles {
        projected.push(load(format!("project-{i}"), "project", 180.0, TILE_BYTES, &[]));
    }
    let mut fits = Vec::new();
    for (i, pair) in projected.windows(2).enumerate() {
        fits.push(load(format!("fit-{}", i + 1), "fit", 40.0, 300, &[&pair[0], &pair[1]]));
    }
    let fits: Vec<&TaskHandle> = fits.iter().collect();
    let concat = load("concat".to_owned(), "concat", 30.0, 2_000, &fits);
    let model = load("model".to_owned(), "model", 120.0, 2_000, &[&concat]);
    let mut corrected = Vec::new();
    for (i, tile) in projected.iter().enumerate() {
        corrected.push(load(format!("correct-{}", i + 1), "correct", 50.0, TILE_BYTES, &[tile, &model]));
    }
    let corrected: Vec<&TaskHandle> = corrected.iter().collect();
    let add = load("add".to_owned(), "add", 250.0, tiles * TILE_BYTES / 2, &corrected);
    load("shrink".to_owned(), "shrink", 60.0, 50_000, &[&add]);
    flow.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_those_that_were_published() {
        let shape = |workflow: Result<Workflow, BuildError>| {
            let workflow = workflow.unwrap();
            let graph = workflow.graph().clone();
            let edges: usize = (0..graph.len() as u32).map(|t| graph.children(t).len()).sum();
            (graph.len(), edges)
        };
        assert_eq!(shape(cycles(100)), (46, 52));
        assert_eq!(shape(epigenomics(100)), (45, 50));
        assert_eq!(shape(genome(100)), (50, 74));
        assert_eq!(shape(soykb(100)), (45, 77));
        assert_eq!(shape(video(100)), (7, 9));
        assert_eq!(shape(files(100)), (4, 4));
    }

    #[test]
    fn a_mosaic_of_n_tiles_has_the_steps_of_montage() {
        let workflow = montage(8).unwrap();
        assert_eq!(workflow.tasks().len(), 8 + 7 + 1 + 1 + 8 + 1 + 1);
        assert_eq!(workflow.graph().sinks().count(), 1);
    }
}

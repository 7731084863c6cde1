//! One task: its measurements per config, and the curves fitted to them at the first question that needs
//! them.
//!
//! Every fit is a function of the measurements alone (and, with few shares, of what other tasks tell the
//! pool), so that it does not matter when it is made. A change of the task forgets its fits; those of configs
//! that did not change stay.

use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwapOption;
use foresail_schemas::metric::TaskRecord;
use serde::{Deserialize, Serialize};

use crate::cells::{CELLS_MAX, SAME};
use crate::config::{ByConfig, CONFIGS_PER_TASK_MAX, ConfigKey};
use crate::curve::{Curve, OFFSET_BYTES, OFFSET_MS, Setup, recent_points, weigh};
use crate::evidence::Evidence;
use crate::history::History;
use crate::levels;
use crate::memo::Memo;
use crate::peak::Peaks;
use crate::ring::{RING_SAMPLES, Sample};
use crate::scaled::{Measured, SPREAD_TIME, Scaled};
use crate::score::Scores;
use crate::series::Series;
use crate::shape::{Belief, Pool};
use crate::shared::Shared;
use crate::size::Point;
use crate::steps;

/// Samples of the same config from which on they alone answer.
pub const EXACT_SAMPLES_MIN: u64 = 5;
/// Most samples that a fit over several configs looks at, newest first.
pub const POOLED_SAMPLES_MAX: usize = 512;
/// Most samples that each of several configs gives to such a fit: what more of them say about the size and
/// the share changes no error in the back-tests, and the fit takes twice as long.
const EACH_SAMPLES_MAX: usize = 64;
/// Histories from this many samples on give the quantiles instead of the ring: four times as many.
const HISTORY_SAMPLES_MIN: u64 = 512;
/// Standard deviation of log residuals of output sizes expected before anything is seen.
const SPREAD_OUTPUT: f64 = 0.02;
/// Log distance up to which input sizes are alike for what is written: an input of the very same bytes often
/// is the same input.
const SAME_OUTPUT: f64 = 1e-6;
/// Most cells of input sizes for what is written: who reads the very same bytes again writes the same, so
/// that a size that was joined with its neighbours is one that was forgotten.
const OUTPUT_CELLS_MAX: usize = 96;

static NO_POOL: LazyLock<Arc<Pool>> = LazyLock::new(Arc::default);

/// The measurements of one task. Copies share the series of each config until one of the copies changes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskModel {
    samples: u64,
    configs: ByConfig,
    /// How well plans predicted it; nothing where none did, as most tasks of a large model are.
    scores: Option<Arc<Scores>>,
    /// Peak memory, where a record had it. The last field: stored forms without it are read as such.
    peaks: Option<Arc<Peaks>>,
    /// Apart from the other fits, because every question looks at it.
    #[serde(skip)]
    newest: Memo<Option<ByConfig>>,
    #[serde(skip)]
    fits: Memo<Box<Fits>>,
}

/// What was fitted so far.
#[derive(Debug, Default)]
struct Fits {
    sizes: Memo<(f64, f64)>,
    told: Memo<Told>,
    output: Memo<Option<Curve>>,
    /// The one part that depends on more than the task: readers of two snapshots may hold two pools, then
    /// each puts its own here and answers from that.
    scaled: ArcSwapOption<Leant>,
}

/// What the measurements say about the shape.
#[derive(Debug)]
pub struct Told {
    /// What this task tells the pool.
    pub belief: Option<Belief>,
    /// What the steps between its shares are taken from; few tasks are asked for them, but these often.
    levels: Vec<steps::Levels>,
    steps: Memo<steps::Told>,
    /// Whether the shape depends on the pool.
    leans_on_pool: bool,
}

#[derive(Debug)]
struct Leant {
    pool: Arc<Pool>,
    scaled: Option<Scaled>,
}

impl TaskModel {
    /// Takes in one execution.
    pub fn record(&mut self, record: &TaskRecord, at_us: i64) {
        let sample = Sample::new(at_us, record.input_bytes, record.exec_ms, record.output_bytes);
        (self.newest, self.fits) = (Memo::default(), Memo::default());
        self.samples += 1;
        if let Some(forecast) = &record.forecast {
            let scores = Arc::make_mut(self.scores.get_or_insert_default());
            scores.record(forecast, record.exec_ms, at_us);
        }
        let key = ConfigKey::new(record.memory_mb, record.vcpu);
        self.configs.record(key, sample);
        if let Some(peak_mb) = record.peak_memory_mb {
            Arc::make_mut(self.peaks.get_or_insert_default()).record(key, peak_mb);
        }
        self.prune_peaks();
    }

    fn prune_peaks(&mut self) {
        if let Some(peaks) = &mut self.peaks
            && self.configs.len() >= CONFIGS_PER_TASK_MAX
        {
            Arc::make_mut(peaks).keep(&self.configs);
        }
    }

    /// Takes in everything of `other`.
    pub fn merge(&mut self, other: &Self) {
        (self.newest, self.fits) = (Memo::default(), Memo::default());
        self.samples += other.samples;
        if let Some(theirs) = &other.scores {
            Arc::make_mut(self.scores.get_or_insert_default()).merge(theirs);
        }
        self.configs.merge(&other.configs);
        if let Some(theirs) = &other.peaks {
            Arc::make_mut(self.peaks.get_or_insert_default()).merge(theirs);
        }
        self.prune_peaks();
    }

    /// Executions over all configs.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// How well plans predicted it.
    pub fn scores(&self) -> Option<&Scores> {
        self.scores.as_deref()
    }

    /// Peak memory by config, where a record had it.
    pub fn peaks(&self) -> Option<&Peaks> {
        self.peaks.as_deref()
    }

    /// The measurements by config.
    pub fn configs(&self) -> &ByConfig {
        &self.configs
    }

    /// The same where those that changed their level together with others know of it.
    pub fn newest(&self) -> &ByConfig {
        self.newest.get(|| levels::newest(&self.configs)).as_ref().unwrap_or(&self.configs)
    }

    /// Whether it was measured at two CPU shares, so that it has something to tell the pool.
    pub fn has_two_shares(&self) -> bool {
        let mut shares = self.configs.iter().map(|(key, _)| key.share());
        let first = shares.next();
        shares.any(|share| Some(share) != first)
    }

    /// What it tells the pool.
    pub fn told(&self) -> &Told {
        self.fits().told.get(|| Told::new(&Evidence::new(&self.shared())))
    }

    /// The curve of a config's own samples.
    pub fn own_curve(&self, key: ConfigKey) -> Option<&Curve> {
        let series = self.newest().get(key)?;
        series.curve(|points| own_curve(points, series))
    }

    /// Smallest and largest size of the samples that [`Self::with_scaled`] looks at.
    pub fn sizes(&self) -> (f64, f64) {
        let whole = |lo: f64, hi: f64, series: &Series| {
            let level = series.level();
            (lo.min(level.size_min), hi.max(level.size_max))
        };
        *self.fits().sizes.get(|| {
            let each = self.each();
            self.newest().iter().fold((f64::MAX, 0.0_f64), |(lo, hi), (_, series)| {
                let (kept, left_out) = (series.ring.len(), series.level().left_out);
                if kept - left_out <= each {
                    return whole(lo, hi, series);
                }
                let size = |place| series.ring.at(left_out + place).size_bytes as f64;
                series.places(each).map(size).fold((lo, hi), |(lo, hi), size| (lo.min(size), hi.max(size)))
            })
        })
    }

    /// Asks the curve over all configs; `pool` is what the other tasks say about the shape.
    pub fn with_scaled<'a, R>(
        &self,
        pool: impl FnOnce() -> &'a Arc<Pool>,
        ask: impl FnOnce(&Scaled) -> R,
    ) -> Option<R> {
        let fits = self.fits();
        let right = |told: &Told| if told.leans_on_pool { pool() } else { &*NO_POOL };
        let (shared, evidence) = match fits.told.known() {
            Some(told) => {
                let held = fits.scaled.load();
                let pool = right(told);
                if let Some(held) = held.as_deref().filter(|held| held.is_for(pool)) {
                    return held.scaled.as_ref().map(ask);
                }
                return self.fit_scaled(&self.shared(), None, pool, ask);
            }
            None => {
                let shared = self.shared();
                let evidence = Evidence::new(&shared);
                (shared, evidence)
            }
        };
        let pool = right(fits.told.get(|| Told::new(&evidence)));
        self.fit_scaled(&shared, Some(evidence), pool, ask)
    }

    /// Whether [`Self::with_scaled`] has its curve; `pool` is that of all tasks, where it was summed.
    pub fn is_scaled(&self, pool: Option<&Arc<Pool>>) -> bool {
        let fits = self.fits();
        let Some(told) = fits.told.known() else { return false };
        let right = if told.leans_on_pool { pool } else { Some(&*NO_POOL) };
        let held = fits.scaled.load();
        held.as_deref().zip(right).is_some_and(|(held, pool)| held.is_for(pool))
    }

    fn fit_scaled<R>(
        &self,
        shared: &Shared,
        evidence: Option<Evidence>,
        pool: &Arc<Pool>,
        ask: impl FnOnce(&Scaled) -> R,
    ) -> Option<R> {
        let evidence = evidence.unwrap_or_else(|| Evidence::new(shared));
        let measured = Measured { newest: shared, former: &self.former_points(), samples: self.samples };
        let scaled = Scaled::fit(&measured, &evidence, pool);
        let leant = Arc::new(Leant { pool: Arc::clone(pool), scaled });
        self.fits().scaled.store(Some(Arc::clone(&leant)));
        leant.scaled.as_ref().map(ask)
    }

    /// Output against input size over all configs: memory does not change what a task writes.
    pub fn output_curve(&self) -> Option<&Curve> {
        self.fits().output.get(|| self.fit_output()).as_ref()
    }

    /// Whether [`Self::output_curve`] was fitted.
    pub fn is_output_fitted(&self) -> bool {
        self.fits().output.known().is_some()
    }

    fn fit_output(&self) -> Option<Curve> {
        let mut points: Vec<Point> = Vec::new();
        for (_, series) in self.configs.iter() {
            points.extend(
                recent_points(series.ring.iter(), |s| s.output_bytes().map(|b| b as f64 + OFFSET_BYTES)).0,
            );
        }
        points.sort_by(|a, b| a.at_us.cmp(&b.at_us).then(a.size.total_cmp(&b.size)));
        points.drain(..points.len().saturating_sub(POOLED_SAMPLES_MAX));
        weigh(&mut points);
        let repeats = points.len() > 1 && points.iter().all(|p| p.value == points[0].value);
        let spread = if repeats { 0.0 } else { SPREAD_OUTPUT };
        Curve::fit(
            &points,
            &[],
            &Setup { spread, history: None, samples: 0, same: SAME_OUTPUT, cells_max: OUTPUT_CELLS_MAX },
        )
    }

    fn fits(&self) -> &Fits {
        self.fits.get(Box::default)
    }

    /// Most samples that each config gives to a fit over all of them.
    fn each(&self) -> usize {
        match self.configs.len() {
            0 | 1 => RING_SAMPLES,
            configs => (POOLED_SAMPLES_MAX / configs).clamp(1, EACH_SAMPLES_MAX),
        }
    }

    /// Samples of the levels before the newest, of configs that changed again and again.
    fn former_points(&self) -> Vec<(ConfigKey, Point)> {
        let (each, mut former) = (self.each(), Vec::new());
        for (key, series) in self.newest().iter() {
            let points = series.former();
            former.extend(points[points.len().saturating_sub(each)..].iter().map(|p| (key, *p)));
        }
        former
    }

    fn shared(&self) -> Shared {
        let each = self.each();
        let some = |(key, series): (ConfigKey, &Arc<Series>)| (key, series.some(each));
        Shared::without_memory(self.newest().iter().map(some).collect())
    }
}

impl Told {
    fn new(evidence: &Evidence) -> Self {
        let belief = evidence.belief.clone();
        let levels = if belief.is_some() { evidence.levels() } else { Vec::new() };
        Self { belief, levels, steps: Memo::default(), leans_on_pool: evidence.leans_on_pool() }
    }

    /// What it shows of steps between shares.
    pub fn steps(&self) -> &steps::Told {
        self.steps.get(|| steps::told(&self.levels))
    }
}

impl Leant {
    fn is_for(&self, pool: &Arc<Pool>) -> bool {
        Arc::ptr_eq(&self.pool, pool) || self.pool == *pool
    }
}

fn own_curve(points: &[Point], series: &Series) -> Option<Curve> {
    let level = series.level();
    let history = || {
        let history = History::new(&series.histogram.decode(), OFFSET_MS);
        let mut recent: Vec<f64> = points.iter().map(|point| point.value).collect();
        (history.varies() && history.agrees_with(&mut recent)).then_some(history)
    };
    // Decoded only where the curve has a use for it.
    let long = level.left_out == 0 && level.samples >= HISTORY_SAMPLES_MIN;
    let history = long.then_some(&history as &dyn Fn() -> Option<History>);
    let setup =
        Setup { spread: SPREAD_TIME, history, samples: level.samples, same: SAME, cells_max: CELLS_MAX };
    Curve::fit(points, &series.former(), &setup)
}

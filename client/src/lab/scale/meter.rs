//! Counts over time, and queues. Times in ms.

/// Width of the windows that peaks are counted in.
const WINDOW_MS: f64 = 1_000.0;
/// Most windows that are told apart; what comes later counts in the last.
const WINDOWS_MAX: usize = 1_000_000;

/// How much of something there was, in all and in each second.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    windows: Vec<f64>,
    /// In all.
    pub total: f64,
}

impl Meter {
    /// So much of it at this time.
    pub fn add(&mut self, at_ms: f64, amount: f64) {
        let window = ((at_ms / WINDOW_MS) as usize).min(WINDOWS_MAX - 1);
        if self.windows.len() <= window {
            self.windows.resize(window + 1, 0.0);
        }
        self.windows[window] += amount;
        self.total += amount;
    }

    /// Most of it in a second.
    #[must_use]
    pub fn peak_per_s(&self) -> f64 {
        self.windows.iter().copied().fold(0.0, f64::max)
    }

    /// Most of it in so many seconds in a row.
    #[must_use]
    pub fn peak_in(&self, seconds: usize) -> f64 {
        let sums = (0..self.windows.len()).map(|at| self.windows[at..].iter().take(seconds).sum());
        sums.fold(0.0, f64::max)
    }

    /// The most of all of them together in a second, and what each has of it.
    #[must_use]
    pub fn peak_of(meters: &[&Self]) -> (f64, Vec<f64>) {
        let windows = meters.iter().map(|meter| meter.windows.len()).max().unwrap_or(0);
        let at = |window: usize| -> Vec<f64> {
            meters.iter().map(|meter| meter.windows.get(window).copied().unwrap_or(0.0)).collect()
        };
        let peak = (0..windows).map(at).map(|parts| (parts.iter().sum::<f64>(), parts));
        peak.fold((0.0, vec![0.0; meters.len()]), |most, next| if next.0 > most.0 { next } else { most })
    }
}

/// A queue in order of arrival.
#[derive(Debug, Clone, Copy, Default)]
pub struct Queue {
    until_ms: f64,
}

impl Queue {
    /// Takes something that lasts so long: when it is done.
    pub fn take(&mut self, now_ms: f64, lasts_ms: f64) -> f64 {
        self.until_ms = self.until_ms.max(now_ms) + lasts_ms;
        self.until_ms
    }

    /// Until when it is busy.
    #[must_use]
    pub fn until_ms(&self) -> f64 {
        self.until_ms
    }
}

/// What a run asked of what surrounds it. Times of the keeper's thread in ms, sizes in bytes.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// Requests with operations.
    pub requests: Meter,
    /// Operations in them.
    pub operations: f64,
    /// Bytes of these requests.
    pub request_bytes: Meter,
    /// Bytes of the answers to them.
    pub answers_bytes: Meter,
    /// Largest of these answers.
    pub answer_bytes_max: f64,
    /// Time that they took.
    pub requests_ms: Meter,
    /// Requests for what a worker reads before it begins.
    pub documents: Meter,
    /// Bytes of the answers to them.
    pub documents_bytes: Meter,
    /// Time that they took.
    pub documents_ms: Meter,
    /// Answers to those who listen.
    pub pages: Meter,
    /// Bytes of them.
    pub news_bytes: Meter,
    /// Time that they took.
    pub news_ms: Meter,
    /// Entries of the log that every worker folds.
    pub folded: Meter,
    /// Bytes of the events that metad stores.
    pub stored_bytes: f64,
    /// Bytes of the log of a run.
    pub log_bytes: f64,
    /// Batches of measurements.
    pub batches: Meter,
    /// Records in them.
    pub records: Meter,
    /// Time that metad took for them.
    pub learning_ms: Meter,
    /// Workers asked for.
    pub invocations: Meter,
    /// Workers that had to be started anew.
    pub cold_starts: Meter,
    /// Objects stored.
    pub puts: Meter,
    /// Objects read.
    pub gets: Meter,
    /// Most workers at the same time.
    pub workers_max: f64,
    /// When the platform began to start the last new one.
    pub last_start_ms: f64,
    /// Longest time that a request waited for its turn and was carried out.
    pub waits_ms: f64,
    /// Requests whose answer nobody waited for any more.
    pub given_up: f64,
}

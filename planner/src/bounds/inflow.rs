//! When the inputs of a task can all be in one container.
//!
//! The container runs the maker of an input on one of its lanes, or it fetches that input over its link
//! after the maker has ended elsewhere. Lanes and link work at the same time, the link brings one thing at a
//! time. What is made here has to be stored over the container's up-link, one thing at a time too, before
//! anybody reads it. The least over the choices of makers that run in the container holds: none, one (each
//! of them), or several, which share the lanes and the up-link. Where there are too many makers to go
//! through, a split of every input by fractions must do. A maker that runs here needs its own inputs here:
//! those from outside that nobody else reads are fetched over the same link.

/// Makers for which the choices are gone through.
const MAKERS_MAX: usize = 32;
/// Fewest inputs that are split: of fewer it takes more time than it tells.
const SPLIT_MIN: usize = 4;
/// Moments after which what is left is split.
const MOMENTS_MAX: usize = 16;

/// All inputs of one maker, or all from outside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Supply {
    pub maker: Option<u32>,
    /// When the maker's code, or the fetch of what comes from outside, begins at the earliest.
    pub begin_ms: f64,
    /// Earliest end of the maker.
    pub end_ms: f64,
    /// Time of the maker's code on a lane; infinite from outside.
    pub run_ms: f64,
    /// Time to store all that the maker makes on the up-link of its container, without which nobody reads
    /// it; infinite from outside.
    pub store_ms: f64,
    /// When a fetch may begin.
    pub fetch_from_ms: f64,
    pub download_ms: f64,
    /// Time to fetch what only the maker reads, from outside.
    pub own_ms: f64,
}

impl Supply {
    /// From outside the workflow, which may be fetched from a moment on.
    pub fn external(from_ms: f64, download_ms: f64) -> Self {
        let (maker, run_ms) = (None, f64::INFINITY);
        Self {
            maker,
            begin_ms: from_ms,
            end_ms: from_ms,
            run_ms,
            store_ms: f64::INFINITY,
            fetch_from_ms: from_ms,
            download_ms,
            own_ms: 0.0,
        }
    }
}

/// The inputs of one task.
#[derive(Debug)]
pub(super) struct Inflow {
    lanes: f64,
    /// When the first fetch of any may begin.
    link_from_ms: f64,
    supplies: Vec<Supply>,
    moments: Vec<f64>,
    /// Whether all may be there soonest where several makers run in the container.
    pub is_shared: bool,
}

impl Inflow {
    pub fn new(lanes: f64, link_from_ms: f64) -> Self {
        Self { lanes, link_from_ms, supplies: Vec::new(), moments: Vec::new(), is_shared: false }
    }

    pub fn clear(&mut self) {
        self.supplies.clear();
    }

    /// The inputs, one per maker once [`Inflow::there_ms`] was asked.
    pub fn supplies(&self) -> &[Supply] {
        &self.supplies
    }

    /// Another input.
    pub fn add(&mut self, supply: Supply) {
        // Beyond so many they are brought together by sorting, once all are known.
        let from = if self.supplies.len() > MAKERS_MAX { self.supplies.len() - 1 } else { 0 };
        match self.supplies[from..].iter_mut().find(|s| s.maker == supply.maker) {
            Some(same) => same.download_ms += supply.download_ms,
            None => self.supplies.push(supply),
        }
    }

    /// When all can be there.
    pub fn there_ms(&mut self) -> f64 {
        if self.supplies.len() > MAKERS_MAX {
            self.supplies.sort_by_key(|s| s.maker);
            self.supplies.dedup_by(|later, first| {
                let is_same = later.maker == first.maker;
                first.download_ms += if is_same { later.download_ms } else { 0.0 };
                is_same
            });
            self.is_shared = true;
            return self.split_ms();
        }
        self.supplies.sort_by(|a, b| b.fetch_from_ms.total_cmp(&a.fetch_from_ms));
        let makers = (0..self.supplies.len()).filter(|&i| self.supplies[i].maker.is_some());
        let with_one = makers.map(|i| self.fetched_ms(Some(i))).fold(f64::INFINITY, f64::min);
        let at_most_one_ms = self.fetched_ms(None).min(with_one);
        let several_ms = self.several_ms();
        self.is_shared = several_ms < at_most_one_ms;
        // Of few the choices say enough, and no split is needed where several are no better than one.
        self.is_shared &= self.supplies.len() >= SPLIT_MIN;
        if !self.is_shared {
            return at_most_one_ms.min(several_ms);
        }
        at_most_one_ms.min(several_ms.max(self.split_ms()))
    }

    /// All are fetched but those of one maker, which runs here.
    fn fetched_ms(&self, here: Option<usize>) -> f64 {
        let mut fetches_ms = 0.0;
        let mut there_ms = here.map_or(0.0, |i| self.supplies[i].end_ms);
        // The latest first: after each begins there are its own fetch and all before it in this order.
        for (_, supply) in self.supplies.iter().enumerate().filter(|(at, _)| Some(*at) != here) {
            fetches_ms += supply.download_ms;
            there_ms = there_ms.max(supply.fetch_from_ms + fetches_ms);
        }
        there_ms
    }

    /// At least two makers run here, so that the lanes and the up-link take at least the two shortest.
    fn several_ms(&self) -> f64 {
        let makers = || self.supplies.iter().filter(|s| s.maker.is_some());
        let first_ms = makers().map(|s| s.begin_ms).fold(f64::INFINITY, f64::min);
        let two_ms = |of: &dyn Fn(&Supply) -> f64| {
            let mut least_ms = [f64::INFINITY; 2];
            for ms in makers().map(of) {
                if ms < least_ms[0] {
                    least_ms = [ms, least_ms[0]];
                } else {
                    least_ms[1] = least_ms[1].min(ms);
                }
            }
            least_ms[0] + least_ms[1]
        };
        first_ms + (two_ms(&|s| s.run_ms) / self.lanes).max(two_ms(&|s| s.store_ms))
    }

    /// What no split of the inputs over lanes and link, or over up-link and link, can beat.
    pub fn split_ms(&mut self) -> f64 {
        let lanes = self.lanes;
        let by_lanes_ms = self.split_by(|s| s.run_ms / lanes);
        by_lanes_ms.max(self.split_by(|s| s.store_ms))
    }

    /// The best split of every input by fractions over the link and what it takes `here_ms` of: of all of
    /// them, and after every moment of those that begin, or may be fetched, later. Beyond [`MOMENTS_MAX`]
    /// some moments must do.
    fn split_by(&mut self, here_ms: impl Fn(&Supply) -> f64) -> f64 {
        let count = self.supplies.len();
        // What saves the link most for its time here runs here first.
        let worth = |s: &Supply| (s.download_ms - s.own_ms).max(0.0) / here_ms(s);
        self.supplies.sort_by(|a, b| worth(b).total_cmp(&worth(a)));
        let begin_ms = self.supplies.iter().map(|s| s.begin_ms).fold(f64::INFINITY, f64::min);
        let mut there_ms = self.balance_ms((begin_ms, self.link_from_ms), |_| true, &here_ms, |s| s.own_ms);
        let worth = |s: &Supply| s.download_ms / here_ms(s);
        self.supplies.sort_by(|a, b| worth(b).total_cmp(&worth(a)));
        for key in [|s: &Supply| s.begin_ms, |s: &Supply| s.fetch_from_ms] {
            self.moments.clear();
            self.moments.extend(self.supplies.iter().map(key));
            self.moments.sort_by(f64::total_cmp);
            for at in (0..count).step_by(count.div_ceil(MOMENTS_MAX).max(1)) {
                let moment_ms = self.moments[at];
                let is_later = |s: &Supply| key(s) >= moment_ms;
                let later = self.supplies.iter().filter(|s| is_later(s));
                let from_ms = later.fold((f64::INFINITY, f64::INFINITY), |(begin, fetch), s| {
                    (begin.min(s.begin_ms), fetch.min(s.fetch_from_ms))
                });
                there_ms = there_ms.max(self.balance_ms(from_ms, is_later, &here_ms, |_| 0.0));
            }
        }
        there_ms
    }

    /// When lanes (or the up-link) and link, which begin at `from_ms`, have done all that `counts` at the
    /// earliest, in the order of the supplies: each takes `here_ms` and `beside_ms` on the link, or its
    /// download.
    /// This is the fractional knapsack, which giving in order of worth solves (Dantzig, 1957).
    fn balance_ms(
        &self,
        (lane_ms, link_ms): (f64, f64),
        counts: impl Fn(&Supply) -> bool,
        here_ms: impl Fn(&Supply) -> f64,
        beside_ms: impl Fn(&Supply) -> f64,
    ) -> f64 {
        let all = || self.supplies.iter().filter(|s| counts(s));
        let fetches_ms = all().map(|s| s.download_ms).sum::<f64>();
        let (link_from_ms, mut link_ms) = (link_ms, link_ms + fetches_ms);
        let mut lane_ms = lane_ms;
        for supply in all() {
            let (run_ms, saved_ms) = (here_ms(supply), supply.download_ms - beside_ms(supply));
            if lane_ms >= link_ms {
                break;
            }
            if !run_ms.is_finite() || saved_ms <= 0.0 {
                continue;
            }
            if lane_ms + run_ms >= link_ms - saved_ms {
                return lane_ms + (link_ms - lane_ms) * run_ms / (run_ms + saved_ms);
            }
            (lane_ms, link_ms) = (lane_ms + run_ms, link_ms - saved_ms);
        }
        // A link that brings nothing need not have begun.
        if link_ms > link_from_ms + 1e-9 * link_ms { link_ms } else { lane_ms.min(link_ms) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(maker: u32, (begin_ms, end_ms, download_ms): (f64, f64, f64)) -> Supply {
        let run_ms = end_ms - begin_ms;
        Supply {
            maker: Some(maker),
            begin_ms,
            end_ms,
            run_ms,
            store_ms: 0.0,
            fetch_from_ms: end_ms,
            download_ms,
            own_ms: 0.0,
        }
    }

    fn of(lanes: f64, supplies: &[Supply]) -> f64 {
        let mut inflow = Inflow::new(lanes, 0.0);
        supplies.iter().for_each(|&s| inflow.add(s));
        inflow.there_ms()
    }

    /// Makers with start, end and download time on `lanes`; a fetch may begin when the maker has ended.
    fn there_ms(lanes: f64, supplies: &[(f64, f64, f64)]) -> f64 {
        let made: Vec<Supply> = (0..).zip(supplies).map(|(maker, &s)| made(maker, s)).collect();
        of(lanes, &made)
    }

    #[test]
    fn one_of_two_long_makers_runs_here_and_the_other_is_fetched() {
        assert!((there_ms(1.0, &[(0.0, 100.0, 10.0), (0.0, 90.0, 7.0)]) - 100.0).abs() < 1e-9);
        assert!((there_ms(1.0, &[(0.0, 100.0, 10.0), (0.0, 96.0, 7.0)]) - 103.0).abs() < 1e-9);
        // Two of three are fetched, one after the other.
        let three = [(0.0, 100.0, 10.0), (0.0, 100.0, 10.0), (0.0, 100.0, 10.0)];
        assert!((there_ms(1.0, &three) - 120.0).abs() < 1e-9);
    }

    #[test]
    fn short_makers_share_the_lanes_and_the_link_works_beside() {
        let two = [(0.0, 5.0, 50.0), (0.0, 5.0, 50.0)];
        assert!((there_ms(1.0, &two) - 10.0).abs() < 1e-9, "one after the other");
        assert!((there_ms(2.0, &two) - 5.0).abs() < 1e-9, "at the same time");
        let many = vec![(0.0, 40.0, 50.0); 40];
        // A part x is made, 1600 x = 40 + 2000 (1 - x), since the first fetch begins at 40.
        let part = 2_040.0 / 3_600.0;
        assert!((there_ms(1.0, &many) - 1_600.0 * part).abs() < 1e-9, "both end at the same time");
    }

    #[test]
    fn what_is_made_here_takes_its_time_on_the_up_link() {
        let stored = |count: u32| -> Vec<Supply> {
            (0..count).map(|m| Supply { store_ms: 50.0, ..made(m, (0.0, 5.0, 50.0)) }).collect()
        };
        assert!((of(1.0, &stored(2)) - 55.0).abs() < 1e-9, "one is made here, the other fetched");
        // A part x is stored, 2000 x = 5 + 2000 (1 - x).
        assert!((of(1.0, &stored(40)) - 1_002.5).abs() < 1e-9, "half is stored while half is fetched");
    }

    #[test]
    fn what_comes_from_outside_is_fetched_one_after_another() {
        assert!((of(1.0, &[Supply::external(100.0, 7.0); 40]) - 380.0).abs() < 1e-9);
    }

    #[test]
    fn a_maker_whose_own_inputs_take_as_long_as_its_output_does_not_run_here() {
        let own = |maker: u32, own_ms: f64| Supply { own_ms, ..made(maker, (100.0, 1_000.0, 20.0)) };
        let with_own = |own_ms: f64| -> Vec<Supply> { (0..100).map(|m| own(m, own_ms)).collect() };
        // From 1,000 on all are fetched but two or three, which run here meanwhile.
        let bare_ms = of(1.0, &with_own(0.0));
        assert!(bare_ms > 2_900.0 && bare_ms < 3_000.0, "{bare_ms}");
        let early = |own_ms| Supply { own_ms, ..made(0, (0.0, 5.0, 20.0)) };
        let all = |own_ms| -> Vec<Supply> {
            (0..100).map(|m| Supply { maker: Some(m), ..early(own_ms) }).collect()
        };
        assert!(of(1.0, &all(20.0)) >= 2_000.0 && of(1.0, &all(0.0)) < 500.0);
    }

    #[test]
    fn a_maker_that_is_met_again_is_paid_for_once() {
        let twice = |makers: u32| (0..2 * makers).map(move |m| made(m % makers, (0.0, 5.0, 50.0)));
        let (few, many): (Vec<Supply>, Vec<Supply>) = (twice(2).collect(), twice(50).collect());
        assert!((of(1.0, &few) - 10.0).abs() < 1e-9, "both run here, one after the other");
        // 250 x = 5 + 5000 (1 - x)
        let part = 5_005.0 / 5_250.0;
        assert!((of(1.0, &many) - 250.0 * part).abs() < 1e-9, "fifty runs of 5 ms, most of them here");
    }
}

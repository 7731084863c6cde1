//! When the inputs of a task can all be in one container.
//!
//! The container runs the maker of an input on one of its lanes, or it fetches that input over its link
//! after the maker has ended elsewhere. Lanes and link work at the same time, the link brings one thing at a
//! time. The least over the choices of makers that run in the container holds: none, one (each of them), or
//! several, which share the lanes. Where there are too many makers to go through, a split of every input by
//! fractions must do.

/// Makers for which the choices are gone through.
const MAKERS_MAX: usize = 32;

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
    /// When a fetch may begin.
    pub fetch_from_ms: f64,
    pub download_ms: f64,
}

impl Supply {
    /// From outside the workflow, which may be fetched from a moment on.
    pub fn external(from_ms: f64, download_ms: f64) -> Self {
        let (maker, run_ms) = (None, f64::INFINITY);
        Self { maker, begin_ms: from_ms, end_ms: from_ms, run_ms, fetch_from_ms: from_ms, download_ms }
    }
}

/// The inputs of one task.
#[derive(Debug)]
pub(super) struct Inflow {
    lanes: f64,
    supplies: Vec<Supply>,
}

impl Inflow {
    pub fn new(lanes: f64) -> Self {
        Self { lanes, supplies: Vec::new() }
    }

    pub fn clear(&mut self) {
        self.supplies.clear();
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
            return self.split_ms();
        }
        let split_ms = self.split_ms();
        self.supplies.sort_by(|a, b| b.fetch_from_ms.total_cmp(&a.fetch_from_ms));
        let makers = (0..self.supplies.len()).filter(|&i| self.supplies[i].maker.is_some());
        let with_one = makers.map(|i| self.fetched_ms(Some(i))).fold(f64::INFINITY, f64::min);
        self.fetched_ms(None).min(with_one).min(self.several_ms()).max(split_ms)
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

    /// At least two makers run here, so that the lanes take at least the two shortest.
    fn several_ms(&self) -> f64 {
        let mut first_ms = f64::INFINITY;
        let mut least_ms = [f64::INFINITY; 2];
        for supply in self.supplies.iter().filter(|s| s.maker.is_some()) {
            first_ms = first_ms.min(supply.begin_ms);
            if supply.run_ms < least_ms[0] {
                least_ms = [supply.run_ms, least_ms[0]];
            } else {
                least_ms[1] = least_ms[1].min(supply.run_ms);
            }
        }
        first_ms + (least_ms[0] + least_ms[1]) / self.lanes
    }

    /// After every moment: the best split of what begins later over lanes and link, by fractions.
    fn split_ms(&mut self) -> f64 {
        // From the latest on: those that begin no earlier than a moment take their time after it. The split
        // is no better than giving every input to whichever is faster, which both do at the same time.
        self.supplies.sort_by(|a, b| b.begin_ms.total_cmp(&a.begin_ms));
        let (mut there_ms, mut faster_ms) = (0.0_f64, 0.0);
        let mut external_ms = 0.0;
        for supply in &self.supplies {
            faster_ms += 0.5 * (supply.run_ms / self.lanes).min(supply.download_ms);
            if !supply.run_ms.is_finite() {
                external_ms += supply.download_ms;
            }
            there_ms = there_ms.max(supply.begin_ms + faster_ms.max(external_ms));
        }
        there_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(maker: u32, (begin_ms, end_ms, download_ms): (f64, f64, f64)) -> Supply {
        let run_ms = end_ms - begin_ms;
        Supply { maker: Some(maker), begin_ms, end_ms, run_ms, fetch_from_ms: end_ms, download_ms }
    }

    fn of(lanes: f64, supplies: &[Supply]) -> f64 {
        let mut inflow = Inflow::new(lanes);
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
        assert!((there_ms(1.0, &many) - 800.0).abs() < 1e-9, "half are made, half are fetched");
    }

    #[test]
    fn what_comes_from_outside_is_fetched_one_after_another() {
        assert!((of(1.0, &[Supply::external(100.0, 7.0); 40]) - 380.0).abs() < 1e-9);
    }

    #[test]
    fn a_maker_that_is_met_again_is_paid_for_once() {
        let twice = |makers: u32| (0..2 * makers).map(move |m| made(m % makers, (0.0, 5.0, 50.0)));
        let (few, many): (Vec<Supply>, Vec<Supply>) = (twice(2).collect(), twice(50).collect());
        assert!((of(1.0, &few) - 10.0).abs() < 1e-9, "both run here, one after the other");
        assert!((of(1.0, &many) - 125.0).abs() < 1e-9, "fifty runs of 5 ms, by half");
    }
}

//! When the inputs of a task can all be in one container that has one lane.
//!
//! Such a container does one thing at a time: it runs the maker of an input, or it fetches that input, for
//! this task or for one before it, after the maker has ended elsewhere. So after any moment there is at
//! least the time of all fetches of inputs whose makers end later, and the rest of the run of a maker that
//! ends later. The least over the choices of makers that run in the container holds: none, one (each of
//! them), or several, whose runs stand one after another.

/// Makers for which the choices are gone through; with more the other bounds must do.
const MAKERS_MAX: usize = 32;

/// All inputs of one maker, or all from outside.
#[derive(Debug, Clone, Copy)]
struct Supply {
    maker: Option<u32>,
    /// Earliest start and end of the maker, or when the first worker is up.
    start_ms: f64,
    end_ms: f64,
    /// Time of the maker on a lane, without what it has to fetch; infinite from outside.
    run_ms: f64,
    download_ms: f64,
}

/// The inputs of one task.
#[derive(Debug, Default)]
pub(super) struct Lane {
    supplies: Vec<Supply>,
}

impl Lane {
    pub fn clear(&mut self) {
        self.supplies.clear();
    }

    fn find(&mut self, maker: Option<u32>) -> Option<&mut Supply> {
        self.supplies.iter_mut().find(|s| s.maker == maker)
    }

    /// An input of `maker`, with its earliest start and end and its time on a lane, or from outside.
    pub fn add(&mut self, maker: Option<u32>, (start_ms, end_ms, run_ms): (f64, f64, f64), download_ms: f64) {
        if self.supplies.len() > MAKERS_MAX {
            return;
        }
        match self.find(maker) {
            Some(same) => same.download_ms += download_ms,
            None => self.supplies.push(Supply { maker, start_ms, end_ms, run_ms, download_ms }),
        }
    }

    /// When all can be there.
    pub fn there_ms(&mut self) -> f64 {
        if self.supplies.is_empty() || self.supplies.len() > MAKERS_MAX {
            return 0.0;
        }
        self.supplies.sort_by(|a, b| b.end_ms.total_cmp(&a.end_ms));
        let makers = (0..self.supplies.len()).filter(|&i| self.supplies[i].maker.is_some());
        let with_one = makers.map(|i| self.fetched_ms(Some(i))).fold(f64::INFINITY, f64::min);
        let latest_ms = self.supplies[0].end_ms;
        self.fetched_ms(None).min(with_one).min(self.several_ms()).max(latest_ms)
    }

    /// All are fetched but those of one maker, which runs here.
    fn fetched_ms(&self, here: Option<usize>) -> f64 {
        let own = here.map(|i| self.supplies[i]);
        // The latest first: after the end of each there are its own fetch and all before it in this order.
        let mut fetches_ms = 0.0;
        let mut there_ms = own.map_or(0.0, |s| s.end_ms);
        for (at, supply) in self.supplies.iter().enumerate() {
            if Some(at) == here {
                continue;
            }
            fetches_ms += supply.download_ms;
            let rest_ms = own.map_or(0.0, |s| (s.end_ms - supply.end_ms).clamp(0.0, s.run_ms));
            there_ms = there_ms.max(supply.end_ms + rest_ms + fetches_ms);
        }
        there_ms
    }

    /// At least two makers run here: each input costs the cheaper of both ways, two of them that of making.
    fn several_ms(&self) -> f64 {
        let (mut first_ms, mut sum_ms) = (f64::INFINITY, 0.0);
        let mut more_ms = [f64::INFINITY; 2];
        for supply in &self.supplies {
            first_ms = first_ms.min(supply.start_ms);
            sum_ms += supply.run_ms.min(supply.download_ms);
            let more = (supply.run_ms - supply.download_ms).max(0.0);
            if more < more_ms[0] {
                more_ms = [more, more_ms[0]];
            } else {
                more_ms[1] = more_ms[1].min(more);
            }
        }
        first_ms + sum_ms + more_ms[0] + more_ms[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_ms(supplies: &[(f64, f64, f64)]) -> f64 {
        let mut lane = Lane::default();
        for (maker, &(start_ms, end_ms, download_ms)) in supplies.iter().enumerate() {
            lane.add(Some(maker as u32), (start_ms, end_ms, end_ms - start_ms), download_ms);
        }
        lane.there_ms()
    }

    #[test]
    fn one_of_two_long_makers_runs_here_and_the_other_is_fetched() {
        assert!((there_ms(&[(0.0, 100.0, 10.0), (0.0, 90.0, 7.0)]) - 107.0).abs() < 1e-9);
        // The earlier one could be fetched before the later one begins.
        assert!((there_ms(&[(60.0, 100.0, 10.0), (0.0, 30.0, 7.0)]) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn short_makers_run_one_after_another() {
        assert!((there_ms(&[(0.0, 5.0, 50.0), (0.0, 5.0, 50.0), (0.0, 5.0, 50.0)]) - 15.0).abs() < 1e-9);
    }
}

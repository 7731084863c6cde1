//! What is told on stderr while something happens: a redrawn line on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use foresail_schemas::plan::PlanSummary;
use foresail_schemas::run::Replanning;

use super::args::Color;
use crate::progress::Progress;
use crate::replan::Kept;
use crate::units;

/// Characters of the bar.
const BAR_LEN: usize = 20;
/// Shortest time between two plain lines.
const PLAIN_PAUSE: Duration = Duration::from_secs(2);

/// Looks for a better plan that are told though they changed nothing.
const KEPT_TOLD_MAX: u64 = 5;

/// How stderr is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    live: bool,
}

impl Terminal {
    /// As the options and the environment have it.
    #[must_use]
    pub fn new(color: Color) -> Self {
        let wanted = color == Color::Auto && std::env::var_os("NO_COLOR").is_none();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { live: wanted && !dumb && std::io::stderr().is_terminal() }
    }

    /// A line of text.
    pub fn say(&self, text: &str) {
        eprintln!("{text}");
    }

    /// A line that is followed by details.
    pub fn title(&self, text: &str) {
        match self.live {
            true => eprintln!("\x1b[1m{text}\x1b[0m"),
            false => eprintln!("{text}"),
        }
    }

    /// What went wrong, and what to do next.
    pub fn error(&self, text: &str, hint: &str) {
        let (red, cyan, off) = if self.live { ("\x1b[1;31m", "\x1b[36m", "\x1b[0m") } else { ("", "", "") };
        eprintln!("{red}error:{off} {text}");
        if !hint.is_empty() {
            eprintln!("{cyan}hint:{off} {hint}");
        }
    }

    /// Follows something that is counted up to about `total`.
    #[must_use]
    pub fn counter(&self, what: &'static str, total: u64) -> CounterLine {
        CounterLine { live: self.live, what, total, last: Instant::now() }
    }

    /// Follows something of which only the time it takes is known.
    #[must_use]
    pub fn elapsed(&self) -> ElapsedLine {
        ElapsedLine { live: self.live, told: 0 }
    }

    /// Follows one run; `accept` says how a suggested plan is put in force.
    #[must_use]
    pub fn progress(&self, accept: String, predicted: PlanSummary) -> ProgressLine {
        let (last, has_suggested, replanned, kept) = (None, false, 0, 0);
        ProgressLine { live: self.live, accept, predicted, last, has_suggested, replanned, kept }
    }
}

/// What a new plan brings, and why it was looked for and taken.
fn in_words(Replanning { cause, reason, kept, new, .. }: &Replanning) -> String {
    let time = format!("{} instead of {}", units::ms(new.makespan_ms), units::ms(kept.makespan_ms));
    let money = format!("{} instead of {}", units::usd(new.cost_usd), units::usd(kept.cost_usd));
    format!("{time}, {money}\n  {cause}; {reason}")
}

/// The line that follows one run.
#[derive(Debug)]
pub struct ProgressLine {
    live: bool,
    accept: String,
    predicted: PlanSummary,
    last: Option<(Instant, u64)>,
    /// Whether it was told that there is a plan that can be accepted.
    has_suggested: bool,
    /// New plans that were told.
    replanned: u64,
    /// Looks that changed nothing and were told.
    kept: u64,
}

impl ProgressLine {
    /// Shows how far the run is; on a terminal as often as it is called, elsewhere now and then.
    pub fn show(&mut self, progress: &Progress, actual: &PlanSummary) {
        let text = line(progress, actual, &self.predicted);
        if let Some(news) = self.news(progress) {
            self.end();
            eprintln!("{news}");
        }
        if self.live {
            eprint!("\r\x1b[2K{text}");
            let _ = std::io::stderr().flush();
            return;
        }
        let due =
            self.last.is_none_or(|(at, done)| at.elapsed() >= PLAIN_PAUSE && done != progress.settled());
        if due {
            eprintln!("{text}");
            self.last = Some((Instant::now(), progress.settled()));
        }
    }

    /// Tells of a look for a better plan that changed nothing; of many, the first [`KEPT_TOLD_MAX`].
    pub fn kept(&mut self, kept: &Kept) {
        if let Some(news) = self.stays(kept) {
            self.end();
            eprintln!("{news}");
        }
    }

    fn stays(&mut self, kept: &Kept) -> Option<String> {
        let before = std::mem::replace(&mut self.kept, kept.looks);
        let why = kept.last.as_ref().filter(|_| before < kept.looks && before < KEPT_TOLD_MAX)?;
        Some(format!("looked for a better plan, and this one stays: {}; {}", why.cause, why.reason))
    }

    /// A plan that was put in force, once, and one that is suggested with how to accept it, once per plan in
    /// force: what it brings and why.
    fn news(&mut self, progress: &Progress) -> Option<String> {
        let before = std::mem::replace(&mut self.replanned, progress.replanned);
        let replaced = progress.replacement.as_ref().filter(|_| before < progress.replanned);
        if let Some(why) = replaced {
            self.has_suggested = false;
            return Some(format!("plan {} is in force: {}", progress.replanned + 1, in_words(why)));
        }
        let Some(why) = &progress.suggestion else {
            self.has_suggested = false;
            return None;
        };
        if std::mem::replace(&mut self.has_suggested, true) {
            return None;
        }
        Some(format!("a better plan is suggested: {}\nhint: {}", in_words(why), self.accept))
    }

    /// Leaves the terminal as it was.
    pub fn end(&mut self) {
        if self.live {
            eprint!("\r\x1b[2K");
            let _ = std::io::stderr().flush();
        }
    }
}

/// The line that follows something that is counted.
#[derive(Debug)]
pub struct CounterLine {
    live: bool,
    what: &'static str,
    total: u64,
    last: Instant,
}

impl CounterLine {
    /// Shows the count; on a terminal as often as it is called, elsewhere now and then.
    pub fn show(&mut self, count: u64) {
        let text = format!("{count} of about {} {}", self.total.max(count), self.what);
        if self.live {
            eprint!("\r\x1b[2K{text}");
            let _ = std::io::stderr().flush();
        } else if self.last.elapsed() >= PLAIN_PAUSE {
            eprintln!("{text}");
            self.last = Instant::now();
        }
    }

    /// Leaves the terminal as it was.
    pub fn end(&mut self) {
        if self.live {
            eprint!("\r\x1b[2K");
            let _ = std::io::stderr().flush();
        }
    }
}

/// The line that follows something by the time it takes.
#[derive(Debug)]
pub struct ElapsedLine {
    live: bool,
    told: u32,
}

impl ElapsedLine {
    /// Shows the time; on a terminal as often as it is called, elsewhere after 2, 4, 8, … seconds.
    pub fn show(&mut self, what: &str, elapsed: Duration) {
        let text = format!("{what}: {} s", elapsed.as_secs());
        if self.live {
            eprint!("\r\x1b[2K{text}");
            let _ = std::io::stderr().flush();
        } else if elapsed >= PLAIN_PAUSE * 2_u32.saturating_pow(self.told) {
            eprintln!("{text}");
            self.told += 1;
        }
    }

    /// Leaves the terminal as it was.
    pub fn end(&mut self) {
        if self.live {
            eprint!("\r\x1b[2K");
            let _ = std::io::stderr().flush();
        }
    }
}

fn line(progress: &Progress, actual: &PlanSummary, predicted: &PlanSummary) -> String {
    let tasks = progress.tasks.max(1);
    let filled = (progress.settled() * BAR_LEN as u64 / tasks) as usize;
    let bar = format!("{}{}", "#".repeat(filled), ".".repeat(BAR_LEN - filled.min(BAR_LEN)));
    let failed = match progress.failed_attempts {
        0 => String::new(),
        n => format!(", {n} attempts failed"),
    };
    let skipped = match progress.skipped {
        0 => String::new(),
        n => format!(" ({n} skipped)"),
    };
    let replanned = match progress.replanned {
        0 => String::new(),
        n => format!(", plan {} in force", n + 1),
    };
    let suggested = if progress.suggestion.is_some() { ", a better plan is suggested" } else { "" };
    format!(
        "[{bar}] {}/{} tasks{skipped}, {} running on {} workers{failed}{replanned}{suggested}  {} of {} \
         predicted  {} of {}",
        progress.settled(),
        progress.tasks,
        progress.running(),
        progress.workers(),
        units::ms(actual.makespan_ms),
        units::ms(predicted.makespan_ms),
        units::usd(actual.cost_usd),
        units::usd(predicted.cost_usd),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_tasks_workers_time_and_money_against_the_prediction() {
        let mut progress = Progress::new(8);
        progress.committed = 2;
        let actual = PlanSummary { makespan_ms: 1_500.0, cost_usd: 0.000_01, ..PlanSummary::default() };
        let predicted = PlanSummary { makespan_ms: 4_000.0, cost_usd: 0.000_05, ..PlanSummary::default() };
        assert_eq!(
            line(&progress, &actual, &predicted),
            "[#####...............] 2/8 tasks, 0 running on 0 workers  1.50 s of 4.00 s predicted  \
             $0.000010 of $0.000050"
        );
        progress.skipped = 2;
        let told = line(&progress, &actual, &predicted);
        assert!(told.starts_with("[##########..........] 4/8 tasks (2 skipped), 0 running"), "{told}");
    }
    #[test]
    fn a_suggested_plan_is_told_once_with_how_to_accept_it_and_again_after_another_took_its_place() {
        use super::super::replan::accept_hint;
        use foresail_schemas::run::{Change, Promise, RunEvent};

        let terminal = Terminal { live: false };
        let accept = accept_hint(&"r-1".parse().unwrap(), Some("http://127.0.0.1:7070"));
        let mut shown = terminal.progress(accept, PlanSummary::default());
        let mut progress = Progress::new(8);
        let promise = |makespan_ms| Promise { makespan_ms, cost_usd: 0.02 };
        let why = Box::new(Replanning {
            cause: "2 workers were lost".to_owned(),
            kept: promise(9_000.0),
            new: promise(5_000.0),
            moved: 3,
            reason: "a new plan saves 44.4 % of the time that is left".to_owned(),
        });
        let mut tell = |progress: &mut Progress, change| {
            let seq = progress.last_event + 1;
            progress.apply(&RunEvent { seq, at_ms: 1.0, change });
            (shown.news(progress), line(progress, &PlanSummary::default(), &PlanSummary::default()))
        };
        let suggested = |epoch| Change::PlanSuggested { epoch, why: why.clone() };
        let replaced = Change::PlanReplaced { epoch: 2, why: None };
        let (news, told) = tell(&mut progress, suggested(1));
        assert_eq!(
            news.unwrap(),
            "a better plan is suggested: 5.00 s instead of 9.00 s, $0.0200 instead of $0.0200\n  2 workers \
             were lost; a new plan saves 44.4 % of the time that is left\nhint: `foresail replan r-1 \
             --accept --metad http://127.0.0.1:7070` puts the suggested plan in force"
        );
        assert!(told.contains(", a better plan is suggested  "), "{told}");
        assert_eq!(tell(&mut progress, suggested(1)).0, None);
        let (news, told) = tell(&mut progress, replaced);
        assert_eq!(news, None);
        assert!(told.contains(", plan 2 in force  "), "{told}");
        assert!(tell(&mut progress, suggested(2)).0.is_some());
        let accepted = Change::PlanReplaced { epoch: 3, why: Some(why.clone()) };
        let (news, _) = tell(&mut progress, accepted);
        assert_eq!(
            news.unwrap(),
            "plan 3 is in force: 5.00 s instead of 9.00 s, $0.0200 instead of $0.0200\n  2 workers were \
             lost; a new plan saves 44.4 % of the time that is left"
        );
        let ready = Change::TaskReady { task: 1 };
        assert_eq!(tell(&mut progress, ready).0, None);
    }
    #[test]
    fn a_look_that_changed_nothing_is_told_once_and_of_many_the_first() {
        let terminal = Terminal { live: false };
        let mut shown = terminal.progress(String::new(), PlanSummary::default());
        assert_eq!(shown.stays(&Kept::default()), None);
        let promise = foresail_schemas::run::Promise { makespan_ms: 1.0, cost_usd: 1.0 };
        let why = Replanning {
            cause: "a worker was lost".to_owned(),
            kept: promise,
            new: promise,
            moved: 0,
            reason: "the run goes as its plan promised".to_owned(),
        };
        let kept = |looks| Kept { looks, last: Some(why.clone()) };
        assert_eq!(
            shown.stays(&kept(1)).unwrap(),
            "looked for a better plan, and this one stays: a worker was lost; the run goes as its plan \
             promised"
        );
        assert_eq!(shown.stays(&kept(1)), None);
        let told = (2..20).filter(|&looks| shown.stays(&kept(looks)).is_some()).count() as u64;
        assert_eq!(told, KEPT_TOLD_MAX - 1);
    }
}

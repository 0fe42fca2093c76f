//! How far the replay is: a bar in a terminal, a line a second in a pipe.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::ByStatus;
use crate::commands::say;

const EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Progress {
    total: u64,
    bar: Option<ProgressBar>,
    next_line: Mutex<Instant>,
}

impl Progress {
    pub(crate) fn new(total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            let style = "{bar:30} {pos}/{len} decided  {msg}";
            bar.set_style(
                ProgressStyle::with_template(style)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        Self {
            total,
            bar,
            next_line: Mutex::new(Instant::now() + EVERY),
        }
    }

    pub(crate) fn decided(&self, decided: ByStatus) {
        let message = format!(
            "{} approved, {} review, {} blocked",
            decided.approved, decided.review, decided.blocked
        );
        if let Some(bar) = &self.bar {
            bar.set_position(decided.total());
            bar.set_message(message);
            return;
        }
        let Ok(mut next_line) = self.next_line.lock() else {
            return;
        };
        if Instant::now() >= *next_line {
            *next_line = Instant::now() + EVERY;
            // If the reader has ended, the summary fails.
            let _ = say(format_args!(
                "{}/{} decided: {message}\n",
                decided.total(),
                self.total
            ));
        }
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

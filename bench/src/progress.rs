//! Progress: a bar on a terminal, otherwise a line for each step.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// One bar over all steps.
pub struct Progress(ProgressBar);

impl Progress {
    pub fn new() -> Self {
        let bar = ProgressBar::new(0);
        let template = "{elapsed_precise} {wide_bar} {pos}/{len}\n{msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Adds steps.
    pub fn expect(&self, steps: u64) {
        self.0.inc_length(steps);
    }

    /// Begins the next step.
    pub fn step(&self, what: &str) {
        if std::io::stderr().is_terminal() {
            self.0.set_message(what.to_owned());
        } else {
            eprintln!("{:>6.1} s  {what}", self.0.elapsed().as_secs_f64());
        }
        self.0.inc(1);
    }

    /// Prints a result, above the bar.
    pub fn say(&self, what: &str) {
        if std::io::stderr().is_terminal() {
            self.0.println(what);
        } else {
            eprintln!("          {what}");
        }
    }

    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

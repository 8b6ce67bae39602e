//! What is printed: a scene for each demonstration, with its steps and its checks.

use std::env;
use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::client::Reply;

/// The columns of a step's name and of a fact's.
const NAME_WIDTH: usize = 26;

/// Where the report is printed. Write errors are ignored, because the exit status has the result anyway.
pub(super) struct Page {
    output: Box<dyn Write + Send>,
    colours: bool,
    scenes: usize,
}

/// How a text looks on a terminal (ECMA-48, SGR).
#[derive(Clone, Copy)]
pub(super) enum Look {
    Plain,
    Bold,
    Dim,
    Good,
    Bad,
}

impl Page {
    /// Standard output: with colours on a terminal, unless `NO_COLOR` is set (no-color.org).
    pub(super) fn stdout() -> Self {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        Self {
            output: Box::new(io::stdout()),
            colours: io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb,
            scenes: 0,
        }
    }

    /// Begins a demonstration.
    pub(super) fn open(&mut self, title: &'static str) -> Scene<'_> {
        self.scenes += 1;
        let number = self.scenes;
        if number > 1 {
            self.line(Look::Plain, "");
        }
        self.line(Look::Bold, format_args!("{number}. {title}"));
        Scene {
            page: self,
            number,
            title,
            started: Instant::now(),
            checks: 0,
            failed: 0,
        }
    }

    pub(super) fn line(&mut self, look: Look, text: impl Display) {
        let code = match look {
            _ if !self.colours => None,
            Look::Plain => None,
            Look::Bold => Some(1),
            Look::Dim => Some(2),
            Look::Good => Some(32),
            Look::Bad => Some(31),
        };
        drop(match code {
            Some(code) => writeln!(self.output, "\x1b[{code}m{text}\x1b[0m"),
            None => writeln!(self.output, "{text}"),
        });
    }
}

/// One demonstration, as it is printed.
pub(super) struct Scene<'a> {
    page: &'a mut Page,
    number: usize,
    title: &'static str,
    started: Instant,
    checks: usize,
    failed: usize,
}

/// How a demonstration ended.
pub(super) struct Verdict {
    pub(super) number: usize,
    pub(super) title: &'static str,
    pub(super) checks: usize,
    pub(super) failed: usize,
    pub(super) took: Duration,
}

impl Scene<'_> {
    /// What is shown, in a sentence.
    pub(super) fn story(&mut self, text: &str) {
        self.page.line(Look::Dim, format_args!("   {text}"));
    }

    /// A request and its reply.
    pub(super) fn step(&mut self, name: &str, reply: &Reply) {
        let replayed = reply.replayed.as_deref().unwrap_or("-");
        let text = format_args!(
            "   {name:NAME_WIDTH$} {}  replayed {replayed:5} {:>9}  body {}",
            reply.status,
            Milliseconds(reply.took),
            reply.digest(),
        );
        self.page.line(Look::Plain, text);
    }

    /// A fact that was observed.
    pub(super) fn fact(&mut self, name: &str, value: impl Display) {
        let text = format_args!("   {name:NAME_WIDTH$} {value}");
        self.page.line(Look::Plain, text);
    }

    /// Checks that the observed value equals the expected one. Both are compared in their printed form.
    pub(super) fn equal(&mut self, what: &str, seen: impl Display, expected: impl Display) {
        let (seen, expected) = (seen.to_string(), expected.to_string());
        if seen == expected {
            self.check(&format!("{what}: {seen}"), true, String::new);
        } else {
            self.check(what, false, || format!("expected {expected}, saw {seen}"));
        }
    }

    /// Checks a condition. If it does not hold, `explain` describes what was expected and what was observed.
    pub(super) fn check(&mut self, what: &str, holds: bool, explain: impl FnOnce() -> String) {
        self.checks += 1;
        if holds {
            self.page.line(Look::Good, format_args!("   ✓ {what}"));
        } else {
            self.failed += 1;
            let text = format_args!("   ✗ {what}: {}", explain());
            self.page.line(Look::Bad, text);
        }
    }

    /// The demonstration could not be completed.
    pub(super) fn broke(&mut self, error: &anyhow::Error) {
        self.checks += 1;
        self.failed += 1;
        let text = format!("{error:#}").replace('\n', "\n     ");
        self.page.line(Look::Bad, format_args!("   ✗ {text}"));
    }

    /// Lines of another program's output.
    pub(super) fn quote(&mut self, whose: &str, lines: &[String]) {
        self.page.line(Look::Dim, format_args!("   {whose}:"));
        for line in lines {
            self.page.line(Look::Dim, format_args!("     {line}"));
        }
    }

    /// Returns true if nothing has failed so far.
    pub(super) fn holds(&self) -> bool {
        self.failed == 0
    }

    /// Ends it.
    pub(super) fn close(self) -> Verdict {
        Verdict {
            number: self.number,
            title: self.title,
            checks: self.checks,
            failed: self.failed,
            took: self.started.elapsed(),
        }
    }
}

/// A time for people.
pub(super) struct Milliseconds(pub(super) Duration);

impl Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.1} ms", self.0.as_secs_f64() * 1e3))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    pub(in crate::demo) struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Paper {
        pub(in crate::demo) fn page(&self, colours: bool) -> Page {
            Page {
                output: Box::new(self.clone()),
                colours,
                scenes: 0,
            }
        }

        pub(in crate::demo) fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("a lock").clone()).expect("a text")
        }
    }

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("a lock").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_failed_check_says_what_was_expected_and_what_was_seen() {
        let paper = Paper::default();
        let mut page = paper.page(false);
        let mut scene = page.open("Title");
        scene.equal("status", 201, 201);
        assert!(scene.holds());
        scene.equal("attempts", "2", 1);
        scene.broke(&anyhow::anyhow!("refused").context("no reply"));
        let verdict = scene.close();
        assert_eq!((verdict.checks, verdict.failed), (3, 2));
        assert_eq!(
            paper.text(),
            "1. Title\n   ✓ status: 201\n   ✗ attempts: expected 1, saw 2\n   ✗ no reply: refused\n"
        );
    }

    #[test]
    fn colours_are_for_terminals() {
        let paper = Paper::default();
        paper.page(true).line(Look::Bad, "x");
        paper.page(false).line(Look::Bad, "x");
        assert_eq!(paper.text(), "\x1b[31mx\x1b[0m\nx\n");
    }
}

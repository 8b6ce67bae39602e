//! A finding is the result of one check: what was found, what it means, and what to do about it.

use serde::Serialize;

/// What a finding means for the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum Verdict {
    /// Everything is fine.
    Ok,
    /// The service works, but an operator should know.
    Warning,
    /// The service does not start, does not work, or does not keep its guarantees.
    Problem,
}

impl Verdict {
    /// One lower-case word.
    pub fn as_str(self) -> &'static str {
        self.into_str()
    }
}

/// The result of one check. Its texts never contain a password, a key or a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's name, which never changes.
    pub name: &'static str,
    /// What it means.
    #[serde(rename = "result")]
    pub verdict: Verdict,
    /// What was found, for people.
    pub found: String,
    /// What to do about it, if anything.
    pub advice: Option<String>,
}

impl Finding {
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            found: found.into(),
            advice: None,
        }
    }

    pub(super) fn warning(
        name: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            name,
            verdict: Verdict::Warning,
            found: found.into(),
            advice: Some(advice.into()),
        }
    }

    pub(super) fn problem(
        name: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Problem,
            ..Self::warning(name, found, advice)
        }
    }

    /// The finding, or that the database kept the check from running.
    pub(super) fn or_unseen(name: &'static str, seen: sqlx::Result<Self>) -> Self {
        seen.unwrap_or_else(|error| {
            let why = match error.as_database_error() {
                // sqlx's own message also names the line of PostgreSQL's source code.
                Some(error) => error.message().to_owned(),
                None => chain(&error),
            };
            Self::problem(
                name,
                format!("it is not known: {why}"),
                "fix this first, and run the doctor again",
            )
        })
    }
}

/// All findings, in the order of the checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    ok: usize,
    warnings: usize,
    problems: usize,
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(findings: Vec<Finding>) -> Self {
        let count = |verdict| {
            findings
                .iter()
                .filter(|finding| finding.verdict == verdict)
                .count()
        };
        Self {
            ok: count(Verdict::Ok),
            warnings: count(Verdict::Warning),
            problems: count(Verdict::Problem),
            findings,
        }
    }

    /// What was found.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many findings are ok, warnings and problems.
    pub fn counts(&self) -> [usize; 3] {
        [self.ok, self.warnings, self.problems]
    }

    /// Returns true if no finding is a problem. There may be warnings.
    pub fn is_healthy(&self) -> bool {
        self.problems == 0
    }
}

/// An error with its causes, on one line. A cause that an error's own message contains is not repeated.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| {
        let cause = cause.to_string();
        if line.ends_with(&cause) {
            line
        } else {
            format!("{line}: {cause}")
        }
    })
}

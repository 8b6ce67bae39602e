//! A request's query parameters. Like a body, they are parsed by hand: every mistake is reported with the name of its parameter, and
//! an unknown parameter is a mistake. If it were ignored, a misspelt filter would list everything.

use actix_web::HttpRequest;

use crate::input::{FieldError, InputError, shown_name};
use crate::problem::Problem;

/// Maximum number of unknown parameters that an answer names, so that it stays small whatever was sent.
const MAX_UNKNOWN_NAMED: usize = 20;

/// The parameters that were not taken yet, and the mistakes so far.
pub(super) struct Parameters {
    left: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl Parameters {
    /// Decodes the parameters of a request (`application/x-www-form-urlencoded`).
    pub(super) fn of(request: &HttpRequest) -> Self {
        Self {
            left: form_urlencoded::parse(request.query_string().as_bytes())
                .into_owned()
                .collect(),
            errors: Vec::new(),
        }
    }

    /// Takes a parameter that may be absent. It is a mistake to give it more than once.
    pub(super) fn take(&mut self, name: &'static str) -> Option<String> {
        let mut taken = self.left.extract_if(.., |(given, _)| given == name);
        let (_, value) = taken.next()?;
        let is_given_twice = taken.count() > 0;
        if is_given_twice {
            self.reject(name, "is given more than once");
        }
        (!is_given_twice).then_some(value)
    }

    /// Records a mistake in a parameter.
    pub(super) fn reject(&mut self, name: &str, message: impl Into<String>) {
        self.errors.push(FieldError {
            field: name.to_owned(),
            message: message.into(),
        });
    }

    /// Reports the parameters that were not taken as unknown.
    ///
    /// # Errors
    ///
    /// `validation-failed`, with all mistakes.
    pub(super) fn finish(mut self) -> Result<(), Problem> {
        let unknown = std::mem::take(&mut self.left);
        for (name, _) in unknown.iter().take(MAX_UNKNOWN_NAMED) {
            self.reject(&shown_name(name), "is not a known parameter");
        }
        if unknown.len() > MAX_UNKNOWN_NAMED {
            let more = unknown.len() - MAX_UNKNOWN_NAMED;
            self.reject("…", format!("and {more} more are not known parameters"));
        }
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(InputError::Invalid(self.errors).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn read(query: &str) -> (Option<String>, Vec<String>) {
        let request = TestRequest::with_uri(&format!("/?{query}")).to_http_request();
        let mut parameters = Parameters::of(&request);
        let state = parameters.take("state");
        let Err(problem) = parameters.finish() else {
            return (state, Vec::new());
        };
        let body: serde_json::Value = serde_json::from_slice(&problem.body()).expect("JSON");
        let errors = body["errors"].as_array().expect("errors").iter();
        let error = |error: &serde_json::Value| {
            let text = |name: &str| error[name].as_str().expect("a text").to_owned();
            format!("{} {}", text("field"), text("message"))
        };
        (state, errors.map(error).collect())
    }

    #[test]
    fn each_mistake_is_named() {
        let some = |state: &str| Some(state.to_owned());
        for (query, state, errors) in [
            ("", None, vec![]),
            ("state=a%20b", some("a b"), vec![]),
            ("state=", some(""), vec![]),
            (
                "state=a&state=a",
                None,
                vec!["state is given more than once"],
            ),
            ("State=a", None, vec!["State is not a known parameter"]),
            (
                "x&state=a&x=1",
                some("a"),
                vec!["x is not a known parameter", "x is not a known parameter"],
            ),
            (
                "4242424242424242=1",
                None,
                vec!["**************** is not a known parameter"],
            ),
        ] {
            assert_eq!(
                read(query),
                (state, errors.into_iter().map(str::to_owned).collect()),
                "{query}"
            );
        }
        let many: Vec<String> = (0..30).map(|n| format!("x{n}")).collect();
        let (_, errors) = read(&many.join("&"));
        assert_eq!(errors.len(), 21);
        assert_eq!(errors[20], "… and 10 more are not known parameters");
    }
}

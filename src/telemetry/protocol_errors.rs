//! Hides log lines about connections that do not speak HTTP.
//!
//! actix-http answers them 400 and logs an error for each, with neither the peer nor a request id: thousands during a port scan,
//! and none of them is a fault of the service. It offers no hook for them, so the lines are recognized by their text.

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Filter};

/// The target and the beginning of actix-http's line.
const TARGET: &str = "actix_http::h1::dispatcher";
const BEGINNING: &str = "stream error: ";

/// The next words if the fault is the service's own.
const OWN_FAULT: &str = "Internal error";

/// Lets every line through except those about connections that do not speak HTTP.
pub(super) struct HideProtocolErrors {
    is_active: bool,
}

impl HideProtocolErrors {
    /// They are shown if debug lines are.
    pub(super) fn unless_debugging(filter: &Targets) -> Self {
        let shown = Filter::<Registry>::max_level_hint(filter);
        Self {
            is_active: shown.is_none_or(|shown| shown < LevelFilter::DEBUG),
        }
    }
}

impl<S: Subscriber> Filter<S> for HideProtocolErrors {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        if !self.is_active || event.metadata().target() != TARGET {
            return true;
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        let cause = message.0.strip_prefix(BEGINNING);
        cause.is_none_or(|cause| cause.starts_with(OWN_FAULT))
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

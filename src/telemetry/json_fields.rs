//! Formats a span's fields as JSON, and appends fields that are recorded later.
//!
//! For each field that is recorded after the span was made, tracing-subscriber parses the whole object and writes it again; a
//! request's span has two such fields. This module appends them instead.

use std::fmt;

use tracing::span::Record;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormattedFields;
use tracing_subscriber::fmt::format::{FormatFields, JsonFields, Writer};

/// Appends later fields. A field that is recorded twice appears twice, and JSON parsers take the last one.
#[derive(Debug, Default)]
pub struct AppendedFields(JsonFields);

impl<'writer> FormatFields<'writer> for AppendedFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        self.0.format_fields(writer, fields)
    }

    fn add_fields(
        &self,
        current: &'writer mut FormattedFields<Self>,
        fields: &Record<'_>,
    ) -> fmt::Result {
        let mut added = String::new();
        self.0.format_fields(Writer::new(&mut added), fields)?;
        let old = current.fields.trim_end();
        let (Some(open), Some(new)) = (old.strip_suffix('}'), added.strip_prefix('{')) else {
            current.fields = added;
            return Ok(());
        };
        let separator = match open.ends_with('{') || new.starts_with('}') {
            true => "",
            false => ",",
        };
        let length = open.len();
        current.fields.truncate(length);
        current.fields.push_str(separator);
        current.fields.push_str(new);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tracing::field::Empty;
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::{fmt, registry};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("a lock").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Written {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn what_is_recorded_later_stands_beside_what_was_there() {
        let written = Written::default();
        let lines = fmt::layer().json().fmt_fields(AppendedFields::default());
        let subscriber = registry().with(lines.with_writer(written.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let full = tracing::info_span!("full", id = "7", merchant = Empty, result = Empty);
            full.record("merchant", "a\"},{b");
            full.record("result", 2);
            full.record("result", 3);
            full.in_scope(|| tracing::info!("one"));
            let empty = tracing::info_span!("empty", merchant = Empty);
            empty.record("merchant", "acme");
            empty.in_scope(|| tracing::info!("two"));
            tracing::info_span!("none").in_scope(|| tracing::info!("three"));
        });
        let bytes = written.0.lock().expect("a lock").clone();
        let spans: Vec<Value> = serde_json::Deserializer::from_slice(&bytes)
            .into_iter::<Value>()
            .map(|line| line.expect("JSON")["span"].clone())
            .collect();
        let full = json!({"name": "full", "id": "7", "merchant": "a\"},{b", "result": 3});
        let empty = json!({"name": "empty", "merchant": "acme"});
        assert_eq!(spans, [full, empty, json!({"name": "none"})]);
    }
}

//! Fields of log lines with colours.

use std::borrow::Cow;

use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};

/// What makes a text harmless for a terminal.
pub type Escape = fn(&str) -> Cow<'_, str>;

/// Writes fields escaped and without colours. In a whole line a foreign colour looks like the formatter's.
pub(super) struct EscapedFields(pub(super) Escape);

impl<'writer> FormatFields<'writer> for EscapedFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> std::fmt::Result {
        let mut text = String::new();
        DefaultFields::new().format_fields(Writer::new(&mut text), fields)?;
        writer.write_str(&(self.0)(&text))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::sync::Arc;

    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::{fmt, registry};

    use super::EscapedFields;

    #[test]
    fn escaped_fields_foreign_colours_escaped() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let fields = EscapedFields(|text| text.replace('\u{1b}', "<ESC>").into());
        let layer = fmt::layer().with_ansi(true).with_writer(Arc::clone(&file)).fmt_fields(fields);
        tracing::subscriber::with_default(registry().with(layer), || {
            let _entered = tracing::info_span!("load", name = %"a\u{1b}[32m").entered();
            tracing::info!(model = %"b\u{1b}[31m\u{1b}]0;title", "a message");
        });
        let mut line = String::new();
        file.as_ref().rewind().unwrap();
        file.as_ref().read_to_string(&mut line).unwrap();
        assert!(line.contains("\u{1b}[32m INFO\u{1b}[0m"), "{line:?}");
        assert!(
            line.contains("name=a<ESC>[32m") && line.contains("a message model=b<ESC>[31m<ESC>]0;title"),
            "{line:?}"
        );
    }
}

//! Listens to everything that is traced while tests run, and ends the run if it tells of a person or a secret.

use std::{
    fmt::{Debug, Write as _},
    process,
    sync::{
        Once,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Begins to listen, once in each process. A test that listens for itself takes its own thread away from this.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let _ = tracing::subscriber::set_global_default(Watch(AtomicU64::new(1)));
    });
}

/// What nobody may read: an address, or what a request is authorized with.
pub(crate) fn is_told(text: &str) -> bool {
    let lower = text.to_lowercase();
    let signs = ["@", "%40", "-secret", "the-token", "passworddigest", "bearer ", "basic "];
    signs.iter().any(|sign| lower.contains(sign))
}

struct Watch(AtomicU64);

impl Watch {
    fn look(source: &str, record: impl FnOnce(&mut Text)) {
        let mut text = Text(String::new());
        record(&mut text);
        if is_told(&text.0) {
            // A panic would be lost in whichever task this is.
            eprintln!("traced by {source}: {}", text.0);
            process::exit(101);
        }
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl Subscriber for Watch {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What libraries print at their lowest level is theirs.
        metadata.target().starts_with("reverse_etl") || *metadata.level() <= tracing::Level::DEBUG
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        Self::look(attributes.metadata().target(), |text| attributes.record(text));
        span::Id::from_u64(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        Self::look("a span", |text| values.record(text));
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        Self::look(event.metadata().target(), |text| event.record(text));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

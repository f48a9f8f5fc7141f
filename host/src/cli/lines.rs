//! How does the binary take what is logged, by plugins and by itself?
//!
//! One subscriber with one filter, which can be changed while it runs. What plugins log becomes events of the host, so that all outlets tell
//! it; what the host logs about itself goes to stderr.

use std::fmt::{self, Debug};
use std::io::{self, IsTerminal};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, SpanRef};
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt as lines};

use super::render;
use crate::event::{Bus, Event, Line, LineSpan};
use crate::logs::{FIELD, Filter, Speaker, is_of_plugin};

/// What holds unless something else is asked for: what plugins say is shown from `info` on, of what the host says about itself the warnings.
pub(super) const DEFAULT: &str = "info,midair::=warn";

/// Where lines of plugins go. There is one subscriber in a process, and one host in this one.
static BUS: OnceLock<Bus> = OnceLock::new();

/// From now on lines of plugins are told on this bus.
pub(super) fn tell(bus: &Bus) {
    // The first host stays.
    let _ = BUS.set(bus.clone());
}

/// The filter of this process, to be read and replaced.
#[derive(Clone)]
pub(super) struct Adjustable {
    text: Arc<Mutex<String>>,
    handle: Handle<EnvFilter, Registry>,
}

/// Takes what this process logs from now on.
///
/// # Errors
///
/// What is wrong with the filter.
pub(super) fn take(filter: &str) -> Result<Adjustable, String> {
    let (layer, handle) = reload::Layer::new(parse(filter)?);
    let color = render::color_wanted(io::stderr().is_terminal());
    let own = lines::layer().with_writer(io::stderr).with_ansi(color).event_format(Own(Format::default().with_ansi(color)));
    let subscriber = tracing_subscriber::registry().with(layer).with(own).with(Lines);
    // This is the first thing that the program does.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(Adjustable { text: Arc::new(Mutex::new(filter.to_owned())), handle })
}

fn parse(text: &str) -> Result<EnvFilter, String> {
    const FORM: &str = "write it as info, or warn,shop=debug";
    if text.trim().is_empty() {
        return Err(format!("the filter is empty: {FORM}"));
    }
    EnvFilter::builder().parse(text).map_err(|error| {
        // The one that makes no sense by itself; commas may also stand inside of one.
        let wrong = text.split(',').find(|part| EnvFilter::builder().parse(part).is_err()).unwrap_or(text);
        format!("{wrong:?}: {error}; {FORM}")
    })
}

impl Filter for Adjustable {
    fn text(&self) -> String {
        self.text.lock().clone()
    }

    fn replace(&self, text: &str) -> Result<(), String> {
        let filter = parse(text)?;
        let mut held = self.text.lock();
        self.handle.reload(filter).map_err(|error| error.to_string())?;
        text.clone_into(&mut held);
        Ok(())
    }
}

/// Writes what the host says about itself, and nothing of what plugins do.
struct Own(Format);

impl<S: Subscriber + for<'a> LookupSpan<'a>, N: for<'a> FormatFields<'a> + 'static> FormatEvent<S, N> for Own {
    fn format_event(&self, context: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &tracing::Event<'_>) -> fmt::Result {
        if is_of_plugin(event.metadata()) { Ok(()) } else { self.0.format_event(context, writer, event) }
    }
}

/// Makes events of the host from what plugins log.
struct Lines;

/// What a span of a plugin's has, kept with it.
struct Fields(Map<String, Value>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id).filter(|_| is_of_plugin(attributes.metadata())) {
            let mut read = Read::default();
            attributes.record(&mut read);
            span.extensions_mut().insert(Fields(read.fields));
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(Fields(fields)) = span.extensions_mut().get_mut() {
            let mut read = Read::default();
            record.record(&mut read);
            fields.append(&mut read.fields);
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let Some(bus) = BUS.get().filter(|_| is_of_plugin(metadata)) else { return };
        let mut read = Read::default();
        event.record(&mut read);
        let Read { mut line, fields } = read;
        line.fields = fields;
        line.level = metadata.level().as_str().to_ascii_lowercase();
        metadata.target().clone_into(&mut line.target);
        line.file = metadata.file().map(str::to_owned);
        line.line = metadata.line();
        let spans = context.event_scope(event).into_iter().flat_map(|scope| scope.from_root());
        line.spans = spans.filter_map(|span| of_plugin(&span)).collect();
        bus.say(Event::Log(Box::new(line)));
    }
}

fn of_plugin<'a, S: LookupSpan<'a>>(span: &SpanRef<'a, S>) -> Option<LineSpan> {
    let extensions = span.extensions();
    let Fields(fields) = extensions.get()?;
    let mut shown = LineSpan::default();
    span.name().clone_into(&mut shown.name);
    shown.fields.clone_from(fields);
    Some(shown)
}

/// Values on their way into a line.
#[derive(Default)]
struct Read {
    line: Line,
    fields: Map<String, Value>,
}

impl Read {
    fn speaks(&mut self, words: &str) {
        if let Ok(Speaker { plugin, generation, pid, swaps }) = words.parse() {
            self.line = Line { plugin, generation, pid, swaps, ..std::mem::take(&mut self.line) };
        }
    }

    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.fields.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Read {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.line.message),
            _ => self.put(field, value),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let (mut text, mut below) = (value.to_string(), value.source());
        while let Some(cause) = below {
            text.push_str(&format!(": {cause}"));
            below = cause.source();
        }
        self.put(field, text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.line.message = format!("{value:?}"),
            FIELD => self.speaks(&format!("{value:?}")),
            _ => self.put(field, format!("{value:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_makes_no_sense_is_named_with_what_is_wrong() {
        for (text, wrong) in [("", "empty"), (" ", "empty"), ("info,shop=loud,x=debug", "\"shop=loud\""), ("[a{b=", "[a{b=")] {
            let error = parse(text).err().unwrap_or_else(|| panic!("{text:?} is refused"));
            assert!(error.contains(wrong), "{text:?}: {error}");
        }
        for text in [DEFAULT, "debug", "off", "warn,shop=debug", "shop[request{path=/b}]=trace"] {
            assert_eq!(parse(text).err(), None, "{text:?}");
        }
    }
}

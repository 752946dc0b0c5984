//! Log events of the native side, handed to the one logger that the process has: TypeScript's.

use std::fmt::{Debug, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use napi::Status;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Events that may wait for TypeScript; more are dropped and counted, so that a busy main thread bounds memory.
const LOG_QUEUE_MAX: usize = 1024;

#[napi(object)]
pub struct LogEvent {
    /// error, warn, info, debug or trace
    pub level: String,
    /// Where it comes from, e.g. `perigee_engine::storage::scan`.
    pub target: String,
    pub message: String,
    /// The event's other fields as JSON.
    pub fields: String,
}

type OnLog = ThreadsafeFunction<LogEvent, (), LogEvent, Status, false, true, LOG_QUEUE_MAX>;

struct Forwarder {
    level: Level,
    on_log: OnLog,
    dropped: AtomicU64,
}

impl Subscriber for Forwarder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.level() <= &self.level
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let status = self.on_log.call(
            LogEvent {
                level: metadata.level().as_str().to_lowercase(),
                target: metadata.target().to_owned(),
                message: fields.message,
                fields: serde_json::Value::Object(fields.others).to_string(),
            },
            ThreadsafeFunctionCallMode::NonBlocking,
        );
        if status != Status::Ok {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Fields {
    message: String,
    others: serde_json::Map<String, serde_json::Value>,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.insert(field.name().to_owned(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.others
                .insert(field.name().to_owned(), format!("{value:?}").into());
        }
    }
}

/// Sends native log events of `level` (error, warn, info, debug, trace) and above to `on_log`. Once a process: a second
/// call is ignored and returns false.
#[napi]
pub fn set_logger(
    level: String,
    on_log: ThreadsafeFunction<LogEvent, (), LogEvent, Status, false, true, LOG_QUEUE_MAX>,
) -> napi::Result<bool> {
    static DONE: OnceLock<()> = OnceLock::new();
    let level = level
        .parse::<Level>()
        .map_err(|_| napi::Error::new(Status::InvalidArg, format!("unknown log level {level}")))?;
    let mut first = false;
    DONE.get_or_init(|| first = true);
    if first {
        let forwarder = Forwarder {
            level,
            on_log,
            dropped: AtomicU64::new(0),
        };
        let _ = tracing::subscriber::set_global_default(forwarder);
    }
    Ok(first)
}

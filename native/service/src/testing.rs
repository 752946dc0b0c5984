//! A namespace in memory whose replies go to one service thread's mailbox.

use std::sync::Arc;

use perigee_engine::clock::HybridClock;
use perigee_engine::namespace::Namespace;
use perigee_engine::progress::OpenProgress;
use perigee_wire::PARTITIONS;

use crate::mailbox::{Mailbox, Mailboxes};
use crate::net::LoopControl;

pub fn namespace_in_memory() -> (Arc<Namespace>, Arc<Mailboxes>, LoopControl) {
    let config = serde_json::from_str(
        r#"{"name":"test","replication-factor":1,"default-ttl":0,"nsup-period":120,
        "allow-ttl-without-nsup":false,"max-record-size":32768,"default-read-touch-ttl-pct":0,
        "stop-writes-used-pct":70,"stop-writes-avail-pct":5,"stop-writes-sys-memory-pct":0,
        "indexes-memory-budget":0,"evict-used-pct":0,"evict-indexes-memory-pct":0,"evict-tenths-pct":5,
        "evict-hist-buckets":10000,"tomb-raider-eligible-age":86400,"tomb-raider-period":86400,"sets":[],
        "storage-engine":{"type":"memory","data-size":16777216,"write-block-size":65536,"flush-size":16384}}"#,
    )
    .expect("a valid configuration");
    let clock = Arc::new(HybridClock::new());
    let opened = Namespace::open(config, clock, vec![], 20, &OpenProgress::default());
    let (namespace, _) = opened.expect("a namespace in memory opens");
    namespace.set_ownership(1, &[0xff; PARTITIONS / 8]);
    let control = LoopControl::new().expect("an eventfd");
    let mailboxes = Arc::new(Mailboxes(vec![Mailbox::new(control.waker())]));
    namespace.start(mailboxes.clone());
    (namespace, mailboxes, control)
}

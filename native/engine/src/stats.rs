//! Counters of a namespace. Each thread counts in a shard of its own, so that counting costs no shared cache line;
//! reading adds the shards up.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::latency::Latencies;

pub(crate) const SHARDS: usize = 16;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// One shard; the names are the statistics' public names.
        #[repr(align(128))]
        #[derive(Default)]
        pub struct Counters { $($(#[$doc])* pub $name: AtomicU64),+ }

        impl NamespaceStats {
            /// Every counter with its public name, summed over the shards.
            pub fn totals(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.shards.iter().map(|s| s.$name.load(Ordering::Relaxed)).sum())),+]
            }
        }
    };
}

counters! {
    client_read_success, client_read_error, client_read_timeout, client_read_not_found, client_read_filtered_out,
    client_write_success, client_write_error, client_write_timeout, client_write_filtered_out,
    client_delete_success, client_delete_error, client_delete_timeout, client_delete_not_found, client_delete_filtered_out,
    client_udf_complete, client_udf_error, client_udf_timeout, client_udf_filtered_out,
    batch_sub_tsvc_error,
    batch_sub_read_success, batch_sub_read_error, batch_sub_read_timeout, batch_sub_read_not_found, batch_sub_read_filtered_out,
    batch_sub_write_success, batch_sub_write_error, batch_sub_write_timeout, batch_sub_write_filtered_out,
    batch_sub_delete_success, batch_sub_delete_error, batch_sub_delete_timeout, batch_sub_delete_not_found,
    batch_sub_delete_filtered_out,
    batch_sub_udf_complete, batch_sub_udf_error, batch_sub_udf_timeout, batch_sub_udf_filtered_out,
    ops_sub_tsvc_error, ops_sub_write_success, ops_sub_write_error, ops_sub_write_timeout, ops_sub_write_filtered_out,
    udf_sub_tsvc_error, udf_sub_udf_complete, udf_sub_udf_error, udf_sub_udf_timeout, udf_sub_udf_filtered_out,
    client_lang_read_success, client_lang_write_success, client_lang_delete_success, client_lang_error,
    batch_sub_lang_read_success, batch_sub_lang_write_success, batch_sub_lang_delete_success, batch_sub_lang_error,
    udf_sub_lang_read_success, udf_sub_lang_write_success, udf_sub_lang_delete_success, udf_sub_lang_error,
    xdr_client_write_success, xdr_client_write_error,
    xdr_client_delete_success, xdr_client_delete_error, xdr_client_delete_not_found,
    read_touch_success, read_touch_skip, read_touch_error,
    fail_generation, fail_key_busy, fail_record_too_big, fail_xdr_forbidden, fail_xdr_lost_conflict,
    fail_client_lost_conflict,
    pi_query_long_basic_complete, pi_query_long_basic_error, pi_query_long_basic_abort,
    pi_query_short_basic_complete, pi_query_short_basic_error, pi_query_short_basic_timeout,
    si_query_long_basic_complete, si_query_long_basic_error, si_query_long_basic_abort,
    si_query_short_basic_complete, si_query_short_basic_error, si_query_short_basic_timeout,
    pi_query_aggr_complete, pi_query_aggr_error, pi_query_aggr_abort,
    si_query_aggr_complete, si_query_aggr_error, si_query_aggr_abort,
    pi_query_ops_bg_complete, pi_query_ops_bg_error, pi_query_ops_bg_abort,
    pi_query_udf_bg_complete, pi_query_udf_bg_error, pi_query_udf_bg_abort,
    si_query_ops_bg_complete, si_query_ops_bg_error, si_query_ops_bg_abort,
    si_query_udf_bg_complete, si_query_udf_bg_error, si_query_udf_bg_abort,
    /// Entries of secondary indexes removed after their records had gone.
    sindex_gc_cleaned,
    /// Records that a query left out because the device did not give them back.
    query_unreadable_records,
    fail_set_stop_writes,
    client_tsvc_error, deleted_last_bin, expired_objects, evicted_objects, truncated_objects, tomb_raider_removed,
    /// Bytes of versions as they were written, and as they were stored, while compression was configured.
    compression_input_bytes, compression_output_bytes,
}

pub struct NamespaceStats {
    shards: [Counters; SHARDS],
    pub latencies: Latencies,
    /// Of replies to requests for one record.
    pub record_proto: ReplyCompression,
    /// Of frames of queries.
    pub query_proto: ReplyCompression,
}

/// What became of the frames that clients asked to have compressed. Not sharded: next to compressing, counting is nothing.
#[derive(Default)]
pub struct ReplyCompression {
    compressed: AtomicU64,
    uncompressed: AtomicU64,
    /// Bytes of those that were compressed, before and after.
    input_bytes: AtomicU64,
    output_bytes: AtomicU64,
}

impl ReplyCompression {
    pub fn count_compressed(&self, input_bytes: usize, output_bytes: usize) {
        count(&self.compressed);
        self.input_bytes
            .fetch_add(input_bytes as u64, Ordering::Relaxed);
        self.output_bytes
            .fetch_add(output_bytes as u64, Ordering::Relaxed);
    }

    /// One that is sent as it is, because it is small or would not become smaller.
    pub fn count_uncompressed(&self) {
        count(&self.uncompressed);
    }

    /// Percentage of the frames that were sent as they are; 0 for none.
    pub fn uncompressed_pct(&self) -> f64 {
        let uncompressed = self.uncompressed.load(Ordering::Relaxed);
        match uncompressed + self.compressed.load(Ordering::Relaxed) {
            0 => 0.0,
            all => 100.0 * uncompressed as f64 / all as f64,
        }
    }

    /// Compressed bytes over bytes before, of the frames that were compressed; 1 for none.
    pub fn ratio(&self) -> f64 {
        match self.input_bytes.load(Ordering::Relaxed) {
            0 => 1.0,
            input => self.output_bytes.load(Ordering::Relaxed) as f64 / input as f64,
        }
    }
}

impl NamespaceStats {
    pub fn new() -> Self {
        NamespaceStats {
            shards: std::array::from_fn(|_| Counters::default()),
            latencies: Latencies::default(),
            record_proto: ReplyCompression::default(),
            query_proto: ReplyCompression::default(),
        }
    }

    /// Stored bytes over bytes before compression, of what was written since the start; 1 for nothing.
    pub fn compression_ratio(&self) -> f64 {
        let sum = |of: fn(&Counters) -> &AtomicU64| -> u64 {
            self.shards
                .iter()
                .map(|shard| of(shard).load(Ordering::Relaxed))
                .sum()
        };
        match sum(|shard| &shard.compression_input_bytes) {
            0 => 1.0,
            input => sum(|shard| &shard.compression_output_bytes) as f64 / input as f64,
        }
    }

    /// The calling thread's shard.
    pub fn mine(&self) -> &Counters {
        &self.shards[shard_of_thread()]
    }
}

impl Default for NamespaceStats {
    fn default() -> Self {
        Self::new()
    }
}

pub(crate) fn shard_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
    }
    SHARD.with(Cell::get)
}

/// Adds one.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_ratios_are_of_what_was_asked_for_and_of_what_was_compressed() {
        let replies = ReplyCompression::default();
        assert_eq!((replies.uncompressed_pct(), replies.ratio()), (0.0, 1.0));
        replies.count_uncompressed();
        assert_eq!((replies.uncompressed_pct(), replies.ratio()), (100.0, 1.0));
        replies.count_compressed(1000, 100);
        replies.count_compressed(1000, 400);
        replies.count_compressed(2000, 500);
        assert_eq!((replies.uncompressed_pct(), replies.ratio()), (25.0, 0.25));
    }

    #[test]
    fn totals_add_up_over_threads() {
        let stats = NamespaceStats::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| count(&stats.mine().client_read_success)));
            }
        });
        let total = stats
            .totals()
            .into_iter()
            .find(|(name, _)| *name == "client_read_success");
        assert_eq!(total, Some(("client_read_success", 400)));
    }
}

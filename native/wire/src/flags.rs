//! Flags, ids and limits of the protocol. The TypeScript side is generated from these tables.

/// Seconds from the Unix epoch to the protocol's own, 2010-01-01 00:00 UTC.
pub const EPOCH_UNIX_SECONDS: u64 = 1_262_304_000;

macro_rules! constants {
    ($(#[$meta:meta])* $module:ident: $type:ty {
        $($(#[$doc:meta])* $name:ident = $value:expr,)*
    }) => {
        $(#[$meta])*
        pub mod $module {
            $($(#[$doc])* pub const $name: $type = $value;)*

            /// Every name with its value, in the order of declaration.
            pub const TABLE: &[(&str, u64)] = &[$((stringify!($name), $name as u64)),*];
        }
    };
}

constants! {
    /// First flag byte of a message (section 3).
    info1: u8 {
        READ = 1 << 0,
        /// With READ: every bin.
        GET_ALL = 1 << 1,
        SHORT_QUERY = 1 << 2,
        BATCH = 1 << 3,
        /// The command was shipped from another datacenter.
        XDR = 1 << 4,
        /// Metadata only; also known as exists.
        GET_NO_BINS = 1 << 5,
        /// Resolve duplicates before answering.
        READ_MODE_AP_ALL = 1 << 6,
        COMPRESS_RESPONSE = 1 << 7,
    }
}

constants! {
    /// Second flag byte of a message (section 3).
    info2: u8 {
        WRITE = 1 << 0,
        /// With WRITE: delete the record.
        DELETE = 1 << 1,
        /// The stored generation must equal the header's.
        GENERATION = 1 << 2,
        /// The header's generation must be greater than the stored one.
        GENERATION_GT = 1 << 3,
        DURABLE_DELETE = 1 << 4,
        CREATE_ONLY = 1 << 5,
        RELAX_AP_LONG_QUERY = 1 << 6,
        /// One result per operation, in order; writes answer NULL.
        RESPOND_ALL_OPS = 1 << 7,
    }
}

constants! {
    /// Third flag byte of a message (section 3).
    info3: u8 {
        /// Closes a reply of several messages.
        LAST = 1 << 0,
        /// Answer when the master has committed.
        COMMIT_MASTER = 1 << 1,
        /// In a reply, the generation holds the id of a partition that is done.
        PARTITION_DONE = 1 << 2,
        UPDATE_ONLY = 1 << 3,
        CREATE_OR_REPLACE = 1 << 4,
        REPLACE_ONLY = 1 << 5,
        SC_READ_TYPE = 1 << 6,
        SC_READ_RELAX = 1 << 7,
    }
}

constants! {
    /// Fourth flag byte of a message (section 3).
    info4: u8 {
        MRT_VERIFY_READ = 1 << 0,
        MRT_ROLL_FORWARD = 1 << 1,
        MRT_ROLL_BACK = 1 << 2,
        MONITOR_DRIVEN = 1 << 3,
        MRT_ON_LOCKING_ONLY = 1 << 4,
        /// Two bits: 0 none, 1 subcode, 2 subcode and text.
        ERROR_DETAIL_MASK = 0x60,
        ERROR_DETAIL_SHIFT = 5,
    }
}

constants! {
    /// Message field ids (section 4).
    field: u8 {
        NAMESPACE = 0,
        SET = 1,
        KEY = 2,
        RECORD_VERSION = 3,
        DIGEST = 4,
        MRT_ID = 5,
        MRT_DEADLINE = 6,
        TASK_ID = 7,
        SOCKET_TIMEOUT = 9,
        RECORDS_PER_SECOND = 10,
        PARTITIONS = 11,
        DIGESTS_AFTER = 12,
        SAMPLE_MAX = 13,
        LUT = 14,
        BIN_VALUES_AFTER = 15,
        INDEX_NAME = 21,
        INDEX_RANGE = 22,
        INDEX_CONTEXT = 23,
        INDEX_EXPRESSION = 24,
        INDEX_TYPE = 26,
        UDF_MODULE = 30,
        UDF_FUNCTION = 31,
        UDF_ARGS = 32,
        UDF_OP = 33,
        QUERY_BINS = 40,
        BATCH = 41,
        BATCH_WITH_SET = 42,
        FILTER = 43,
        ERROR_DETAILS = 45,
    }
}

constants! {
    /// Operation codes (section 5).
    op: u8 {
        /// An empty name reads every bin.
        READ = 1,
        /// A NULL particle deletes the bin.
        WRITE = 2,
        CDT_READ = 3,
        CDT_MODIFY = 4,
        INCR = 5,
        EXP_READ = 7,
        EXP_MODIFY = 8,
        APPEND = 9,
        PREPEND = 10,
        TOUCH = 11,
        BITS_READ = 12,
        BITS_MODIFY = 13,
        /// Deletes the record from within an operate command.
        DELETE_ALL = 14,
        HLL_READ = 15,
        HLL_MODIFY = 16,
        STRING_READ = 17,
        STRING_MODIFY = 18,
        TO_STRING = 19,
    }
}

constants! {
    /// Types of bin values and keys (section 5.1).
    particle: u8 {
        NULL = 0,
        INTEGER = 1,
        FLOAT = 2,
        STRING = 3,
        BLOB = 4,
        JAVA_BLOB = 7,
        CSHARP_BLOB = 8,
        PYTHON_BLOB = 9,
        RUBY_BLOB = 10,
        PHP_BLOB = 11,
        ERLANG_BLOB = 12,
        /// A reserved name: no value of this type is accepted.
        VECTOR = 16,
        BOOL = 17,
        HLL = 18,
        MAP = 19,
        LIST = 20,
        GEOJSON = 23,
    }
}

constants! {
    /// Values of a request's record ttl that are not seconds (section 3).
    ttl: u32 {
        /// The default of the set or the namespace.
        DEFAULT = 0,
        NEVER = 0xFFFF_FFFF,
        DONT_UPDATE = 0xFFFF_FFFE,
        /// Ten years.
        TTL_SECONDS_MAX = 315_360_000,
    }
}

constants! {
    /// Values of the UDF_OP field; the field is absent when one record is addressed.
    udf_op: u8 {
        APPLY = 0,
        AGGREGATE = 1,
        BACKGROUND = 2,
        /// As AGGREGATE; the node also does what is the client's, and sends what comes out of all. Ours.
        COMPLETE = 3,
    }
}

constants! {
    /// Values of the INDEX_TYPE field.
    index_type: u8 {
        DEFAULT = 0,
        LIST = 1,
        MAP_KEYS = 2,
        MAP_VALUES = 3,
    }
}

constants! {
    /// The flag byte of a batch (section 9).
    batch_flag: u8 {
        INLINE_MEMORY = 1 << 0,
        INLINE_DEVICE = 1 << 1,
        /// Go on after a row fails.
        RESPOND_ALL_KEYS = 1 << 2,
        /// The failing row is the last one before the trailer.
        REPORT_ERROR_ROW = 1 << 3,
    }
}

constants! {
    /// Type bits of a batch row (section 9).
    batch_row: u8 {
        /// Namespace, set, operations and flags of the row before.
        REPEAT = 1 << 0,
        INFO = 1 << 1,
        GENERATION = 1 << 2,
        TTL = 1 << 3,
        INFO4 = 1 << 4,
    }
}

constants! {
    /// Bounds that hold wherever the protocol is spoken.
    limits: usize {
        BIN_NAME_BYTES_MAX = 15,
        NAMESPACE_BYTES_MAX = 31,
        SET_BYTES_MAX = 63,
        UDF_NAME_BYTES_MAX = 127,
        /// Operations of one command.
        OPS_MAX = 32768,
        /// Bins of one record.
        BINS_MAX = 32767,
        /// Sets of one namespace.
        SETS_MAX = 4095,
        /// Secondary indexes of one namespace.
        INDEXES_MAX = 256,
        /// A string or blob in a secondary index.
        INDEX_VALUE_BYTES_MAX = 2047,
        /// What a namespace may be configured to accept at most.
        RECORD_BYTES_MAX = 8 << 20,
        EXPRESSION_BYTES_MAX = 1 << 20,
        /// Nested lists and maps in one value; bounds the recursion of everything that walks one.
        MSGPACK_DEPTH_MAX = 256,
        PARTITIONS = 4096,
        PROTO_BODY_BYTES_MAX = 128 << 20,
        /// Room for a Lua module of 1 MiB in base64 and its parameters.
        INFO_BODY_BYTES_MAX = 2 << 20,
    }
}

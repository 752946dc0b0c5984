//! Result codes (section 7): one table of code, name, and whether sending the same request again
//! can succeed without anyone changing anything.

macro_rules! result_codes {
    ($($variant:ident = $code:literal $name:literal $retriable:literal,)*) => {
        /// What a message or info reply says about its request.
        #[repr(u8)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum ResultCode {
            $($variant = $code,)*
        }

        impl ResultCode {
            /// Every code, ascending.
            pub const ALL: &'static [ResultCode] = &[$(ResultCode::$variant,)*];

            pub const fn from_u8(code: u8) -> Option<ResultCode> {
                match code {
                    $($code => Some(ResultCode::$variant),)*
                    _ => None,
                }
            }

            /// The protocol's name of the code, in capitals.
            pub const fn name(self) -> &'static str {
                match self {
                    $(ResultCode::$variant => $name,)*
                }
            }

            /// Whether the same request, sent again unchanged, may succeed.
            pub const fn retriable(self) -> bool {
                match self {
                    $(ResultCode::$variant => $retriable,)*
                }
            }
        }
    };
}

result_codes! {
    Ok = 0 "OK" false,
    Unknown = 1 "UNKNOWN" false,
    NotFound = 2 "NOT_FOUND" false,
    Generation = 3 "GENERATION" false,
    Parameter = 4 "PARAMETER" false,
    RecordExists = 5 "RECORD_EXISTS" false,
    BinExists = 6 "BIN_EXISTS" false,
    ClusterKeyMismatch = 7 "CLUSTER_KEY_MISMATCH" false,
    OutOfSpace = 8 "OUT_OF_SPACE" false,
    Timeout = 9 "TIMEOUT" true,
    AlwaysForbidden = 10 "ALWAYS_FORBIDDEN" false,
    Unavailable = 11 "UNAVAILABLE" true,
    IncompatibleType = 12 "INCOMPATIBLE_TYPE" false,
    RecordTooBig = 13 "RECORD_TOO_BIG" false,
    KeyBusy = 14 "KEY_BUSY" true,
    ScanAbort = 15 "SCAN_ABORT" false,
    UnsupportedFeature = 16 "UNSUPPORTED_FEATURE" false,
    BinNotFound = 17 "BIN_NOT_FOUND" false,
    DeviceOverload = 18 "DEVICE_OVERLOAD" true,
    KeyMismatch = 19 "KEY_MISMATCH" false,
    Namespace = 20 "NAMESPACE" false,
    BinName = 21 "BIN_NAME" false,
    Forbidden = 22 "FORBIDDEN" false,
    ElementNotFound = 23 "ELEMENT_NOT_FOUND" false,
    ElementExists = 24 "ELEMENT_EXISTS" false,
    EnterpriseOnly = 25 "ENTERPRISE_ONLY" false,
    OpNotApplicable = 26 "OP_NOT_APPLICABLE" false,
    FilteredOut = 27 "FILTERED_OUT" false,
    LostConflict = 28 "LOST_CONFLICT" false,
    InvalidEncoding = 29 "INVALID_ENCODING" false,
    XdrKeyBusy = 32 "XDR_KEY_BUSY" true,
    QueryEnd = 50 "QUERY_END" false,
    SecNotSupported = 51 "SEC_NOT_SUPPORTED" false,
    SecNotConfigured = 52 "SEC_NOT_CONFIGURED" false,
    SecScheme = 53 "SEC_SCHEME" false,
    SecCommand = 54 "SEC_COMMAND" false,
    SecField = 55 "SEC_FIELD" false,
    SecState = 56 "SEC_STATE" false,
    User = 60 "USER" false,
    UserExists = 61 "USER_EXISTS" false,
    Password = 62 "PASSWORD" false,
    ExpiredPassword = 63 "EXPIRED_PASSWORD" false,
    ForbiddenPassword = 64 "FORBIDDEN_PASSWORD" false,
    Credential = 65 "CREDENTIAL" false,
    ExpiredSession = 66 "EXPIRED_SESSION" false,
    Role = 70 "ROLE" false,
    RoleExists = 71 "ROLE_EXISTS" false,
    Privilege = 72 "PRIVILEGE" false,
    Whitelist = 73 "WHITELIST" false,
    QuotasNotEnabled = 74 "QUOTAS_NOT_ENABLED" false,
    Quota = 75 "QUOTA" false,
    NotAuthenticated = 80 "NOT_AUTHENTICATED" false,
    RoleViolation = 81 "ROLE_VIOLATION" false,
    NotWhitelisted = 82 "NOT_WHITELISTED" false,
    QuotaExceeded = 83 "QUOTA_EXCEEDED" false,
    LdapNotConfigured = 90 "LDAP_NOT_CONFIGURED" false,
    LdapSetup = 91 "LDAP_SETUP" false,
    LdapTlsSetup = 92 "LDAP_TLS_SETUP" false,
    LdapAuthentication = 93 "LDAP_AUTHENTICATION" false,
    LdapQuery = 94 "LDAP_QUERY" false,
    UdfExecution = 100 "UDF_EXECUTION" false,
    MrtBlocked = 120 "MRT_BLOCKED" false,
    MrtVersionMismatch = 121 "MRT_VERSION_MISMATCH" false,
    MrtExpired = 122 "MRT_EXPIRED" false,
    MrtTooManyWrites = 123 "MRT_TOO_MANY_WRITES" false,
    MrtCommitted = 124 "MRT_COMMITTED" false,
    MrtAborted = 125 "MRT_ABORTED" false,
    MrtAlreadyLocked = 126 "MRT_ALREADY_LOCKED" false,
    MrtMonitorExists = 127 "MRT_MONITOR_EXISTS" false,
    BatchDisabled = 150 "BATCH_DISABLED" false,
    BatchMaxRequests = 151 "BATCH_MAX_REQUESTS" false,
    BatchQueuesFull = 152 "BATCH_QUEUES_FULL" true,
    GeoInvalid = 160 "GEO_INVALID" false,
    SindexFound = 200 "SINDEX_FOUND" false,
    SindexNotFound = 201 "SINDEX_NOT_FOUND" false,
    SindexOom = 202 "SINDEX_OOM" false,
    SindexNotReadable = 203 "SINDEX_NOT_READABLE" false,
    SindexGeneric = 204 "SINDEX_GENERIC" false,
    SindexName = 205 "SINDEX_NAME" false,
    SindexMaxCount = 206 "SINDEX_MAX_COUNT" false,
    QueryAborted = 210 "QUERY_ABORTED" false,
    QueryQueueFull = 211 "QUERY_QUEUE_FULL" true,
    QueryTimeout = 212 "QUERY_TIMEOUT" false,
    Query = 213 "QUERY" false,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_code_reads_back_and_no_other_does() {
        let read: Vec<ResultCode> = (0..=255).filter_map(ResultCode::from_u8).collect();
        assert_eq!(read, ResultCode::ALL);
        for code in ResultCode::ALL {
            assert_eq!(ResultCode::from_u8(*code as u8), Some(*code));
        }
    }

    #[test]
    fn names_are_the_variants_in_capitals() {
        for code in ResultCode::ALL {
            let mut name = String::new();
            for letter in format!("{code:?}").chars() {
                if letter.is_uppercase() && !name.is_empty() {
                    name.push('_');
                }
                name.push(letter.to_ascii_uppercase());
            }
            assert_eq!(code.name(), name);
        }
    }

    #[test]
    fn retriable_codes_are_those_of_a_busy_or_moving_server() {
        let retriable: Vec<u8> = ResultCode::ALL
            .iter()
            .filter(|code| code.retriable())
            .map(|code| *code as u8)
            .collect();
        assert_eq!(retriable, [9, 11, 14, 18, 32, 152, 211]);
    }
}

//! The harness of the end-to-end tests: real servers, the real programs, and oracles. The oracles
//! share no code with the programs under test, except for the wire format, which Python checks.
//!
//! A test gets a [`Site`]: its own database on a shared Postgres, its own broker, its own folder.
//! It starts gateways and replicas there, and all of them end with the test.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

pub mod audit;
pub mod broker;
pub mod configuration_page;
pub mod credentials;
pub mod dictionary;
pub mod fixtures;
pub mod gateway;
pub mod json;
pub mod load;
pub mod native;
pub mod oracle;
pub mod page;
pub mod postgres;
pub mod process;
pub mod program;
pub mod proxy;
pub mod python;
pub mod replica;
pub mod site;
pub mod snapshot;
pub mod source_tree;
pub mod standby;
pub mod stream;
pub mod tls;
pub mod vectors;
pub mod wait;
pub mod workload;

pub use audit::Audit;
pub use broker::Broker;
pub use gateway::Gateway;
pub use postgres::{Database, Major, Server, run_on};
pub use proxy::Proxy;
pub use replica::{Replica, Target};
pub use site::Site;
pub use wait::eventually;

/// Each function becomes two tests, `name::newest` and `name::oldest`. They run on the newest and
/// the oldest major version of Postgres that is installed.
#[macro_export]
macro_rules! on_each_postgres {
    ($($(#[$doc:meta])* async fn $name:ident($server:ident) $body:block)*) => { $(
        $(#[$doc])*
        mod $name {
            #[test]
            fn newest() {
                $crate::run_on($crate::Major::Newest, super::$name);
            }

            #[test]
            fn oldest() {
                $crate::run_on($crate::Major::Oldest, super::$name);
            }
        }

        async fn $name($server: std::sync::Arc<$crate::Server>) $body
    )* };
}

/// Each function becomes one test, on the newest installed Postgres that can encrypt connections.
#[macro_export]
macro_rules! on_tls_postgres {
    ($($(#[$doc:meta])* async fn $name:ident($server:ident) $body:block)*) => { $(
        $(#[$doc])*
        #[test]
        fn $name() {
            async fn test($server: std::sync::Arc<$crate::Server>) $body
            $crate::run_on($crate::Major::WithTls, test);
        }
    )* };
}

/// Each function becomes one test, on the newest installed Postgres. For subjects that do not
/// depend on the version.
#[macro_export]
macro_rules! on_newest_postgres {
    ($($(#[$doc:meta])* async fn $name:ident($server:ident) $body:block)*) => { $(
        $(#[$doc])*
        #[test]
        fn $name() {
            async fn test($server: std::sync::Arc<$crate::Server>) $body
            $crate::run_on($crate::Major::Newest, test);
        }
    )* };
}

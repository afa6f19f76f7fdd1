//! All cases: one line each.

use futures::{FutureExt, future::LocalBoxFuture};

use crate::{
    gateway,
    run::{Done, Run},
};

/// One kind of fault, and what has to hold after it.
pub struct Case {
    pub name: &'static str,
    pub what: &'static str,
    pub run: fn(&Run) -> LocalBoxFuture<'_, Done>,
}

macro_rules! cases {
    ($($name:literal $function:path: $what:literal;)*) => {
        pub static CASES: &[Case] = &[
            $(Case { name: $name, what: $what, run: |run| $function(run).boxed_local() },)*
        ];
    };
}

cases! {
    "gateway-killed-idle" gateway::killed_idle: "kill -9 while nothing is written";
    "gateway-killed-streaming" gateway::killed_streaming: "kill -9 under load, also before it is ready";
}

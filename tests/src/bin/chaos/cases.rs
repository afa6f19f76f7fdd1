//! All cases: one line each.

use futures::{FutureExt, future::LocalBoxFuture};

use crate::{
    assets, cluster, consumer, failover, flood, gateway, machine, mixed, nats, password, postgres,
    run::{Done, Run},
};

/// One kind of fault, and the assertions after it.
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
    "gateway-killed-in-transaction" gateway::killed_in_transaction: "kill -9 with a large transaction half sent, several times";
    "gateway-killed-in-snapshot" gateway::killed_in_snapshot: "kill -9 with chunks of a snapshot sent and no meta";
    "gateway-killed-before-feedback" gateway::killed_before_feedback: "kill -9 when NATS has acknowledged what Postgres has not heard of";
    "gateway-killed-in-swap" gateway::killed_in_swap: "kill -9 while a guest and a dictionary are dropped in";
    "gateway-standby" gateway::standby_takes_over: "two gateways on one slot; the one that streams is killed";
    "gateway-paused" gateway::paused_and_replaced: "SIGSTOP, another takes the slot, SIGCONT: the stream refuses the first";
    "consumer-killed-mid-apply" consumer::killed_mid_apply: "kill -9 of both copies under load, again and again";
    "consumer-killed-mid-snapshot" consumer::killed_mid_snapshot: "kill -9 of a copy before its first snapshot is loaded";
    "consumer-killed-at-commit" consumer::killed_at_commit: "kill -9 the moment that a copy's files change";
    "nats-killed" nats::killed: "kill -9 and orderly stops of NATS under load";
    "nats-paused" nats::paused: "SIGSTOP of NATS for 5 s, in the long form for 60 s";
    "nats-slow" nats::slow: "each 16 KiB to and from NATS takes its time";
    "nats-partitioned" nats::partitioned: "half-open connections: bytes vanish without an error";
    "nats-full" nats::full: "the stream is at max_bytes with discard new";
    "nats-purged" nats::purged: "the stream is purged, with the gateway and a copy alive and dead";
    "nats-deleted" nats::deleted: "the stream is deleted under load";
    "nats-forgetful" nats::forgetful: "NATS restarts without what it had acknowledged last";
    "nats-forgetful-buckets" nats::buckets_forgetful: "NATS restarts with messages whose schemas and dictionaries it has lost";
    "nats-wiped" nats::wiped: "NATS restarts with nothing: no stream, no bucket";
    "nats-disk-full" nats::disk_full: "no room left on the device that NATS stores on";
    "cluster-leader-killed" cluster::leader_killed: "kill -9 of the node that leads the stream";
    "cluster-leader-cut-off" cluster::leader_cut_off: "the leader is cut off from the other nodes, not from the gateway";
    "cluster-rolling-restart" cluster::rolling_restart: "one node after the other is restarted under load";
    "assets-half-written" assets::half_written: "a guest and a dictionary are half there, then whole";
    "assets-swapped" assets::swapped: "guest and dictionary swapped every 100 ms";
    "assets-deleted" assets::deleted: "dictionary and guest deleted and put back";
    "assets-folders-removed" assets::folders_removed: "both folders are removed and made again";
    "mixed" mixed::killed_at_random: "gateway, copies and NATS killed at random; one transaction in fourteen is DDL";
    "machine-files-exhausted" machine::files_exhausted: "no file descriptor is left while every connection breaks";
    "machine-data-dir-full" machine::data_dir_full: "no room in data_dir";
    "postgres-killed" postgres::killed: "kill -9 of Postgres under load";
    "postgres-restarted" postgres::restarted: "orderly restarts of Postgres under load";
    "postgres-paused" postgres::paused: "SIGSTOP of Postgres for 5 s, in the long form for 60 s";
    "postgres-full" postgres::connection_limit: "no connection is left, for a snapshot and for the stream";
    "postgres-password-rotated" password::rotated: "the gateway's password is changed, and later the file that it is read from";
    "postgres-long-writer" postgres::long_writer: "old and prepared transactions are open when a snapshot is asked for";
    "postgres-stalled-standby" postgres::stalled_standby: "commits wait for a synchronous standby while a snapshot is taken";
    "postgres-ddl-in-snapshot" postgres::ddl_in_snapshot: "TRUNCATE, ALTER and DROP while a snapshot is taken";
    "postgres-wal-elsewhere" postgres::wal_elsewhere: "only another database writes: the slot advances";
    "slot-dropped" postgres::slot_dropped: "the slot is dropped, with the gateway dead and alive";
    "slot-invalidated" postgres::slot_invalidated: "max_slot_wal_keep_size takes the WAL of the slot away";
    "failover-synchronised" failover::synchronised: "a standby with the slot takes over: the stream continues";
    "failover-behind" failover::behind: "a standby takes over that has not all of the stream";
    "failover-without-slot" failover::without_slot: "a standby without the slot takes over";
    "restored-to-a-point" failover::recovered: "a backup is recovered to an earlier point, on a new timeline";
    "restored-files" failover::put_back: "the files of an earlier day are put back, slot and all";
    "request-flood" flood::requests: "10,000 requests, most of them for what is not there or cannot be";
}

//! The common ground of all cases: a source under load, a broker, a gateway, a copy in SQLite, a
//! copy in Postgres, an audit. `settle` is the oracle at the end. This file does not know the
//! faults.

use std::{sync::Arc, time::Duration};

use walgate_servers::NatsOptions;
use walgate_tests::{
    Audit, Broker, Database, Gateway, Replica, Server, Site, eventually, gateway::GatewayOptions,
    load::Writer, process, snapshot, stream,
};

use walgate_wire::{Epoch, Lsn};

use crate::{
    run::{Done, Run},
    workload::{self, ADMITTED, ALL, GUARDED, PLAIN, Workload},
};

/// A gateway's resident memory must never exceed this, in MB of 10⁶ bytes.
const RESIDENT_MAX_MB: f64 = 200.0;
/// The pause between two transactions of the load.
const PACE: Duration = Duration::from_millis(8);

/// The expected state of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// One epoch holds everything from the beginning.
    Whole,
    /// Messages were deleted; the remaining ones are exact.
    Cut,
    /// The gateway noticed a possible loss and began a new epoch.
    Anew,
}

/// Fields are dropped in this order: programs before their servers.
pub struct Stage<'a> {
    run: &'a Run,
    gateway: Option<Gateway>,
    /// For another start.
    options: GatewayOptions,
    pub sqlite: Replica,
    pub postgres: Replica,
    /// Copies that began later.
    newcomers: Vec<Replica>,
    pub load: Writer,
    audit: Audit,
    /// The first epoch of the stream.
    epoch: Epoch,
    /// The database of the copy in Postgres, on a server without faults.
    _copy: Database,
    pub site: Site,
}

type Change<'a> = Box<dyn FnOnce(&Site, GatewayOptions) -> GatewayOptions + 'a>;

/// The differences between this stage and the usual one.
pub struct Setting<'a> {
    run: &'a Run,
    server: Arc<Server>,
    nats: NatsOptions,
    is_cluster: bool,
    has_proxy: bool,
    rows: u64,
    ddl_share: f64,
    gateway: Change<'a>,
}

impl Run {
    /// The usual stage: all copies are loaded and equal, and the load runs.
    pub async fn stage(&self) -> Stage<'_> {
        self.setting().open().await
    }

    pub fn setting(&self) -> Setting<'_> {
        Setting {
            run: self,
            server: Server::shared(&self.bin),
            nats: NatsOptions::default(),
            is_cluster: false,
            has_proxy: false,
            rows: 300,
            ddl_share: workload::DDL_SHARE,
            gateway: Box::new(|_, options| options),
        }
    }
}

impl<'a> Setting<'a> {
    /// A server for this case alone: for faults of Postgres itself.
    pub fn with_own_postgres(self, settings: &[(&str, &str)]) -> Self {
        let server = Server::start(&self.run.bin, settings);
        self.on_server(server)
    }

    pub fn on_server(mut self, server: Server) -> Self {
        self.server = Arc::new(server);
        self
    }

    pub fn with_nats(mut self, options: NatsOptions) -> Self {
        self.nats = options;
        self
    }

    /// Three nodes, with every stream on each.
    pub fn with_cluster(mut self) -> Self {
        self.is_cluster = true;
        self
    }

    /// Puts a proxy between NATS and both the gateway and the consumers: see [`Broker::network`].
    pub fn with_proxy(mut self) -> Self {
        self.has_proxy = true;
        self
    }

    /// The load alters no table: for faults after which the source has lost data.
    pub fn without_ddl(mut self) -> Self {
        self.ddl_share = 0.0;
        self
    }

    /// The number of initial rows in `users` and `bag`.
    pub fn rows(mut self, rows: u64) -> Self {
        self.rows = rows;
        self
    }

    /// The share of DDL in the load's transactions.
    pub fn ddl(mut self, share: f64) -> Self {
        self.ddl_share = share;
        self
    }

    pub fn gateway(
        mut self,
        change: impl FnOnce(&Site, GatewayOptions) -> GatewayOptions + 'a,
    ) -> Self {
        self.gateway = Box::new(change);
        self
    }

    pub async fn open(self) -> Stage<'a> {
        let Setting { run, server, nats, is_cluster, has_proxy, rows, ddl_share, gateway } = self;
        let broker = match (is_cluster, has_proxy) {
            (true, _) => Broker::cluster().await,
            (false, true) => Broker::start(nats).await.behind_proxy().await,
            (false, false) => Broker::start(nats).await,
        };
        let site = Site::with_broker(&server, broker).await;
        let copy = Database::create(&Server::shared_for_copies(&run.bin)).await;
        site.sql(&workload::create(rows)).await;
        site.drop_guest("users", "users.wasm");
        let options = site.gateway(&ALL).set_env("SNAPSHOT_CHUNK_BYTES", 65536);
        let options = match is_cluster {
            true => options.set_env("NATS_REPLICAS", 3),
            false => options,
        };
        let options = gateway(&site, options);
        let gateway = options.clone().start().await;
        let audit = Audit::begin(&site.database).await;
        let epoch = stream::last_epoch(&site.broker).await;
        let sqlite = site.sqlite_replica(&ALL);
        let postgres = site.postgres_replica(&copy, &ALL);
        let mut workload = Workload::new(run.seed, ddl_share);
        let load = Writer::start_paced(&site.database, PACE, move |_| workload.next_script()).await;
        let gateway = Some(gateway);
        let stage = Stage {
            run,
            gateway,
            options,
            sqlite,
            postgres,
            newcomers: vec![],
            load,
            audit,
            epoch,
            _copy: copy,
            site,
        };
        stage.wait_until_copies_exist().await;
        stage
    }
}

impl Stage<'_> {
    /// The running gateway.
    pub fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().expect("a gateway runs")
    }

    pub fn options(&self) -> GatewayOptions {
        self.options.clone()
    }

    /// Waits until both copies have every table.
    async fn wait_until_copies_exist(&self) {
        for replica in [&self.sqlite, &self.postgres] {
            eventually("the copies are loaded", async || {
                let copy = walgate_tests::oracle::Copy::open(&replica.target).await;
                for table in ALL {
                    copy.count_rows(table).await.ok_or_else(|| format!("{table} is not there"))?;
                }
                Ok(())
            })
            .await;
        }
    }

    /// Starts one more copy, in SQLite, which has to load everything.
    pub fn add_newcomer(&mut self) {
        self.newcomers.push(self.site.sqlite_replica(&ALL));
    }

    pub fn newest_copy(&mut self) -> &mut Replica {
        self.newcomers.last_mut().expect("there is one")
    }

    /// Waits until the stream has that many more messages.
    pub async fn wait_for_messages(&self, more: u64) {
        stream::wait_for_messages(&self.site.broker, more).await;
    }

    /// Sends SIGKILL.
    pub fn kill_gateway(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            self.record_memory(&gateway);
            self.run.record_fault("gateway killed");
            drop(gateway.kill9());
        }
    }

    /// Starts a gateway after the previous one has ended.
    pub fn start_gateway(&mut self) {
        self.gateway = Some(self.options.clone().spawn());
    }

    /// The same, with other options from now on.
    pub fn start_gateway_as(&mut self, options: GatewayOptions) {
        self.options = options;
        self.start_gateway();
    }

    pub fn kill_and_start_gateway(&mut self) {
        self.kill_gateway();
        self.start_gateway();
    }

    /// Makes this gateway the current one; returns the previous one.
    pub fn replace_gateway(&mut self, gateway: Gateway) -> Option<Gateway> {
        self.gateway.replace(gateway)
    }

    fn record_memory(&self, gateway: &Gateway) {
        // A gateway that has just ended has no memory.
        if let Ok(resident) = process::resident_memory(gateway.program().pid()) {
            self.run.record_peak_mb(resident.peak_mb);
        }
    }

    pub fn server(&self) -> Arc<Server> {
        Arc::clone(self.site.database.server())
    }

    /// Kills or stops the source, and starts it again.
    pub async fn restart_postgres(&mut self, kill: bool) {
        self.run.record_fault(if kill { "Postgres killed" } else { "Postgres restarted" });
        self.site.restart_postgres(kill).await;
    }

    /// Begins another audit: the source has lost earlier commits, or the audit's slot.
    pub async fn restart_audit(&mut self) {
        self.audit = Audit::begin(&self.site.database).await;
    }

    /// Ignores earlier commits, with the same slot.
    pub async fn advance_audit(&mut self) {
        self.audit.skip_to_now(&self.site.database).await;
    }

    /// The slot of the audit.
    pub fn audit_slot(&self) -> &str {
        self.audit.slot()
    }

    /// Waits until the gateway ends by itself; returns its exit code and its log.
    pub fn wait_until_gateway_ends(&mut self) -> (Option<i32>, String) {
        let gateway = self.gateway.take().expect("a gateway runs");
        (gateway.program().wait_until_ended().code(), gateway.log())
    }

    /// Waits until `/readyz` reports this reason.
    pub async fn wait_for_reason(&self, words: &str) {
        eventually(format!("the gateway reports: {words}"), async || {
            match self.gateway().readyz()? {
                (503, body) if body["reason"].to_string().contains(words) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Requests a snapshot as a consumer would, and does not wait for it.
    pub async fn request_snapshot(&self, token: &str) {
        eventually("a snapshot is asked for", async || {
            match snapshot::request(&self.site.broker, token).await {
                true => Ok(()),
                false => Err("refused".to_owned()),
            }
        })
        .await;
    }

    /// Ends the load. Then asserts: the stream is exact, both copies hold the rows that the guests
    /// accept, memory stayed bounded, and the slot advances.
    pub async fn settle(mut self, ending: Ending) -> Done {
        self.load.hold().await;
        self.site.sql(workload::LAST).await;
        let Stage { run, gateway, sqlite, postgres, newcomers, audit, site, .. } = &self;
        let gateway = gateway.as_ref().expect("a case ends with a gateway that runs");
        gateway.wait_until_ready().await;
        let epochs = audit.assert_latest_epoch_is_exact(site, &workload::TABLES).await;
        let is_as_it_should = match ending {
            Ending::Whole => epochs.latest == self.epoch && epochs.is_whole,
            Ending::Cut => epochs.latest == self.epoch && !epochs.is_whole,
            Ending::Anew => epochs.latest > self.epoch,
        };
        assert!(is_as_it_should, "{epochs:?} after {}, which is not {ending:?}", self.epoch);
        for replica in [sqlite, postgres].into_iter().chain(newcomers) {
            for table in PLAIN {
                site.wait_until_equal(replica, table).await;
            }
            let what = format!("{GUARDED} in {} is {ADMITTED}", replica.target);
            eventually(what, async || site.find_differences_as(replica, ADMITTED, GUARDED).await)
                .await;
        }
        self.assert_next_session_continues(epochs.latest).await;
        self.record_memory(gateway);
        let peak = run.peak_mb();
        assert!(peak < RESIDENT_MAX_MB, "the gateway had {peak:.0} MB, at most {RESIDENT_MAX_MB}");
        Done::Passed
    }

    /// The next session continues the epoch, and advances the slot.
    async fn assert_next_session_continues(&self, epoch: Epoch) {
        let slot = self.site.slot();
        self.site.sql(&format!(
            "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '{slot}' and active"
        )).await;
        self.site.sql("insert into a (id) values (-1)").await;
        let committed = self.last_commit().await;
        eventually("the slot advances", async || match self.site.confirmed_lsn().await {
            confirmed if confirmed > committed => Ok(()),
            confirmed => Err(format!("{confirmed} of {committed}")),
        })
        .await;
        let now = stream::last_epoch(&self.site.broker).await;
        assert_eq!(now, epoch, "a session began a new epoch without a cause");
    }

    /// The LSN of the last transaction's commit record.
    pub async fn last_commit(&self) -> Lsn {
        self.audit.read_log(&self.site.database).await.last_commit
    }

    /// Waits until the stream holds every committed change.
    pub async fn wait_until_drained(&self) {
        let committed = self.last_commit().await;
        stream::wait_for_commit(&self.site.broker, committed).await;
    }
}

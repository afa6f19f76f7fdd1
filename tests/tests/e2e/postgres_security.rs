//! Connections to Postgres: encrypted as the URL demands, with no more rights than `init-sql`
//! grants, never with rows hidden by row-level security. Each refusal names the setting.

use std::{path::Path, sync::Arc};

use walgate_tests::{
    Database, Gateway, Server, Site, eventually, on_each_postgres, on_newest_postgres,
    on_tls_postgres,
    program::run,
    snapshot,
    tls::{Authority, Issued},
};

const PASSWORD: &str = "hunter2-and-more";
/// No role may connect without encryption; `certified` needs a certificate of the CA with its name.
const ONLY_ENCRYPTED: &str = "hostssl all certified 127.0.0.1/32 cert
hostssl all twofold 127.0.0.1/32 scram-sha-256 clientcert=verify-full
hostssl all all 127.0.0.1/32 scram-sha-256";

/// A URL for `database` over TCP.
fn url(database: &Database, user: &str, host: &str, words: &str) -> String {
    let port = database.server().process().port();
    format!("postgres://{user}:{PASSWORD}@{host}:{port}/{}?{words}", database.name())
}

async fn make_role(site: &Site, role: &str) {
    site.sql(&format!(
        "create role {role} login replication password '{PASSWORD}'; grant select on t to {role}"
    ))
    .await;
}

/// The gateway does not start. Its output has all of `words`, but not the password.
fn assert_refused(site: &Site, url: &str, words: &[&str]) {
    assert_refused_with(3, site, url, words);
}

fn assert_refused_with(code: i32, site: &Site, url: &str, words: &[&str]) {
    let ended = site.gateway(&["t"]).with_postgres_url(url).run_to_end();
    assert_eq!(ended.code, Some(code), "{url}: {}", ended.output);
    for word in words {
        assert!(ended.output.contains(word), "no '{word}' for {url} in: {}", ended.output);
    }
    assert!(!ended.output.contains(PASSWORD), "the output has the password: {}", ended.output);
}

/// A site whose server authenticates connections over TCP, with a table and a role for the gateway.
async fn guarded_site(authority: &Authority, like: &Server) -> Site {
    let site = Site::new(&authority.server(like, ONLY_ENCRYPTED)).await;
    site.sql(
        "create table t (id int primary key, v text); insert into t values (1, 'one');
              create publication walgate for table t",
    )
    .await;
    make_role(&site, "reader").await;
    site
}

fn trust_parameters(authority: &Authority, folder: &Path) -> String {
    let ca = authority.file(folder, "ca.pem");
    format!("sslmode=verify-full&sslrootcert={}", ca.display())
}

on_tls_postgres! {
    /// SQL, replication, the consumer's sink and `verify`, with channel binding. There is no
    /// warning.
    async fn every_connection_is_encrypted(server) {
        let authority = Authority::new("ours");
        let site = guarded_site(&authority, &server).await;
        let copy = Database::create(site.database.server()).await;
        site.sql(&format!("grant create on database {} to reader", copy.name())).await;
        copy.sql("grant all on schema public to reader").await;
        let words = format!("{}&channel_binding=require", trust_parameters(&authority, site.folder()));
        let source = url(&site.database, "reader", "localhost", &words);
        let gateway = site.gateway(&["t"]).with_postgres_url(&source).set_env("LOG", "trace").start().await;
        let target = url(&copy, "reader", "localhost", &words);
        let replica = site.postgres_replica_at(&target, &["t"]);
        let sees = async |rows: &str| {
            eventually("the copy has what the source has", async || {
                let found = copy.rows("select string_agg(id || v, ',' order by id) from t").await;
                match found[0][0].as_deref() {
                    Some(found) if found == rows => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            }).await;
        };
        eventually("the copy's table is there", async || {
            match &*copy.value("select count(*) from pg_class where relname = 't'").await {
                "1" => Ok(()),
                _ => Err("no table".to_owned()),
            }
        }).await;
        sees("1one").await;
        site.sql("insert into t values (2, 'two'); update t set v = 'uno' where id = 1").await;
        sees("1uno,2two").await;
        let plain = "select count(*) from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'reader' and not ssl";
        assert_eq!(site.database.value(plain).await, "0");
        let senders = "select count(*) from pg_stat_ssl join pg_stat_replication using (pid) where ssl";
        assert_eq!(site.database.value(senders).await, "1");
        let compared = run("walgate", &["verify", "--source", &source, "--replica", &target]);
        assert!(compared.status.success(), "{compared:?}");
        let (_, ready) = gateway.get("/readyz").unwrap();
        for text in [gateway.log(), replica.log(), ready, String::from_utf8_lossy(&compared.stdout).into_owned()] {
            assert!(!text.contains(PASSWORD), "the output has the password");
        }
    }

    /// A new guest is tried on the first rows of a large table; then the gateway cancels the COPY.
    async fn cancel_requests_are_encrypted(server) {
        let authority = Authority::new("ours");
        let site = guarded_site(&authority, &server).await;
        site.sql("insert into t select n, repeat(md5(n::text), 30) from generate_series(2, 60000) n").await;
        let words = trust_parameters(&authority, site.folder());
        site.drop_guest("identity", "t.wasm");
        let source = url(&site.database, "reader", "localhost", &words);
        let _gateway = site.gateway(&["t"]).with_postgres_url(&source).start().await;
        eventually("the COPY was cancelled", async || {
            let log = site.database.server().log();
            if log.contains("canceling statement due to user request") { Ok(()) } else { Err(log) }
        }).await;
    }

    async fn an_untrusted_server_is_refused(server) {
        let authority = Authority::new("ours");
        let site = guarded_site(&authority, &server).await;
        let ours = trust_parameters(&authority, site.folder());
        let at = |host: &str, words: &str| url(&site.database, "reader", host, words);
        assert_refused(&site, &at("127.0.0.1", &ours), &["not for \"127.0.0.1\"", "localhost", "verify-ca"]);
        let stranger = Authority::new("theirs").file(site.folder(), "theirs.pem").display().to_string();
        let theirs = format!("sslmode=verify-full&sslrootcert={stranger}");
        assert_refused(&site, &at("localhost", &theirs), &["was not issued by", "sslrootcert", &stranger]);
        let missing = "sslmode=verify-full&sslrootcert=/no/such/ca.pem";
        assert_refused_with(2, &site, &at("localhost", missing), &["postgres.url", "sslrootcert=/no/such/ca.pem", "does not exist"]);
        assert_refused(&site, &at("localhost", "sslmode=disable"), &["no encryption", "sslmode=verify-full"]);
        assert_refused_with(2, &site, &at("localhost", "sslmode=verify-full"), &["sslrootcert=system"]);
        let wrong = at("localhost", &ours).replace(PASSWORD, "another");
        assert_refused(&site, &wrong, &["28P01", "password", "postgres.password_file"]);
        let none = at("localhost", &ours).replace(&format!(":{PASSWORD}"), "");
        assert_refused(&site, &none, &["asks for a password", "postgres.password_file"]);
        // These modes do not check the certificate: they accept any server, and are encrypted all
        // the same.
        for words in ["sslmode=require", "sslmode=prefer", ""] {
            drop(site.gateway(&["t"]).with_postgres_url(&at("127.0.0.1", words)).start().await.stop());
        }
        let chain = ours.replace("verify-full", "verify-ca");
        drop(site.gateway(&["t"]).with_postgres_url(&at("127.0.0.1", &chain)).start().await.stop());
    }

    async fn a_server_may_require_a_client_certificate(server) {
        let authority = Authority::new("ours");
        let site = guarded_site(&authority, &server).await;
        make_role(&site, "certified").await;
        make_role(&site, "twofold").await;
        let ours = trust_parameters(&authority, site.folder());
        let showing = |issued: Issued, name: &str| {
            let (certificate, key) = issued.files(site.folder(), name);
            format!("{ours}&sslcert={}&sslkey={}", certificate.display(), key.display())
        };
        let as_role = |role: &str, words: &str| url(&site.database, role, "localhost", words);
        assert_refused(&site, &as_role("certified", &ours), &["28000", "sslcert=FILE and sslkey=FILE"]);
        assert_refused(&site, &as_role("twofold", &ours), &["28000", "sslcert=FILE and sslkey=FILE"]);
        let of_another = showing(authority.issue("somebody", &[]), "somebody");
        assert_refused(&site, &as_role("certified", &of_another), &["certificate", "common name", "pg_ident.conf"]);
        let of_no_one = showing(Authority::new("theirs").issue("certified", &[]), "stranger");
        assert_refused(&site, &as_role("certified", &of_no_one), &["sslcert", "ssl_ca_file"]);
        for role in ["certified", "twofold"] {
            let words = showing(authority.issue(role, &[]), role);
            let gateway = site.gateway(&["t"]).with_postgres_url(&as_role(role, &words)).start().await;
            assert_eq!(site.take_snapshot("t").await.rows.len(), 1);
            gateway.stop();
        }
    }
}

on_each_postgres! {
    async fn required_encryption_is_never_skipped(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key)").await;
        let plain = site.database.url();
        for words in ["sslmode=require", "sslmode=verify-full&sslrootcert=system"] {
            assert_refused(&site, &format!("{plain}?{words}"), &["speaks no TLS", "ssl = on", "sslmode"]);
        }
        drop(site.gateway(&["t"]).with_postgres_url(&format!("{plain}?sslmode=prefer")).start().await.stop());
    }

    /// With exactly the output of `init-sql`, and no other rights: snapshots, changes, another
    /// shape.
    async fn the_documented_rights_suffice(server) {
        let site = Site::new(&server).await;
        site.sql("create schema \"Sales\"; create type mood as enum ('fine', 'so so');
                  create table t (id int primary key, v text, m mood, r int4range, g int generated always as (id * 2) stored);
                  create table \"Sales\".\"Orders\" (id int primary key, n numeric) partition by range (id);
                  create table \"Sales\".first partition of \"Sales\".\"Orders\" for values from (0) to (1000);
                  insert into t select n, 'v' || n, 'fine', int4range(n, n + 2) from generate_series(1, 500) n;
                  insert into \"Sales\".\"Orders\" select n, n / 7.0 from generate_series(1, 500) n;
                  revoke all on schema public from public").await;
        let (database, role) = (site.database.name(), format!("Least {}", site.database.name()));
        site.sql(&format!("revoke all on database {database} from public")).await;
        let port = server.process().port();
        let as_role = format!("postgres://{}@127.0.0.1:{port}/{database}", role.replace(' ', "%20"));
        let tables = ["t", "\"Sales\".\"Orders\""];
        let gateway = site.gateway(&tables).with_postgres_url(&as_role);
        let config = gateway.write_config().display().to_string();
        let printed = run("walgate", &["init-sql", "-c", &config]);
        assert!(printed.status.success(), "{printed:?}");
        let sql = String::from_utf8(printed.stdout).unwrap();
        server.process().psql_in(database, &sql).unwrap();
        let _gateway = gateway.start().await;
        let replica = site.sqlite_replica(&tables);
        let same = async || for table in tables { site.wait_until_equal(&replica, table).await };
        same().await;
        assert_eq!(site.take_snapshot("t").await.rows.len(), 500);
        site.sql("insert into t values (1000, 'new', 'so so', 'empty'); update t set v = v || '!' where id < 9; delete from t where id = 9;
                  update \"Sales\".\"Orders\" set n = -n").await;
        same().await;
        site.sql("alter table t add column more text; alter table t rename column v to w; insert into t values (1001)").await;
        same().await;
        site.sql("truncate \"Sales\".\"Orders\"; alter table t drop column m; insert into t values (1002)").await;
        same().await;
        // The last lines of the output undo the rest.
        let undo: Vec<_> = sql.lines().skip_while(|line| !line.contains("To undo")).skip(1).collect();
        drop((_gateway.stop(), replica.stop()));
        server.process().psql_in(database, &undo.join("\n").replace("-- ", "")).unwrap();
    }

    async fn row_security_that_hides_rows_is_refused(server) {
        let site = Site::new(&server).await;
        let role = format!("weak_{}", site.database.name());
        site.sql(&format!("create table t (id int primary key, v text); create table other (id int primary key);
                  insert into t select n, 'v' from generate_series(1, 10) n; insert into other values (1);
                  create publication walgate for table t, other;
                  create role {role} login replication; grant select on t, other to {role}")).await;
        let as_role = site.database.url().replace("postgres@", &format!("{role}@"));
        let weak = || site.gateway(&["t", "other"]).with_postgres_url(&as_role);
        let hide = format!("alter table t enable row level security; create policy few on t to {role} using (id < 3)");
        site.sql(&hide).await;
        let ended = weak().run_to_end();
        assert_eq!(ended.code, Some(3), "{}", ended.output);
        for word in ["public.t", "row level security", "BYPASSRLS", &role] {
            assert!(ended.output.contains(word), "no '{word}' in: {}", ended.output);
        }
        // A later policy does not empty a snapshot, either, and suspends no other table.
        site.sql("alter table t disable row level security").await;
        let _gateway = weak().start().await;
        assert_eq!(site.take_snapshot("t").await.rows.len(), 10);
        site.sql("alter table t enable row level security").await;
        assert!(snapshot::request(&site.broker, "t").await);
        let error = snapshot::wait_for_error(&site.broker, "t").await;
        for word in ["public.t", "row level security", "BYPASSRLS"] {
            assert!(error.message.contains(word), "no '{word}' in: {}", error.message);
        }
        assert_eq!(site.take_snapshot("other").await.rows.len(), 1);
        site.sql(&format!("alter role {role} bypassrls")).await;
        assert_eq!(site.take_snapshot("t").await.rows.len(), 10);
        drop(_gateway.stop());
        site.sql(&format!("drop owned by {role}; drop role {role}")).await;
    }

    /// The policies of a partition apply to readers of the partition. Readers of the root are
    /// subject to the root's policies.
    async fn row_security_of_partitions_hides_nothing(server) {
        let site = Site::new(&server).await;
        let role = format!("weak_{}", site.database.name());
        site.sql(&format!("create table t (id int primary key) partition by range (id);
                  create table t1 partition of t for values from (0) to (1000);
                  insert into t select generate_series(1, 10); alter table t1 enable row level security;
                  create publication walgate for table t with (publish_via_partition_root = true);
                  create role {role} login replication; grant select on t, t1 to {role}")).await;
        let as_role = site.database.url().replace("postgres@", &format!("{role}@"));
        let gateway = site.gateway(&["t"]).with_postgres_url(&as_role).start().await;
        assert_eq!(site.take_snapshot("t").await.rows.len(), 10);
        drop(gateway.stop());
        site.sql(&format!("drop owned by {role}; drop role {role}")).await;
    }
}

on_newest_postgres! {
    /// `pg_hba.conf` demands a weaker method than SCRAM; or the password requires channel binding
    /// without a channel.
    async fn every_password_method_works(server) {
        let hba = "host all clear 127.0.0.1/32 password
host all hashed 127.0.0.1/32 md5
host all bound 127.0.0.1/32 scram-sha-256";
        let site = Site::new(&Arc::new(Server::start_with_hba(server.bin(), &[], hba, &[]))).await;
        site.sql("create table t (id int primary key); create publication walgate for table t").await;
        make_role(&site, "clear").await;
        make_role(&site, "bound").await;
        site.sql("set password_encryption = 'md5'").await;
        make_role(&site, "hashed").await;
        for role in ["clear", "hashed", "bound"] {
            let url = url(&site.database, role, "127.0.0.1", "");
            site.gateway(&["t"]).with_postgres_url(&url).start().await.stop();
            assert_refused(&site, &format!("{url}channel_binding=require"), &["channel_binding", "scram-sha-256"]);
        }
    }

    /// A password in a file is tried until the file holds the right one. The process does not exit.
    async fn a_password_is_rotated(server) {
        let own = Server::start_with_hba(server.bin(), &[], "host all all 127.0.0.1/32 scram-sha-256", &[]);
        let site = Site::new(&Arc::new(own)).await;
        site.sql("create table t (id int primary key); create publication walgate for table t").await;
        make_role(&site, "reader").await;
        let file = site.folder().join("password");
        std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
        let source = url(&site.database, "reader", "127.0.0.1", "").replace(&format!(":{PASSWORD}"), "");
        let gateway = site.gateway(&["t"]).with_postgres_url(&source).set_env("POSTGRES_PASSWORD_FILE", file.display());
        let gateway = gateway.start().await;
        let replica = site.sqlite_replica(&["t"]);
        site.wait_until_equal(&replica, "t").await;
        site.sql("alter role reader password 'rotated-secret';
                  select pg_terminate_backend(pid) from pg_stat_activity where usename = 'reader'").await;
        wait_for_log(&gateway, "password authentication failed").await;
        wait_for_log(&gateway, "postgres.password_file is read again").await;
        site.sql("insert into t values (1)").await;
        std::fs::write(&file, "rotated-secret").unwrap();
        gateway.wait_until_ready().await;
        site.wait_until_equal(&replica, "t").await;
        let log = gateway.log();
        assert!(!log.contains(PASSWORD) && !log.contains("rotated-secret"), "the output has the password");
    }
}

async fn wait_for_log(gateway: &Gateway, words: &str) {
    eventually(format!("/readyz reports '{words}'"), async || match gateway.readyz()? {
        (503, body) if body["reason"].to_string().contains(words) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

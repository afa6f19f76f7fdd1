//! `walgate run` without `nats.url`, as in a first try. The gateway starts a private server, which
//! ends with it and keeps its streams in `data_dir`.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
};

use async_nats::jetstream::{self, stream::Info};
use walgate_servers::free_port;
use walgate_tests::{Site, eventually, on_newest_postgres, process};

async fn stream_info(url: &str, stream: &str) -> Info {
    let context = jetstream::new(async_nats::connect(url).await.expect("its server lets us in"));
    context.get_stream(stream).await.expect("the stream is there").cached_info().clone()
}

/// The local addresses that listen on the port, as the kernel prints them.
fn listening_addresses(port: u16) -> Vec<String> {
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap());
    let listens = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (address, here) = fields.next()?.split_once(':')?;
        let state = fields.nth(1)?;
        (state == "0A" && u16::from_str_radix(here, 16) == Ok(port)).then(|| address.to_owned())
    };
    tables.iter().flat_map(|table| table.lines()).filter_map(listens).collect()
}

fn check_port_is_free(port: u16) -> Result<(), String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop).map_err(|e| e.to_string())
}

on_newest_postgres! {
    async fn a_gateway_starts_its_own_nats_server(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key, v text); insert into t select i, md5(i::text) from generate_series(1, 1000) i").await;
        let port = free_port().unwrap();
        let url = format!("nats://127.0.0.1:{port}");
        let mut gateway = site.gateway(&["t"]).with_private_nats(port).start().await;
        assert_eq!(listening_addresses(port), ["0100007F"], "on 127.0.0.1 and nowhere else");
        assert!(gateway.log().contains(&url), "{}", gateway.log());
        let replica = site.sqlite_replica_with(&["t"], &[("WALGATE_NATS_URL".to_owned(), url.clone())]);
        site.wait_until_equal(&replica, "t").await;
        site.sql("update t set v = 'changed' where id % 3 = 0").await;
        site.wait_until_equal(&replica, "t").await;
        assert!(site.folder().join("gateway-data/nats/jetstream").is_dir());

        // After SIGKILL the gateway leaves no server behind that would hold the port. The next
        // gateway has the same streams.
        let changes = stream_info(&url, "CDC").await;
        let snapshots = stream_info(&url, "INIT").await;
        for n in 0..3 {
            gateway = gateway.kill9().start().await;
            site.sql(&format!("insert into t values (-{n}, 'after'); delete from t where id = {n} + 10")).await;
            site.wait_until_equal(&replica, "t").await;
        }
        let after = stream_info(&url, "CDC").await;
        assert_eq!((after.created, after.state.first_sequence), (changes.created, changes.state.first_sequence));
        assert!(after.state.last_sequence > changes.state.last_sequence);
        assert_eq!(stream_info(&url, "INIT").await.state.last_sequence, snapshots.state.last_sequence, "the copy was loaded again");

        // If only the server dies, the gateway restarts it.
        process::kill_children(gateway.program().pid());
        eventually("its end is noticed, with nothing to do", async || {
            let log = gateway.log();
            if log.contains("the private NATS server has ended") { Ok(()) } else { Err(log) }
        })
        .await;
        site.sql("insert into t values (4000, 'while its server was away')").await;
        site.wait_until_equal(&replica, "t").await;

        let stopped = gateway.stop();
        check_port_is_free(port).expect("the server has ended before the gateway");
        site.sql("insert into t values (5000, 'while it was away')").await;
        let gateway = stopped.start().await;
        site.wait_until_equal(&replica, "t").await;
        gateway.kill9();
        eventually("the server dies with the gateway", async || check_port_is_free(port)).await;
    }

    async fn a_taken_port_is_reported(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key)").await;
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let refused = site.gateway(&["t"]).with_private_nats(port).run_to_end();
        assert_eq!(refused.code, Some(3), "{}", refused.output);
        for part in [&format!("127.0.0.1:{port}"), "address already in use", "nats.url"] {
            assert!(refused.output.contains(part), "{part}: {}", refused.output);
        }
    }
}

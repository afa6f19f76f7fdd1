//! A client with the right to request snapshots sends too many requests, for unknown tables and on
//! malformed subjects. Well-behaved consumers are served all the same.

use std::{io::Write, net::TcpStream};

use walgate_tests::eventually;

use crate::{
    run::{Done, Run},
    stage::{Ending, Stage},
};

const REQUESTS: u64 = 10_000;

/// Subjects as bytes: every client library rejects some of them.
fn odd_subject(run: &Run, n: u64) -> Vec<u8> {
    const ODD: [&[u8]; 12] = [
        b"*",
        b">",
        b"a.b",
        b"a.*.>",
        b"..",
        b"\x01\x02\x1b[2J",
        b"\x7f\x00",
        b"=",
        b"=ZZ",
        b"=2Ebag",
        b"\xff\xfe\xc0",
        "\u{202e}gab\u{fffd}".as_bytes(),
    ];
    let token = match n % 10 {
        0 => b"bag".to_vec(),
        1 => b"users".to_vec(),
        2..6 => format!("no_such_table_{}", run.random_in(0..100_000)).into_bytes(),
        6 => b"no_such_table".to_vec(),
        7 => "long".repeat(run.random_in(1..200) as usize).into_bytes(),
        _ => ODD[run.random_in(0..ODD.len() as u64) as usize].to_vec(),
    };
    [b"snapshot.request.", &token[..]].concat()
}

/// Publishes without waiting for acknowledgements.
fn send_flood(run: &Run, stage: &Stage<'_>, requests: u64) {
    let url = stage.site.broker.server.url();
    let address = url.trim_start_matches("nats://").to_owned();
    let mut server = TcpStream::connect(&address).expect("NATS listens");
    let mut wire =
        b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"flood\",\"version\":\"0\"}\r\n"
            .to_vec();
    for n in 0..requests {
        wire.extend_from_slice(b"PUB ");
        wire.extend_from_slice(&odd_subject(run, n));
        wire.extend_from_slice(b" 0\r\n\r\n");
    }
    wire.extend_from_slice(b"PING\r\n");
    server.write_all(&wire).expect("NATS takes it");
    run.record_fault(format!("{requests} requests"));
    // When the server answers this, it has received everything before it.
    let mut answer = std::io::BufReader::new(server);
    let mut line = String::new();
    while std::io::BufRead::read_line(&mut answer, &mut line).is_ok_and(|read| read > 0) {
        if line.ends_with("PONG\r\n") {
            return;
        }
    }
    panic!("NATS closed the connection: {line}");
}

pub async fn requests(run: &Run) -> Done {
    let mut stage = run.stage().await;
    for _ in 0..run.pick(1, 5) {
        send_flood(run, &stage, REQUESTS);
        // Changes are not delayed.
        stage.wait_for_messages(20).await;
    }
    eventually("all requests are dealt with", async || {
        let requests = stage.site.broker.jetstream().get_stream("REQUESTS").await;
        let left = requests.map_err(|e| e.to_string())?.cached_info().state.messages;
        if left == 0 { Ok(()) } else { Err(format!("{left} are left")) }
    })
    .await;
    let served = stage.site.take_snapshot("bag").await;
    assert!(served.meta.row_count > 0);
    stage.add_newcomer();
    stage.settle(Ending::Whole).await
}

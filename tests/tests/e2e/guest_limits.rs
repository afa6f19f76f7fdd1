//! The limits of `[guests]`, each set below its default: they take effect, the log names them, and
//! guests within them run.

use std::time::Duration;

use walgate_tests::{
    Gateway, Site, eventually, native::judge, on_newest_postgres, site::guest_bytes,
};
use walgate_wire::TableState;

use crate::{
    guests::{state, wait_until_equal_to_view},
    misbehaviour::{ERRS, create, create_plain, wait_for_log, wait_until_others_flow},
};

/// A program, the row that exceeds its limit, and the text of the report.
const TOO_MUCH: [(&str, &str, &str); 3] = [
    ("hoards", "'bad'", "the limit is 4 MiB"),
    ("loops", "'bad'", "its process() took longer than 100 ms"),
    ("liar", "repeat('x', 70000)", "at most 65536 are allowed"),
];

/// The module, extended to this length by a custom section.
fn pad_module(mut module: Vec<u8>, bytes: usize) -> Vec<u8> {
    let content = bytes - module.len() - 6;
    let seven_bits = |n: usize| (content >> (7 * n)) as u8 & 0x7f;
    let length = (0..5).map(|n| if n < 4 { seven_bits(n) | 0x80 } else { seven_bits(n) });
    module.push(0);
    module.extend(length);
    // The section's name is empty.
    module.resize(bytes, 0);
    module
}

on_newest_postgres! {
    async fn memory_time_and_sizes_are_limited(server) {
        let site = Site::new(&server).await;
        create_plain(&site).await;
        let modules = TOO_MUCH.map(|(guest, ..)| guest_bytes(guest).len());
        let bytes_max = modules.into_iter().max().unwrap() + 100;
        let mut options = site.gateway(&["plain", "fits", "bulky"])
            .set_env("GUESTS_MEMORY_MIB", 4)
            .set_env("GUESTS_BATCH_MS", 100)
            .set_env("GUESTS_OUTPUT_BYTES", 65536)
            .set_env("GUESTS_MODULE_BYTES", bytes_max);
        for (guest, ..) in TOO_MUCH {
            create(&site, guest).await;
            site.drop_guest(guest, &format!("{guest}.wasm"));
            options = options.with_table(guest);
        }
        for (table, bytes) in [("fits", bytes_max), ("bulky", bytes_max + 1)] {
            create(&site, table).await;
            site.drop_file(&pad_module(guest_bytes("errs"), bytes), &format!("{table}.wasm"));
        }
        let gateway = options.start().await;
        let replica = site.sqlite_replica(&["plain", "fits", "bulky", "hoards", "loops", "liar"]);
        ERRS.wait_until_published(&site, &replica, "fits").await;
        let reason = state(&site, "bulky", TableState::Suspended).await.reason.unwrap();
        let expected = format!("it has {} bytes, at most {bytes_max} are allowed", bytes_max + 1);
        assert!(reason.contains(&expected), "{reason}");
        site.drop_guest("errs", "bulky.wasm");
        ERRS.wait_until_published(&site, &replica, "bulky").await;
        let judges = [judge::<hoards::hoards>, judge::<loops::loops>, judge::<liar::liar>];
        for ((guest, mood, error), judge) in TOO_MUCH.into_iter().zip(judges) {
            let before = site.run_guest_natively(judge, guest, "true").await;
            wait_until_equal_to_view(&site, &replica, &before, guest).await;
            site.sql(&format!("insert into {guest} (mood) values ({mood})")).await;
            state(&site, guest, TableState::Suspended).await;
            wait_for_log(&gateway, guest, error).await;
            wait_until_others_flow(&site, &replica).await;
            assert_eq!(site.find_differences_as(&replica, &before, guest).await, Ok(()), "a row passed");
        }
    }

    /// The limit is for one guest: a fresh instance after a failure gets no lines of its own.
    /// Omitted lines are counted.
    async fn log_lines_are_limited(server) {
        let site = Site::new(&server).await;
        create(&site, "t").await;
        site.drop_guest("floods", "t.wasm");
        let options = site.gateway(&["t"]).with_keys("t", "on_guest_error = 'drop'");
        let gateway = options.set_env("GUESTS_LOG_LINES_S", 1).set_env("GUESTS_BATCH_MS", 10_000).start().await;
        let replica = site.sqlite_replica(&["t"]);
        let judge = judge::<floods::floods>;
        let answered = "mood is distinct from 'worse'";
        wait_until_equal_to_view(&site, &replica, &site.run_guest_natively(judge, "t", answered).await, "t").await;
        // All rows in one call, then once more, then each row alone.
        const WORSE: usize = 8;
        site.sql(&format!("insert into t (mood) select 'worse' from generate_series(1, {WORSE}); insert into t (mood) values ('keep')")).await;
        wait_until_equal_to_view(&site, &replica, &site.run_guest_natively(judge, "t", answered).await, "t").await;
        // The first line of a later second has the number of omitted lines.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        site.sql("insert into t (mood) values ('bad')").await;
        wait_until_equal_to_view(&site, &replica, &site.run_guest_natively(judge, "t", answered).await, "t").await;
        let (written, left_out) = eventually("all lines are accounted for", async || {
            let (written, left_out) = count_logged_lines(&gateway);
            let logged = floods::LINES * (2 + WORSE);
            if written + left_out > logged { Ok((written, left_out)) } else { Err(format!("{written} + {left_out} of {logged}")) }
        })
        .await;
        assert!(written > 1 && 100 * written < left_out, "{written} lines are there, {left_out} are not");
        let (_, body) = gateway.readyz().unwrap();
        assert_eq!(body["tables"]["t"]["guest"]["failed"], WORSE, "{body}");
    }
}

/// The number of the guest's lines in the log, and the reported number of omitted lines.
fn count_logged_lines(gateway: &Gateway) -> (usize, usize) {
    let log = gateway.log();
    let is_of_guest = |line: &str| {
        line.contains("of a flood")
            || line.contains("drowned") && !line.contains("the guest's process")
    };
    let written = log.lines().filter(|line| is_of_guest(line)).count();
    let left_out = log.lines().filter_map(|line| {
        let number = line.split_once("suppressed=")?.1;
        number.split(|c: char| !c.is_ascii_digit()).next()?.parse::<usize>().ok()
    });
    (written, left_out.sum())
}

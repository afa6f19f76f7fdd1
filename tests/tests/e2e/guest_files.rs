//! Which files a gateway accepts as guests: pinned ones, and only from inside its folder. It
//! reports who else may write them.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use walgate_tests::{Gateway, Site, eventually, on_newest_postgres, site::guest_bytes};
use walgate_wire::TableState;

const TABLE: &str =
    "create table t (id int primary key, v text, mood text); insert into t values (1, 'a')";

async fn wait_until_refused(gateway: &Gateway, times: usize) {
    eventually("the file is refused", async || {
        let found = gateway.log().matches("guest refused").count();
        if found == times { Ok(()) } else { Err(format!("{found} refusals")) }
    })
    .await;
}

/// Waits until the table's guest is this file.
async fn wait_for_guest(site: &Site, file: &[u8]) {
    let expected = walgate_tests::credentials::sha256(file);
    eventually("the guest serves", async || match site.latest_schema("t").await {
        Some(schema) if schema.state != TableState::Suspended => match schema.guest {
            Some(guest) if guest.sha256 == expected => Ok(()),
            other => Err(format!("{other:?}")),
        },
        other => Err(format!("{other:?}")),
    })
    .await;
}

on_newest_postgres! {
    /// A file named after the table instead of its token would otherwise be ignored silently.
    async fn an_unused_file_is_reported(server) {
        let site = Site::new(&server).await;
        site.sql("create schema sales; create table sales.orders (id int primary key)").await;
        site.drop_file(&guest_bytes("identity"), "orders.wasm");
        let gateway = site.gateway(&["sales.orders"]).start().await;
        let named = |file: &str| {
            let log = gateway.log();
            let lines = log.lines().filter(|line| line.contains("no configured table uses"));
            lines.filter(|line| line.contains(file)).count()
        };
        assert_eq!(named("orders.wasm"), 1, "{}", gateway.log());
        assert_eq!(named("sales=2Eorders.wasm"), 1, "the expected name is logged");
        fs::write(site.dictionaries().join("order.zstd.dict"), "").unwrap();
        eventually("the dictionary is named", async || match named("order.zstd.dict") {
            1 => Ok(()),
            times => Err(format!("{times} times")),
        })
        .await;
    }

    async fn a_pinned_guest_is_loaded_from_its_file_only(server) {
        let site = Site::new(&server).await;
        site.sql(TABLE).await;
        let good = guest_bytes("identity");
        let other = guest_bytes("errs");
        let pin = format!("guest_sha256 = '{}'", walgate_tests::credentials::sha256(&good));
        // The table streams neither with another file nor without a file.
        let gateway = site.gateway(&["t"]).with_keys("t", &pin).start().await;
        let closed = async |why: &str| {
            eventually("the table is shut", async || match site.latest_schema("t").await {
                Some(schema) if schema.reason.as_deref().is_some_and(|reason| reason.contains(why)) => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .await;
        };
        closed("is not there").await;
        site.drop_file(&other, "t.wasm");
        wait_until_refused(&gateway, 1).await;
        assert!(gateway.log().contains("guest_sha256 accepts"), "{}", gateway.log());
        closed("guest_sha256 accepts").await;
        let replica = site.sqlite_replica(&["t"]);
        site.drop_file(&good, "t.wasm");
        wait_for_guest(&site, &good).await;
        site.wait_until_equal(&replica, "t").await;
        site.drop_file(&other, "t.wasm");
        wait_until_refused(&gateway, 2).await;
        site.sql("insert into t (id, v) values (2, 'b')").await;
        site.wait_until_equal(&replica, "t").await;
        wait_for_guest(&site, &good).await;
    }

    /// As with `rm` followed by `cp`.
    async fn a_briefly_missing_file_counts_as_replaced(server) {
        let site = Site::new(&server).await;
        site.sql(TABLE).await;
        let identity = guest_bytes("identity");
        let errs = guest_bytes("errs");
        site.drop_file(&identity, "t.wasm");
        let gateway = site.gateway(&["t"]).start().await;
        wait_for_guest(&site, &identity).await;
        fs::remove_file(site.folder().join("guests/t.wasm")).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        site.drop_file(&errs, "t.wasm");
        wait_for_guest(&site, &errs).await;
        assert!(!gateway.log().contains("suspended"), "{}", gateway.log());
    }

    async fn symlinks_may_not_leave_the_folder(server) {
        let site = Site::new(&server).await;
        site.sql(TABLE).await;
        let identity = guest_bytes("identity");
        let errs = guest_bytes("errs");
        let guests = site.folder().join("guests");
        // The layout of a ConfigMap in Kubernetes: t.wasm → ..data/t.wasm, ..data → a dated folder.
        for (dated, guest) in [("..2026_01", &identity), ("..2026_02", &errs)] {
            fs::create_dir(guests.join(dated)).unwrap();
            fs::write(guests.join(dated).join("t.wasm"), guest).unwrap();
        }
        symlink("..2026_01", guests.join("..data")).unwrap();
        symlink("..data/t.wasm", guests.join("t.wasm")).unwrap();
        // The folder itself may be a symlink.
        symlink(&guests, site.folder().join("mounted")).unwrap();
        let folder = site.folder().join("mounted");
        let gateway = site.gateway(&["t"]).set_env("GUESTS_DIR", folder.display()).start().await;
        wait_for_guest(&site, &identity).await;
        symlink("..2026_02", guests.join("..data_tmp")).unwrap();
        fs::rename(guests.join("..data_tmp"), guests.join("..data")).unwrap();
        wait_for_guest(&site, &errs).await;
        let outside = site.folder().join("outside.wasm");
        fs::write(&outside, &identity).unwrap();
        symlink(&outside, guests.join("new")).unwrap();
        fs::rename(guests.join("new"), guests.join("t.wasm")).unwrap();
        wait_until_refused(&gateway, 1).await;
        assert!(gateway.log().contains("leads out of the folder") && gateway.log().contains("outside.wasm"));
        wait_for_guest(&site, &errs).await;
        // A dictionary is not read from outside the folder, either.
        symlink(&outside, site.dictionaries().join("t.zstd.dict")).unwrap();
        eventually("the dictionary is refused", async || {
            let log = gateway.log();
            if log.contains("dictionary refused") { Ok(()) } else { Err(log) }
        })
        .await;
    }

    async fn files_writable_by_others_are_reported_once(server) {
        let site = Site::new(&server).await;
        site.sql(TABLE).await;
        site.drop_guest("identity", "t.wasm");
        let guests = site.folder().join("guests");
        fs::set_permissions(guests.join("t.wasm"), fs::Permissions::from_mode(0o666)).unwrap();
        let gateway = site.gateway(&["t"]).start().await;
        let named = |path: &str| gateway.log().lines().filter(|line| line.contains("others may write") && line.contains(path)).count();
        assert_eq!((named("guests/t.wasm"), named("guests ")), (1, 0), "{}", gateway.log());
        fs::set_permissions(&guests, fs::Permissions::from_mode(0o777)).unwrap();
        eventually("the folder is named", async || match named("guests ") {
            1 => Ok(()),
            other => Err(format!("{other} times")),
        })
        .await;
        // The gateway keeps watching the file.
        site.drop_guest("errs", "t.wasm");
        wait_for_guest(&site, &guest_bytes("errs")).await;
        assert_eq!((named("guests/t.wasm"), named("guests ")), (1, 1), "{}", gateway.log());
    }
}

//! Who may choose what decides and what compresses: pinned guests, and folders in which others have been.

use std::{os::unix::fs::PermissionsExt, process::Command};

use walgate_tests::{Gateway, eventually, on_newest_postgres, site};
use walgate_wire::{ChunkDigest, TableState, hex};

const USERS: &str = "create table users (id bigint primary key, email text not null, country char(2) not null,
        password_hash text not null default 'secret', phone text, about text);
    insert into users (id, email, country) select i, 'u' || i || '@example.org', 'DE' from generate_series(1, 50) i;
    create view admitted as select id, left(email, 1) || '***' || substr(email, position('@' in email)) email, country,
        phone, about from users where country = 'DE';";

async fn says(gateway: &Gateway, words: &str) {
    let what = format!("the gateway says '{words}'");
    eventually(what, async || {
        let log = gateway.log();
        if log.contains(words) { Ok(()) } else { Err(log) }
    })
    .await;
}

on_newest_postgres! {
    async fn a_pinned_guest_is_not_replaced(server) {
        let site = walgate_tests::Site::new(&server).await;
        site.sql(USERS).await;
        site.drop_guest("users_next", "users.wasm");
        let keys = format!("guest_sha256 = '{}'", hex(&ChunkDigest::of(&site::wasm("users"))));
        let gateway = site.gateway(&["users"]).keys("users", &keys).start().await;
        says(&gateway, "tables.guest_sha256 accepts another one only").await;
        let shut = async || match site.schema("users").await {
            Some(schema) if schema.state == TableState::Suspended => Ok(schema),
            other => Err(format!("{other:?}")),
        };
        let reason = eventually("the table does not flow", shut).await.reason.unwrap();
        assert!(reason.contains("guest_sha256"), "{reason}");
        site.drop_guest("users", "users.wasm");
        let replica = site.sqlite(&["users"]);
        let shows = async || site.differences_as(&replica, "admitted", "users").await;
        eventually("the one that was meant filters", shows).await;
        // The next one lets other rows and columns through; it never gets to.
        site.drop_guest("users_next", "users.wasm");
        eventually("it is refused again", async || {
            let refused = gateway.log().matches("accepts another one only").count();
            if refused >= 2 { Ok(()) } else { Err(format!("{refused} times")) }
        })
        .await;
        site.sql("insert into users (id, email, country) values (51, 'x@example.org', 'DE')").await;
        eventually("the one that was meant still filters", shows).await;
    }

    async fn pipes_are_not_waited_for_and_open_doors_are_named(server) {
        let site = walgate_tests::Site::new(&server).await;
        site.sql(USERS).await;
        let folder = site.dictionaries();
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        let pipe = folder.join("users.zstd.dict");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let gateway = site.gateway(&["users"]).start().await;
        says(&gateway, "everybody on this machine may write into the folder").await;
        says(&gateway, "it is not a file").await;
        let replica = site.sqlite(&["users"]);
        site.same(&replica, "users").await;
    }
}

//! Guests of tables whose shape changes.

use walgate_tests::{Site, eventually, on_newest_postgres};
use walgate_wire::TableState;

use crate::guests::{state, wait_until_equal_to_view};

on_newest_postgres! {
    /// First a migration, then the guest written for it, and only then a row of the new shape.
    async fn a_guest_for_a_new_shape_waits_for_its_first_row(server) {
        let site = Site::new(&server).await;
        site.sql("create table t (id int primary key, email text not null, password_hash text)").await;
        site.drop_guest("identity", "t.wasm");
        let gateway = site.gateway(&["t"]).with_keys("t", "on_guest_change = 'reseed'").start().await;
        let replica = site.sqlite_replica(&["t"]);
        site.sql("insert into t values (1, 'ada@example.org', 'x')").await;
        site.wait_until_equal(&replica, "t").await;
        site.sql("alter table t add country char(2) not null default 'DE';
            create view admitted as select id, left(email, 1) || '***' || substr(email, position('@' in email)) email, country
              from t where country = 'DE'").await;
        site.drop_guest("users", "t.wasm");
        eventually("the guest waits", async || match gateway.log() {
            log if log.contains("waits for rows of the shape that the table has now") => Ok(()),
            log => Err(log),
        })
        .await;
        let served = state(&site, "t", TableState::Live).await;
        assert_eq!(served.guest.expect("a guest").name, "identity");
        site.sql("insert into t values (2, 'bob@example.org', 'y', 'FR'), (3, 'cy@example.org', 'z', 'DE')").await;
        wait_until_equal_to_view(&site, &replica, "admitted", "t").await;
        assert!(!gateway.log().contains("table suspended"), "{}", gateway.log());
    }
}

//! Random DML and DDL from a seed, while gateway and consumers are killed at random points.
//!
//! `WALGATE_TEST_SEEDS=1,2,3` runs other seeds, `WALGATE_TEST_STEPS=2000` longer.

use walgate_tests::{
    Audit, Database, Site, on_each_postgres,
    workload::{Generator, seeds, steps},
};

on_each_postgres! {
    async fn random_writes_with_kills(server) {
        for seed in seeds(&[1, 2]) {
            eprintln!("seed {seed}");
            run(&server, seed, 0.0).await;
        }
    }

    async fn random_writes_and_ddl_with_kills(server) {
        for seed in seeds(&[101, 102]) {
            eprintln!("seed {seed}");
            run(&server, seed, 0.07).await;
        }
    }
}

async fn run(server: &std::sync::Arc<walgate_tests::Server>, seed: u64, ddl: f64) {
    let site = Site::new(server).await;
    let copy = Database::create(server).await;
    site.sql(Generator::create()).await;
    let tables = Generator::TABLES;
    let mut random = Generator::new(seed);
    for _ in 0..20 {
        site.sql(&random.transaction()).await;
    }
    let mut gateway = site.gateway(&tables).set("SNAPSHOT_CHUNK_BYTES", 65536).start().await;
    let audit = Audit::begin(&site.database).await;
    let mut sqlite = site.sqlite(&tables);
    let mut postgres = site.postgres(&copy, &tables);
    for step in 0..steps(250) {
        if random.chance(ddl) {
            site.sql(&random.ddl()).await;
        }
        site.sql(&random.transaction()).await;
        match random.below(300) {
            0..8 => gateway = gateway.kill9().spawn(),
            8..16 => sqlite.start_again(),
            16..24 => postgres.start_again(),
            24..34 => drop(gateway.ready().await),
            34..40 => {
                for table in tables {
                    site.same(&sqlite, table).await;
                    site.same(&postgres, table).await;
                }
                eprintln!("seed {seed}: equal after step {step}");
            }
            _ => {}
        }
    }
    for table in tables {
        site.same(&sqlite, table).await;
        site.same(&postgres, table).await;
    }
    let names: Vec<_> = tables.iter().map(|table| (*table, *table)).collect();
    audit.assert_stream_is_exact(&site, &names).await;
    drop(gateway);
}

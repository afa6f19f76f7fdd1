//! Authentication at NATS. Each kind of credentials works end to end, and wrong ones are refused
//! with the remedy. The documented permissions allow nothing else.

use std::{fs, sync::Arc};

use async_nats::ConnectOptions;
use walgate_servers::NatsOptions;
use walgate_tests::{
    Broker, Server, Site,
    credentials::{Certificates, Operator},
    gateway::GatewayOptions,
    on_newest_postgres, program,
};

/// Settings of [nats], without `WALGATE_NATS_`.
type Settings<'a> = &'a [(&'a str, &'a str)];

const PASSWORD: &str = "hunter2-s3cret";

async fn site(server: &Arc<Server>, config: &str, observer: ConnectOptions) -> Site {
    let options = NatsOptions { extra_config: config.to_owned(), ..NatsOptions::default() };
    let site = Site::with_broker(server, Broker::start_as(options, observer).await).await;
    site.sql("create table t (id int primary key, v text); insert into t values (1, 'before')")
        .await;
    site
}

fn env(settings: Settings) -> Vec<(String, String)> {
    let named = |(key, value): &(&str, &str)| (format!("WALGATE_NATS_{key}"), (*value).to_owned());
    settings.iter().map(named).collect()
}

fn gateway(site: &Site, settings: Settings) -> GatewayOptions {
    let gateway = site.gateway(&["t"]).set_env("LOG", "debug");
    settings
        .iter()
        .fold(gateway, |gateway, (key, value)| gateway.set_env(&format!("NATS_{key}"), value))
}

/// Gateway and replica connect with these settings: the source's rows arrive, and no log holds a
/// secret.
async fn assert_works(site: &Site, settings: Settings<'_>) {
    let gateway = gateway(site, settings).start().await;
    let replica = site.sqlite_replica_with(&["t"], &env(settings));
    site.wait_until_equal(&replica, "t").await;
    site.sql("insert into t select coalesce(max(id), 0) + 1, 'after' from t").await;
    site.wait_until_equal(&replica, "t").await;
    for log in [gateway.log(), replica.log()] {
        assert!(!log.contains(PASSWORD), "the output has the password: {log}");
    }
    gateway.stop();
}

/// Neither gateway nor consumer can connect, and both report the reason.
fn assert_refused(site: &Site, settings: Settings, code: i32, words: &[&str]) {
    // Programs append to their logs.
    let _ = fs::remove_file(site.folder().join("refused.log"));
    let gateway = gateway(site, settings).with_name("refused").run_to_end();
    let mut env = env(settings);
    env.insert(0, ("WALGATE_NATS_URL".to_owned(), site.broker.url()));
    let consumer = program::run_with("walgate", &["tail", "t"], &env);
    let consumer_output = String::from_utf8_lossy(&consumer.stderr).into_owned();
    for (output, answered) in
        [(&gateway.output, gateway.code), (&consumer_output, consumer.status.code())]
    {
        for word in words {
            assert!(output.contains(word), "no '{word}' in: {output}");
        }
        assert!(!output.contains(PASSWORD), "the output has the password: {output}");
        assert_eq!(answered, Some(code), "{output}");
    }
}

on_newest_postgres! {
    async fn mutual_tls(server) {
        let folder = tempfile::tempdir().unwrap();
        let ours = Certificates::make(folder.path(), "ours");
        let others = Certificates::make(folder.path(), "others");
        let [ca, cert, key] = ["ca.pem", "client.pem", "client.key"].map(|name| ours.file(name));
        let config = format!("tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {ca:?}, verify: true }}",
            ours.file("server.pem"), ours.file("server.key"));
        let observer = ConnectOptions::new().require_tls(true).add_root_certificates(ca.clone().into())
            .add_client_certificate(cert.clone().into(), key.clone().into());
        let site = site(&server, &config, observer).await;
        let url = site.broker.url().replace("nats://", "tls://");
        assert_works(&site, &[("URL", &url), ("CA_FILE", &ca), ("CERT_FILE", &cert), ("KEY_FILE", &key)]).await;
        let other = others.file("ca.pem");
        assert_refused(&site, &[("CA_FILE", &other), ("CERT_FILE", &cert), ("KEY_FILE", &key)], 3,
            &["certificate that is not signed by", &other, "nats.ca_file"]);
        assert_refused(&site, &[("URL", &url), ("CA_FILE", &ca)], 3, &["wants one that is signed", "nats.cert_file"]);
        let cert = others.file("client.pem");
        let key = others.file("client.key");
        assert_refused(&site, &[("CA_FILE", &ca), ("CERT_FILE", &cert), ("KEY_FILE", &key)], 3, &["nats.cert_file", &cert]);
        assert_refused(&site, &[("CA_FILE", "/no/such/ca.pem")], 2, &["nats.ca_file", "/no/such/ca.pem"]);
    }

    /// With TLS required, gateway and consumer refuse a server that offers none.
    async fn tls_is_never_downgraded(server) {
        let site = site(&server, "", ConnectOptions::new()).await;
        assert_refused(&site, &[("TLS", "true"), ("TOKEN", PASSWORD)], 3, &["does not speak TLS"]);
    }

    async fn user_and_password(server) {
        let config = format!("authorization {{ user: gate, password: {PASSWORD:?} }}");
        let observer = ConnectOptions::new().user_and_password("gate".into(), PASSWORD.into());
        let site = site(&server, &config, observer).await;
        let file = site.folder().join("password");
        fs::write(&file, format!("{PASSWORD}\n")).unwrap();
        assert_works(&site, &[("USER", "gate"), ("PASSWORD_FILE", file.to_str().unwrap())]).await;
        let with = |user: &str| site.broker.url().replace("nats://", &format!("nats://{user}@"));
        assert_works(&site, &[("URL", &with(&format!("gate:{PASSWORD}")))]).await;
        let wrong = with(&format!("gate:{PASSWORD}-not"));
        assert_refused(&site, &[("URL", &wrong)], 3, &["user 'gate'", "Authorization Violation", "check user and password"]);
        assert_refused(&site, &[], 3, &["without credentials", "Authorization Violation", "nats.creds_file"]);
        assert_refused(&site, &[("USER", "gate")], 2, &["nats.password"]);
    }

    async fn a_token(server) {
        let config = format!("authorization {{ token: {PASSWORD:?} }}");
        let site = site(&server, &config, ConnectOptions::new().token(PASSWORD.into())).await;
        assert_works(&site, &[("TOKEN", PASSWORD)]).await;
        assert_refused(&site, &[("TOKEN", &format!("{PASSWORD}-not"))], 3, &["refuses the token", "Authorization Violation"]);
    }

    async fn an_nkey(server) {
        let key = nkeys::KeyPair::new_user();
        let seed = key.seed().unwrap();
        let config = format!("authorization {{ users: [ {{ nkey: {} }} ] }}", key.public_key());
        let site = site(&server, &config, ConnectOptions::new().nkey(seed.clone())).await;
        let file = site.folder().join("gate.nk").display().to_string();
        fs::write(&file, &seed).unwrap();
        assert_works(&site, &[("NKEY_FILE", &file)]).await;
        let other = nkeys::KeyPair::new_user();
        fs::write(&file, other.seed().unwrap()).unwrap();
        assert_refused(&site, &[("NKEY_FILE", &file)], 3, &[&other.public_key(), &file, "Authorization Violation"]);
        fs::write(&file, "SUnothing").unwrap();
        assert_refused(&site, &[("NKEY_FILE", &file)], 2, &["nats.nkey_file", &file, "no seed"]);
    }

    async fn credentials(server) {
        let operator = Operator::default();
        let observer = ConnectOptions::with_credentials(&operator.issue_user("observer")).unwrap();
        let site = site(&server, &operator.server_config(), observer).await;
        let file = site.folder().join("gate.creds").display().to_string();
        fs::write(&file, operator.issue_user("gate")).unwrap();
        assert_works(&site, &[("CREDS_FILE", &file)]).await;
        fs::write(&file, operator.issue_expiring_user("gate", Some(1_700_000_001))).unwrap();
        assert_refused(&site, &[("CREDS_FILE", &file)], 3, &[&file, "expired", "credentials of"]);
        fs::write(&file, Operator::default().issue_user("stranger")).unwrap();
        assert_refused(&site, &[("CREDS_FILE", &file)], 3, &[&file, "Authorization Violation"]);
        assert_refused(&site, &[("CREDS_FILE", &file), ("TOKEN", "x")], 2, &["nats.creds_file", "nats.token", "keep one"]);
    }
}

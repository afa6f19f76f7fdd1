//! Settings that work, settings that cannot, and secrets that must not be shown.

use std::{fs, path::PathBuf};

use crate::{NatsOptions, connect::first_address};

fn error_of(options: &NatsOptions) -> String {
    options.build_connector().unwrap_err().to_string()
}

#[test]
fn secrets_are_taken_out_of_addresses() {
    let options = NatsOptions::from("nats://u:hunter%402@a:1, tls://b:2");
    let connector = options.build_connector().unwrap();
    assert_eq!(connector.identity.to_string(), "user 'u'");
    let debug = format!("{options:?} {connector:?}");
    assert!(!debug.contains("hunter"), "{debug}");
    assert_eq!(first_address(&connector.servers), "a:1");
    assert!(connector.servers.iter().all(|server| !format!("{server:?}").contains("hunter")));
    let token = NatsOptions::from("nats://hunter2@a:1").build_connector().unwrap();
    assert_eq!(token.identity.to_string(), "the token");
    assert!(!format!("{token:?}").contains("hunter2"));
    assert!(!error_of(&NatsOptions::from("nats://u:hunter2@a:port")).contains("hunter2"));
}

#[test]
fn a_setting_that_cannot_work_is_named_without_its_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        Some(path)
    };
    let base = || NatsOptions::from("nats://a:1");
    let none = Some(PathBuf::from("/no/such/file"));
    let said = error_of(&NatsOptions { nkey_file: none.clone(), ..base() });
    assert!(said.contains("nats.nkey_file") && said.contains("/no/such/file"), "{said}");
    let seed = nkeys::KeyPair::new_account().seed().unwrap();
    let said = error_of(&NatsOptions { nkey_file: file("a.nk", &seed), ..base() });
    assert!(said.contains("a.nk") && said.contains("SU") && !said.contains(&seed), "{said}");
    let said = error_of(&NatsOptions { nkey_file: file("b.nk", "hunter2"), ..base() });
    assert!(said.contains("no seed") && !said.contains("hunter2"), "{said}");
    let said = error_of(&NatsOptions { creds_file: file("c.creds", &seed), ..base() });
    assert!(said.contains("nats.creds_file") && said.contains("NATS USER JWT"), "{said}");
    let both = NatsOptions { nkey_file: none.clone(), creds_file: none.clone(), ..base() };
    assert!(
        error_of(&both).contains("nats.nkey_file") && error_of(&both).contains("nats.creds_file")
    );
    let twice = NatsOptions { user: Some("u".into()), ..NatsOptions::from("nats://token@a:1") };
    assert!(error_of(&twice).contains("nats.url"), "{}", error_of(&twice));
    assert!(error_of(&NatsOptions { user: Some("u".into()), ..base() }).contains("nats.password"));
    assert!(error_of(&NatsOptions { ca_file: none.clone(), ..base() }).contains("nats.ca_file"));
    assert!(
        error_of(&NatsOptions { ca_file: file("ca.pem", "x"), ..base() })
            .contains("no certificate")
    );
    assert!(error_of(&NatsOptions { cert_file: none.clone(), ..base() }).contains("nats.key_file"));
    assert!(error_of(&NatsOptions { key_file: none, ..base() }).contains("nats.cert_file"));
    assert!(error_of(&NatsOptions { inbox_prefix: Some("a.*".into()), ..base() }).contains("a.*"));
}

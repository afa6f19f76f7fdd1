//! The least NATS permissions of gateway, consumers and operators: subjects, by the configuration.
//!
//! Pure. The output is in the format of nats-server's configuration: `walgate nats permissions`
//! prints it.

use std::fmt;

use walgate_wire::{
    Token,
    buckets::{DICTIONARIES_PREFIX, DICTIONARIES_STREAM, SCHEMAS_PREFIX, SCHEMAS_STREAM},
    subjects,
};

use crate::{
    config::{Config, ConfiguredTable, NatsConfig},
    jetstream::{requests, tail},
};

/// The subjects of one user. Replies need no permission to publish: the server sends them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    pub name: String,
    pub publish: Vec<String>,
    pub subscribe: Vec<String>,
}

const INBOX: &str = "_INBOX";

/// All of the gateway's streams, buckets included.
fn stream_names(nats: &NatsConfig) -> [&str; 6] {
    let NatsConfig { cdc, init, requests, dlq, .. } = nats;
    [&cdc.name, &init.name, requests, &dlq.name, SCHEMAS_STREAM, DICTIONARIES_STREAM]
}

/// `$JS.API.{call}.{stream}` for each.
fn api_subjects<'a>(call: &str, streams: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    streams.into_iter().map(|stream| format!("$JS.API.{call}.{stream}")).collect()
}

fn inbox_subjects(prefix: Option<&str>) -> Vec<String> {
    vec![format!("{}.>", prefix.unwrap_or(INBOX))]
}

/// Permissions of `walgate run`.
pub fn gateway(nats: &NatsConfig) -> Permissions {
    let all = stream_names(nats);
    let (cdc, init) = (&*nats.cdc.name, &*nats.init.name);
    let own = format!("{}.{}", nats.requests, requests::CONSUMER);
    let end = format!("{cdc}.{}", tail::CONSUMER);
    let mut publish =
        [subjects::CDC_ALL, subjects::INIT_ALL, subjects::DLQ_ALL].map(str::to_owned).to_vec();
    publish.extend([SCHEMAS_PREFIX, DICTIONARIES_PREFIX].map(|prefix| format!("{prefix}>")));
    publish.extend(api_subjects("STREAM.INFO", all));
    if nats.create {
        publish.extend(api_subjects("STREAM.CREATE", all));
        publish.extend(api_subjects("STREAM.UPDATE", all));
    }
    publish
        .extend(api_subjects("STREAM.MSG.GET", [cdc, init, SCHEMAS_STREAM, DICTIONARIES_STREAM]));
    publish.extend(api_subjects("STREAM.PURGE", [init]));
    for call in ["CREATE", "INFO", "DELETE", "MSG.NEXT"] {
        publish.extend(api_subjects(&format!("CONSUMER.{call}"), [&*own]));
    }
    for call in ["CREATE", "DELETE", "MSG.NEXT"] {
        publish.extend(api_subjects(&format!("CONSUMER.{call}"), [&*end]));
    }
    publish.push(format!("$JS.ACK.{own}.>"));
    let prefix = nats.access.as_ref().and_then(|access| access.inbox_prefix.as_deref());
    Permissions { name: "walgate_gateway".to_owned(), publish, subscribe: inbox_subjects(prefix) }
}

/// Permissions of `walgate nats setup`, with `WALGATE_NATS_INBOX_PREFIX=_INBOX_administrator`. They
/// are what [`gateway`] lacks if `nats.create` is false.
pub fn administrator(nats: &NatsConfig) -> Permissions {
    let all = stream_names(nats);
    let calls = ["STREAM.INFO", "STREAM.CREATE", "STREAM.UPDATE"];
    let publish = calls.iter().flat_map(|call| api_subjects(call, all)).collect();
    let own = format!("{INBOX}_administrator");
    Permissions {
        name: "walgate_administrator".to_owned(),
        publish,
        subscribe: inbox_subjects(Some(&own)),
    }
}

/// Permissions of a consumer of these tables. Its replies arrive at `_INBOX_{name}`, which no other
/// user may read.
pub fn consumer<'a>(
    nats: &NatsConfig,
    name: &str,
    tables: impl IntoIterator<Item = &'a Token>,
) -> Permissions {
    let (cdc, init) = (&*nats.cdc.name, &*nats.init.name);
    let read = [cdc, init, SCHEMAS_STREAM];
    let below = read.map(|stream| format!("{stream}.>"));
    let below = || below.iter().map(String::as_str);
    let mut publish: Vec<String> = tables.into_iter().map(subjects::snapshot_request).collect();
    publish.extend(api_subjects("STREAM.INFO", read));
    publish.extend(api_subjects("STREAM.MSG.GET", [init, SCHEMAS_STREAM, DICTIONARIES_STREAM]));
    publish.extend(api_subjects("CONSUMER.CREATE", read));
    publish.extend(api_subjects("CONSUMER.CREATE", below()));
    publish.extend(api_subjects("CONSUMER.MSG.NEXT", below()));
    let own = format!("{INBOX}_{name}");
    Permissions { name: format!("walgate_{name}"), publish, subscribe: inbox_subjects(Some(&own)) }
}

/// Permissions of `walgate dlq`.
pub fn operator(nats: &NatsConfig) -> Permissions {
    let dlq = &*nats.dlq.name;
    let below = format!("{dlq}.>");
    let mut publish = api_subjects("STREAM.INFO", [dlq]);
    publish.extend(api_subjects("CONSUMER.CREATE", [dlq, &*below]));
    publish.extend(api_subjects("CONSUMER.MSG.NEXT", [&*below]));
    let own = format!("{INBOX}_operator");
    Permissions {
        name: "walgate_operator".to_owned(),
        publish,
        subscribe: inbox_subjects(Some(&own)),
    }
}

/// The exports of the gateway's account and the imports of a consumer's account. There, JetStream's
/// API is at [`IMPORTED_API`]. Only requests and their replies cross accounts, so another account
/// can write nothing but snapshot requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountExports(Vec<String>);

/// The account of the gateway.
const ACCOUNT: &str = "WALGATE";
/// The `--nats-api-prefix` of consumers in another account.
pub const IMPORTED_API: &str = "WALGATE.API";
const API: &str = "$JS.API";

pub fn account_exports<'a>(
    nats: &NatsConfig,
    tables: impl IntoIterator<Item = &'a Token>,
) -> AccountExports {
    AccountExports(consumer(nats, "", tables).publish)
}

impl fmt::Display for AccountExports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AccountExports(subjects) = self;
        writeln!(f, "walgate_exports: [")?;
        for subject in subjects {
            // One request, many messages.
            let stream =
                if subject.contains(".MSG.NEXT.") { ", response_type: stream" } else { "" };
            writeln!(f, "  {{ service: \"{subject}\"{stream} }}")?;
        }
        writeln!(f, "]\nwalgate_imports: [")?;
        for subject in subjects {
            let to = subject.replacen(API, IMPORTED_API, 1);
            writeln!(
                f,
                "  {{ service: {{ account: {ACCOUNT}, subject: \"{subject}\" }}, to: \"{to}\" }}"
            )?;
        }
        writeln!(f, "]")
    }
}

/// All permissions if every user is in one account.
pub fn one_account(config: &Config, consumers: &[String]) -> String {
    let Config { nats, tables, .. } = config;
    let tokens = || tables.iter().map(|ConfiguredTable { token, .. }| token);
    let consumers = consumers.iter().map(|name| consumer(nats, name, tokens()).to_string());
    print_operators(nats) + &consumers.collect::<String>()
}

/// All permissions if the gateway and its operators share an account, and consumers have others.
pub fn several_accounts(config: &Config) -> String {
    let Config { nats, tables, .. } = config;
    let exports = account_exports(nats, tables.iter().map(|ConfiguredTable { token, .. }| token));
    print_operators(nats) + &exports.to_string()
}

fn print_operators(nats: &NatsConfig) -> String {
    let mut all = vec![gateway(nats)];
    all.extend((!nats.create).then(|| administrator(nats)));
    all.push(operator(nats));
    all.iter().map(Permissions::to_string).collect()
}

/// A variable of nats-server's configuration, for `permissions: $name`.
impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Permissions { name, publish, subscribe } = self;
        writeln!(f, "{name}: {{")?;
        for (what, subjects) in [("publish", publish), ("subscribe", subscribe)] {
            writeln!(f, "  {what}: [")?;
            subjects.iter().try_for_each(|subject| writeln!(f, "    \"{subject}\""))?;
            writeln!(f, "  ]")?;
        }
        writeln!(f, "}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/NATS.md shows what is printed.
    #[test]
    fn the_page_shows_what_is_printed() {
        let text = r#"
            [postgres]
            url = "postgres://x/y"
            [nats]
            url = "nats://x"
            inbox_prefix = "_INBOX_gateway"
            [[tables]]
            name = "public.users"
            [[tables]]
            name = "sales.orders""#;
        let config = Config::read("walgate.toml", text, std::iter::empty()).unwrap();
        let page = include_str!("../../../docs/NATS.md");
        let one = one_account(&config, &["consumer".to_owned()]);
        assert!(page.contains(&one), "docs/NATS.md does not show:\n{one}");
        let exports = account_exports(&config.nats, config.tables.iter().map(|table| &table.token))
            .to_string();
        assert!(page.contains(&exports), "docs/NATS.md does not show:\n{exports}");
    }
}

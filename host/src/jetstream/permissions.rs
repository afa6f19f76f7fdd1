//! What the server has to allow gateway, consumers and operators, and nothing else: subjects, by the configuration.
//!
//! Pure. How a server is told is in nats-server's own format, which `walgate nats permissions` prints.

use std::fmt;

use walgate_wire::{
    Token,
    buckets::{DICTIONARIES_PREFIX, DICTIONARIES_STREAM, SCHEMAS_PREFIX, SCHEMAS_STREAM},
    subjects,
};

use crate::{
    config::{Config, ConfiguredTable, NatsConfig},
    jetstream::tail,
    snapshot::requests,
};

/// Who publishes the answers that somebody waits for need not be allowed: the server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    pub name: String,
    pub publish: Vec<String>,
    pub subscribe: Vec<String>,
}

const INBOX: &str = "_INBOX";

/// Of all of the gateway's streams, buckets included.
fn streams(nats: &NatsConfig) -> [&str; 6] {
    let NatsConfig { cdc, init, requests, dlq, .. } = nats;
    [&cdc.name, &init.name, requests, &dlq.name, SCHEMAS_STREAM, DICTIONARIES_STREAM]
}

/// `$JS.API.{call}.{stream}` for each.
fn api<'a>(call: &str, streams: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    streams.into_iter().map(|stream| format!("$JS.API.{call}.{stream}")).collect()
}

fn inbox(prefix: Option<&str>) -> Vec<String> {
    vec![format!("{}.>", prefix.unwrap_or(INBOX))]
}

/// For `walgate run`.
pub fn gateway(nats: &NatsConfig) -> Permissions {
    let all = streams(nats);
    let (cdc, init) = (&*nats.cdc.name, &*nats.init.name);
    let own = format!("{}.{}", nats.requests, requests::CONSUMER);
    let end = format!("{cdc}.{}", tail::CONSUMER);
    let mut publish =
        [subjects::CDC_ALL, subjects::INIT_ALL, subjects::DLQ_ALL].map(str::to_owned).to_vec();
    publish.extend([SCHEMAS_PREFIX, DICTIONARIES_PREFIX].map(|prefix| format!("{prefix}>")));
    publish.extend(api("STREAM.INFO", all));
    if nats.create {
        publish.extend(api("STREAM.CREATE", all));
        publish.extend(api("STREAM.UPDATE", all));
    }
    publish.extend(api("STREAM.MSG.GET", [cdc, init, SCHEMAS_STREAM, DICTIONARIES_STREAM]));
    publish.extend(api("STREAM.PURGE", [init]));
    for call in ["CREATE", "INFO", "DELETE", "MSG.NEXT"] {
        publish.extend(api(&format!("CONSUMER.{call}"), [&*own]));
    }
    for call in ["CREATE", "DELETE", "MSG.NEXT"] {
        publish.extend(api(&format!("CONSUMER.{call}"), [&*end]));
    }
    publish.push(format!("$JS.ACK.{own}.>"));
    let prefix = nats.access.as_ref().and_then(|access| access.inbox_prefix.as_deref());
    Permissions { name: "walgate_gateway".to_owned(), publish, subscribe: inbox(prefix) }
}

/// For `walgate nats setup`, once, with `WALGATE_NATS_INBOX_PREFIX=_INBOX_administrator`: what `gateway` lacks where `nats.create` is false.
pub fn administrator(nats: &NatsConfig) -> Permissions {
    let all = streams(nats);
    let calls = ["STREAM.INFO", "STREAM.CREATE", "STREAM.UPDATE"];
    let publish = calls.iter().flat_map(|call| api(call, all)).collect();
    let own = format!("{INBOX}_administrator");
    Permissions { name: "walgate_administrator".to_owned(), publish, subscribe: inbox(Some(&own)) }
}

/// For whoever keeps copies of these tables. Its answers come to `_INBOX_{name}`, which nobody else may read.
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
    publish.extend(api("STREAM.INFO", read));
    publish.extend(api("STREAM.MSG.GET", [init, SCHEMAS_STREAM, DICTIONARIES_STREAM]));
    publish.extend(api("CONSUMER.CREATE", read));
    publish.extend(api("CONSUMER.CREATE", below()));
    publish.extend(api("CONSUMER.MSG.NEXT", below()));
    let own = format!("{INBOX}_{name}");
    Permissions { name: format!("walgate_{name}"), publish, subscribe: inbox(Some(&own)) }
}

/// For `walgate dlq`.
pub fn operator(nats: &NatsConfig) -> Permissions {
    let dlq = &*nats.dlq.name;
    let below = format!("{dlq}.>");
    let mut publish = api("STREAM.INFO", [dlq]);
    publish.extend(api("CONSUMER.CREATE", [dlq, &*below]));
    publish.extend(api("CONSUMER.MSG.NEXT", [&*below]));
    let own = format!("{INBOX}_operator");
    Permissions { name: "walgate_operator".to_owned(), publish, subscribe: inbox(Some(&own)) }
}

/// What the account of the gateway exports and an account of consumers imports; JetStream is asked there under
/// [`IMPORTED_API`]. Answers cross over as answers only: from another account nothing can be written but requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared(Vec<String>);

/// The account of the gateway.
const ACCOUNT: &str = "WALGATE";
/// What consumers of another account give as `--nats-api-prefix`.
pub const IMPORTED_API: &str = "WALGATE.API";
const API: &str = "$JS.API";

pub fn shared<'a>(nats: &NatsConfig, tables: impl IntoIterator<Item = &'a Token>) -> Shared {
    Shared(consumer(nats, "", tables).publish)
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared(subjects) = self;
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

/// For users of one account.
pub fn one_account(config: &Config, consumers: &[String]) -> String {
    let Config { nats, tables, .. } = config;
    let tokens = || tables.iter().map(|ConfiguredTable { token, .. }| token);
    let consumers = consumers.iter().map(|name| consumer(nats, name, tokens()).to_string());
    operators(nats) + &consumers.collect::<String>()
}

/// For an account of the gateway and its operators, and others of consumers.
pub fn several_accounts(config: &Config) -> String {
    let Config { nats, tables, .. } = config;
    let shared = shared(nats, tables.iter().map(|ConfiguredTable { token, .. }| token));
    operators(nats) + &shared.to_string()
}

fn operators(nats: &NatsConfig) -> String {
    let mut all = vec![gateway(nats)];
    all.extend((!nats.create).then(|| administrator(nats)));
    all.push(operator(nats));
    all.iter().map(Permissions::to_string).collect()
}

/// As nats-server's configuration has it: a variable, for `permissions: $name`.
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
        let shared =
            shared(&config.nats, config.tables.iter().map(|table| &table.token)).to_string();
        assert!(page.contains(&shared), "docs/NATS.md does not show:\n{shared}");
    }
}

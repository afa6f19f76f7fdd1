//! A stand-in for the gateway: its streams and buckets, a source kept in memory, snapshots on
//! request.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::{
    HeaderMap,
    jetstream::{self, kv, stream},
};
use bytes::Bytes;
use walgate_consumer::wire::{
    self, ChangeWriter, ChunkDigest, Compressor, Dictionary, Epoch, EpochRecord, InitError,
    InitMeta, InitStart, Lsn, PROGRESS_SUBJECT, Position, Progress, Schema, StreamPosition, Token,
    XidWindow, split_into_parts, subjects, to_msgpack,
};
use walgate_servers::{NatsOptions, PrivateNats, find_nats};

use crate::rows::{Did, V, chunk_body, write_changes};

/// Rows by their first column, which is the key.
type Rows = BTreeMap<i64, Vec<V>>;

/// A fault of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Spoil {
    #[default]
    Nothing,
    Digest,
    LoseChunk,
    /// It ends without its meta message, which [`Publisher::complete`] publishes.
    BreakOff,
    /// It is not taken: an error message without a snapshot id.
    Refuse,
    /// No message is published.
    Silence,
}

struct Source {
    epoch: u32,
    lsn: u64,
    tables: BTreeMap<Token, (Schema, Rows)>,
    dictionary: Option<(Dictionary, u64)>,
    part_bytes: usize,
    spoil: VecDeque<Spoil>,
    lose_last_part: bool,
    snapshots: u32,
    /// The rest of the last interrupted snapshot.
    withheld: Option<Message>,
}

/// Clones share the source.
#[derive(Clone)]
pub struct Publisher {
    pub client: async_nats::Client,
    jetstream: jetstream::Context,
    source: Arc<Mutex<Source>>,
}

pub fn nats() -> PrivateNats {
    PrivateNats::start(&find_nats(None).unwrap().bin, NatsOptions::default()).unwrap()
}

impl Publisher {
    pub async fn new(nats: &PrivateNats) -> Publisher {
        let client = async_nats::connect(nats.url()).await.unwrap();
        let jetstream = jetstream::new(client.clone());
        let source = Source {
            epoch: 1,
            lsn: 1000,
            tables: BTreeMap::new(),
            dictionary: None,
            part_bytes: 900 << 10,
            spoil: VecDeque::new(),
            lose_last_part: false,
            snapshots: 0,
            withheld: None,
        };
        let publisher = Publisher { client, jetstream, source: Arc::new(Mutex::new(source)) };
        publisher.create_streams().await;
        publisher.begin_epoch(1).await;
        let server = publisher.clone();
        tokio::spawn(async move { server.answer_requests().await });
        publisher
    }

    pub async fn create_streams(&self) {
        for (name, subject) in [("CDC", subjects::CDC_ALL), ("INIT", subjects::INIT_ALL)] {
            let subjects = vec![subject.to_owned()];
            let config = stream::Config { name: name.into(), subjects, ..Default::default() };
            self.jetstream.get_or_create_stream(config).await.unwrap();
        }
        let requests = stream::Config {
            name: "REQUESTS".into(),
            subjects: vec![subjects::REQUESTS_ALL.into()],
            max_messages_per_subject: 1,
            discard: stream::DiscardPolicy::New,
            discard_new_per_subject: true,
            ..Default::default()
        };
        self.jetstream.get_or_create_stream(requests).await.unwrap();
        for bucket in ["schemas", "dictionaries"] {
            let config = kv::Config { bucket: bucket.into(), history: 64, ..Default::default() };
            self.jetstream.create_or_update_key_value(config).await.unwrap();
        }
    }

    pub async fn delete_changes(&self) {
        self.jetstream.delete_stream("CDC").await.unwrap();
        self.create_streams().await;
    }

    /// Deletes all streams and buckets, as if the server had lost its disk.
    pub async fn wipe(&self) {
        for stream in ["CDC", "INIT", "REQUESTS", "KV_schemas", "KV_dictionaries"] {
            self.jetstream.delete_stream(stream).await.unwrap();
        }
        self.create_streams().await;
    }

    pub async fn purge_changes(&self) {
        self.jetstream.get_stream("CDC").await.unwrap().purge().await.unwrap();
    }

    pub async fn begin_epoch(&self, epoch: u32) {
        self.source.lock().unwrap().epoch = epoch;
        let record = EpochRecord {
            epoch: Epoch(epoch),
            system_id: "1".into(),
            timeline: 1,
            slot: "walgate".into(),
            database: "d".into(),
            slot_start: Lsn(1),
        };
        let bucket = self.jetstream.get_key_value("schemas").await.unwrap();
        bucket.put(EpochRecord::KEY, to_msgpack(&record).unwrap().into()).await.unwrap();
    }

    /// Publishes the schema. The table's rows stay.
    pub async fn put_schema(&self, mut schema: Schema) {
        schema.revision = 0;
        let bucket = self.jetstream.get_key_value("schemas").await.unwrap();
        let revision =
            bucket.put(schema.token.as_str(), to_msgpack(&schema).unwrap().into()).await.unwrap();
        schema.revision = revision;
        let mut source = self.source.lock().unwrap();
        let entry = source
            .tables
            .entry(schema.token.clone())
            .or_insert_with(|| (schema.clone(), Rows::new()));
        entry.0 = schema;
    }

    pub fn schema(&self, table: &str) -> Schema {
        self.source.lock().unwrap().tables[&token(table)].0.clone()
    }

    /// Messages name this dictionary from now on. The returned future stores it.
    pub async fn use_dictionary(&self, dictionary: Dictionary) -> impl Future<Output = ()> + use<> {
        let bucket = self.jetstream.get_key_value("dictionaries").await.unwrap();
        let last = bucket.status().await.unwrap().info.state.last_sequence;
        let bytes = Bytes::copy_from_slice(dictionary.bytes());
        self.source.lock().unwrap().dictionary = Some((dictionary, last + 1));
        async move {
            assert_eq!(bucket.put("users_dict", bytes).await.unwrap(), last + 1);
        }
    }

    pub fn cut_at(&self, part_bytes: usize) {
        self.source.lock().unwrap().part_bytes = part_bytes;
    }

    pub fn spoil_next(&self, spoil: Spoil) {
        self.source.lock().unwrap().spoil.push_back(spoil);
    }

    /// The last part of the next body of changes is not published.
    pub fn lose_last_part(&self) {
        self.source.lock().unwrap().lose_last_part = true;
    }

    pub fn snapshots(&self) -> u32 {
        self.source.lock().unwrap().snapshots
    }

    pub fn rows(&self, table: &str) -> Vec<Vec<V>> {
        self.source.lock().unwrap().tables[&token(table)].1.values().cloned().collect()
    }

    pub fn lsn(&self) -> u64 {
        self.source.lock().unwrap().lsn
    }

    /// Changes rows of the source without publishing a message.
    pub fn silently(&self, table: &str, did: &Did) {
        apply(&mut self.source.lock().unwrap().tables.get_mut(&token(table)).unwrap().1, did);
    }

    /// One transaction: one message per run of changes of a table, then a progress message.
    pub async fn transaction(&self, changes: &[(&str, Did)]) {
        let place = self.begin_transaction(changes).await;
        self.progress(place).await;
    }

    /// A transaction without its progress message. Returns its position.
    pub async fn begin_transaction(&self, changes: &[(&str, Did)]) -> StreamPosition {
        let (messages, place) = {
            let mut source = self.source.lock().unwrap();
            source.lsn += 10;
            let (lsn, epoch) = (source.lsn, Epoch(source.epoch));
            let mut messages = Vec::new();
            let mut n = 1;
            for run in changes.chunk_by(|a, b| a.0 == b.0) {
                let token = token(run[0].0);
                let dids: Vec<Did> = run.iter().map(|(_, did)| did.clone()).collect();
                let mut writer = ChangeWriter::default();
                write_changes(&mut writer, lsn, lsn as u32, n, &dids);
                n += run.len() as u32;
                let (schema, rows) = source.tables.get_mut(&token).unwrap();
                dids.iter().for_each(|did| apply(rows, did));
                let revision = schema.revision;
                let place = StreamPosition { epoch, position: Position::new(Lsn(lsn), n - 1) };
                messages.push(source.encode(
                    subjects::cdc(&token),
                    &writer.out,
                    Some((place, revision)),
                ));
            }
            (messages, StreamPosition { epoch, position: Position::new(Lsn(lsn), n) })
        };
        for mut body in messages {
            if std::mem::take(&mut self.source.lock().unwrap().lose_last_part) {
                assert!(body.len() > 1, "it is not in parts");
                body.pop();
            }
            for message in body {
                self.publish(message).await;
            }
        }
        place
    }

    pub async fn progress(&self, place: StreamPosition) {
        let Position { commit_lsn: lsn, ordinal: n } = place.position;
        let body = to_msgpack(&Progress { lsn, n, end_lsn: lsn, at: lsn.0 as i64 }).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(wire::POS, place.to_string());
        self.publish((PROGRESS_SUBJECT.to_owned(), headers, body)).await;
    }

    async fn publish(&self, (subject, headers, body): Message) {
        let ack = self.jetstream.publish_with_headers(subject, headers, body.into()).await.unwrap();
        ack.await.unwrap();
    }

    async fn answer_requests(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let Ok(stream) = self.jetstream.get_stream("REQUESTS").await else { continue };
            let first = stream.cached_info().state.first_sequence;
            if stream.cached_info().state.messages == 0 {
                continue;
            }
            let Ok(message) = stream.get_raw_message(first).await else { continue };
            let token = message.subject.as_str().strip_prefix(subjects::REQUEST_PREFIX).unwrap();
            self.snapshot(&Token::parse(token).unwrap()).await;
            // The server may be killed meanwhile.
            while stream.delete_message(first).await.is_err()
                && stream.get_raw_message(first).await.is_ok()
            {}
        }
    }

    /// Publishes the rest of the interrupted snapshot.
    pub async fn complete(&self) {
        let withheld = self.source.lock().unwrap().withheld.take();
        self.publish(withheld.expect("none broke off")).await;
    }

    /// Deletes the epoch's entry, as an operator could.
    pub async fn delete_epoch(&self) {
        let bucket = self.jetstream.get_key_value("schemas").await.unwrap();
        bucket.delete(EpochRecord::KEY).await.unwrap();
    }

    pub async fn snapshot(&self, token: &Token) {
        let mut cdc = self.jetstream.get_stream("CDC").await.unwrap();
        let cdc_sequence = cdc.info().await.unwrap().state.last_sequence;
        let messages = self.source.lock().unwrap().snapshot(token, cdc_sequence);
        for message in messages {
            self.publish(message).await;
        }
    }
}

type Message = (String, HeaderMap, Vec<u8>);

impl Source {
    fn snapshot(&mut self, token: &Token, cdc_sequence: u64) -> Vec<Message> {
        self.snapshots += 1;
        let spoil = self.spoil.pop_front().unwrap_or_default();
        if spoil == Spoil::Refuse {
            return vec![refusal(token)];
        }
        if spoil == Spoil::Silence {
            return vec![];
        }
        let (schema, rows) = &self.tables[token];
        let rows: Vec<Vec<V>> = rows.values().cloned().collect();
        let dictionary = self.dictionary.as_ref();
        // The watermark precedes the last transaction, so only its id shows that it is visible.
        let start = InitStart {
            v: 1,
            table: schema.table.clone(),
            snapshot_id: format!("s{}-{}", self.snapshots, self.lsn),
            lsn: Lsn(self.lsn - 5),
            epoch: Epoch(self.epoch),
            compression_enabled: dictionary.is_some(),
            dictionary_id: dictionary.map(|_| "users_dict".into()),
            dictionary_revision: dictionary.map(|(_, revision)| *revision),
            dictionary_sha256: dictionary.map(|(d, _)| d.sha256().to_owned()),
            schema_revision: schema.revision,
            columns: schema.columns.clone(),
            key: schema.key.clone(),
            identity: schema.identity,
            guest: None,
            xid_window: XidWindow { xmin: self.lsn + 1, xmax: self.lsn + 1, xip: vec![] },
            cdc_sequence,
            estimated_rows: rows.len() as u64,
            started_at: 1,
        };
        let mut messages =
            vec![(subjects::init_start(token), HeaderMap::new(), to_msgpack(&start).unwrap())];
        let mut digest = ChunkDigest::default();
        let bodies: Vec<Vec<u8>> = rows.chunks(100).map(|rows| chunk_body(schema, rows)).collect();
        // In reverse order and the last one twice: order does not matter.
        for (n, body) in bodies.iter().enumerate().rev() {
            digest.add(n as u64, ChunkDigest::of(body));
            let subject = subjects::init_snap(token, &start.snapshot_id, n as u64);
            for _ in
                0..if spoil == Spoil::LoseChunk && n == 0 { 0 } else { 1 + usize::from(n == 0) }
            {
                messages.extend(self.encode(subject.clone(), body, None));
            }
        }
        let mut sha256 = digest.finish();
        if spoil == Spoil::Digest {
            sha256 = "0".repeat(64);
        }
        let meta = InitMeta {
            start,
            batch_count: bodies.len() as u64,
            row_count: rows.len() as u64,
            raw_bytes: 0,
            bytes: 0,
            sha256,
            finished_at: i64::MAX / 2,
        };
        let meta = (subjects::init_meta(token), HeaderMap::new(), to_msgpack(&meta).unwrap());
        if spoil == Spoil::BreakOff {
            self.withheld = Some(meta);
        } else {
            messages.push(meta);
        }
        messages
    }

    fn encode(
        &self,
        subject: String,
        body: &[u8],
        cdc: Option<(StreamPosition, u64)>,
    ) -> Vec<Message> {
        let mut headers = HeaderMap::new();
        if let Some((place, revision)) = cdc {
            headers.insert(wire::POS, place.to_string());
            headers.insert(wire::SCHEMA, revision.to_string());
        }
        let mut frame = Vec::new();
        if let Some((dictionary, revision)) = &self.dictionary {
            Compressor::new(3, Some(dictionary)).unwrap().compress(body, &mut frame).unwrap();
            headers.insert(wire::CONTENT_ENCODING, wire::ZSTD);
            headers.insert(wire::DICT, format!("users_dict@{revision}"));
        } else {
            frame.extend_from_slice(body);
        }
        let parts = split_into_parts(&frame, self.part_bytes).map(|(part, piece)| {
            let mut headers = headers.clone();
            if let Some(part) = part {
                headers.insert(wire::PART, part.to_string());
            }
            (subject.clone(), headers, piece.to_vec())
        });
        parts.collect()
    }
}

fn refusal(token: &Token) -> Message {
    let error = InitError {
        table: token.to_string(),
        snapshot_id: None,
        code: "stream_failed".into(),
        message: "not now".into(),
        retry_after: Some(0),
    };
    (subjects::init_error(token), HeaderMap::new(), to_msgpack(&error).unwrap())
}

fn token(table: &str) -> Token {
    table.parse::<wire::TableName>().unwrap().token()
}

fn apply(rows: &mut Rows, did: &Did) {
    let id = |row: &[V]| if let V::Int(id) = row[0] { id } else { panic!("the key is an integer") };
    match did {
        Did::Insert(row) => drop(rows.insert(id(row), row.clone())),
        Did::Update { row, unchanged, old } => {
            let at = old.as_ref().map_or(id(row), |old| id(old));
            let before = rows.remove(&at).unwrap();
            let mut row = row.clone();
            unchanged.iter().for_each(|&i| row[i] = before[i].clone());
            rows.insert(id(&row), row);
        }
        Did::Delete(old) => drop(rows.remove(&id(old))),
        Did::Truncate => rows.clear(),
    }
}
